// SPDX-License-Identifier: Apache-2.0
//
// watch: changes as they happen, a line each, until a signal ends it. A thread
// of its own waits for the signal and cancels the call.
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

#include "node/entity/cells.h"
#include "node/entity/value.h"
#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/json.h"
#include "tools/chapterctl/text_width.h"

namespace chaptersync::ctl {
namespace {

// Written to by the signal handler; the counter of an eventfd, -1 while nobody waits.
std::atomic<int> signal_fd = -1;

void OnSignal(int /*signal*/) {
  const int reason = errno;
  const uint64_t one = 1;
  const int fd = signal_fd;
  // It can only fail where a signal is told already.
  if (fd >= 0) static_cast<void>(write(fd, &one, sizeof(one)) == sizeof(one));
  errno = reason;
}

// Cancels a call when SIGINT or SIGTERM comes, while it lives. One at a time.
class CancelOnSignal {
 public:
  explicit CancelOnSignal(grpc::ClientContext& context) : fd_(eventfd(0, EFD_CLOEXEC)) {
    CHAPTER_CHECK(fd_ >= 0);
    signal_fd = fd_;
    struct sigaction action {};
    action.sa_handler = OnSignal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, &before_int_);
    sigaction(SIGTERM, &action, &before_term_);
    thread_ = std::thread([this, &context] {
      uint64_t count = 0;
      while (read(fd_, &count, sizeof(count)) < 0 && errno == EINTR) {
      }
      if (ending_) return;
      came_ = true;
      context.TryCancel();
    });
  }
  ~CancelOnSignal() {
    sigaction(SIGINT, &before_int_, nullptr);
    sigaction(SIGTERM, &before_term_, nullptr);
    ending_ = true;
    OnSignal(0);
    thread_.join();
    signal_fd = -1;
    close(fd_);
  }
  CancelOnSignal(const CancelOnSignal&) = delete;
  CancelOnSignal& operator=(const CancelOnSignal&) = delete;

  bool came() const { return came_; }

 private:
  const int fd_;
  struct sigaction before_int_ {};
  struct sigaction before_term_ {};
  std::atomic<bool> ending_ = false;
  std::atomic<bool> came_ = false;
  std::thread thread_;
};

// What a record's table would show of it, on one line.
std::string Summary(const v1::Record& record) {
  const node::EntityType* type = node::BuiltinEntities().FindByNoun(record.noun());
  if (type == nullptr || !record.has_entity()) return "";
  const auto message = EntityOf(*type, record);
  if (!message.ok()) return "";
  std::string out;
  for (const std::string& column : type->columns) {
    const auto path = node::ParsePath(*type, column);
    const std::string text = path.ok() ? node::DisplayText(**message, *path) : "";
    if (!text.empty()) absl::StrAppend(&out, out.empty() ? "" : ", ", text);
  }
  return out;
}

absl::Status PrintEvent(Output& output, const v1::WatchRecordsResponse& event) {
  const std::string what = EventText(event.event());
  const v1::Record& record = event.record();
  switch (output.format()) {
    case Format::kJson: {
      CHAPTER_ASSIGN_OR_RETURN(const Json json, RecordJson(record));
      output.Object(Json{{"event", what}, {"record", json}});
      break;
    }
    case Format::kCsv:
      output.Raw(CsvRow({what, record.noun(), record.id()}));
      break;
    case Format::kTable: {
      // These lines are the result: quiet leaves them.
      const std::string summary = Summary(record);
      output.Raw(
          Printable(absl::StrCat(what, " ", record.name(), summary.empty() ? "" : "  ", summary)) +
          "\n");
      break;
    }
  }
  return output.Finish();  // flushes
}

absl::Status Watch(Context& context, const std::string& noun) {
  v1::WatchRecordsRequest request;
  if (!noun.empty()) {
    const auto type = node::BuiltinEntities().GetByNoun(noun);
    if (!type.ok()) return UsageError(std::string(type.status().message()));
    request.set_noun((*type)->plural);
  }
  grpc::ClientContext call;
  context.client.Prepare(call);
  const CancelOnSignal cancel(call);
  const auto reader = context.client.records().WatchRecords(&call, request);
  reader->WaitForInitialMetadata();
  context.output.Note("watching; Ctrl-C ends it");
  absl::Status printed;
  if (context.output.format() == Format::kCsv) {
    context.output.Raw(CsvRow({"event", "noun", "id"}));
    context.output.Flush();
  }
  v1::WatchRecordsResponse event;
  while (printed.ok() && reader->Read(&event)) printed = PrintEvent(context.output, event);
  if (!printed.ok()) call.TryCancel();
  const grpc::Status status = reader->Finish();
  if (cancel.came()) return absl::OkStatus();
  if (!printed.ok()) return printed;
  if (status.ok()) return absl::UnavailableError("the daemon ended the watch");
  return context.client.Failed(status);
}

}  // namespace

void AddWatchCommand(CLI::App& app, Action& action) {
  const auto noun = std::make_shared<std::string>();
  CLI::App* watch = app.add_subcommand("watch", "shows changes as they happen");
  watch->add_option("NOUN", *noun, "only of these records: members");
  watch->callback(
      [=, &action] { action = [=](Context& context) { return Watch(context, *noun); }; });
}

}  // namespace chaptersync::ctl
