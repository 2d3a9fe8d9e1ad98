// SPDX-License-Identifier: Apache-2.0
//
// Files, locks and modes of a data folder. What a person reads of an error names
// the path.
#include "node/daemon/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>
#include <openssl/rand.h>

#include "node/session/wire.h"
#include "storage/core/digest.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using nlohmann::json;
using storage::NodeId;

constexpr size_t kSmallFileMax = 64 << 10;
constexpr mode_t kFolderMode = 0700;
constexpr mode_t kFileMode = 0600;
constexpr char kFactsFile[] = "/chaptersync.json";
constexpr char kJoiningFile[] = "/joining.json";
constexpr char kAuthorityKeyFile[] = "/authority.key";
constexpr char kLockFile[] = "/lock";
constexpr char kMarkerFile[] = "/marker";
constexpr char kEndpointsFile[] = "/endpoints.json";
constexpr char kServedFile[] = "/served";

absl::Status Failed(const std::string& what, const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", what, " '", path, "': ", std::strerror(errno)));
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status SyncFolder(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || fsync(fd.get()) != 0) return Failed("sync", path);
  return absl::OkStatus();
}

absl::Status WriteAll(int fd, const std::string& text, const std::string& path) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(fd, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Failed("write", path);
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> AbsolutePath(const std::string& path) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (path.empty() || error) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is no path of a folder"));
  }
  std::string text = absolute.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

// The lock's descriptor, or FAILED_PRECONDITION with who holds it.
absl::StatusOr<int> Lock(const std::string& folder) {
  const std::string path = folder + kLockFile;
  Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kFileMode));
  if (fd.get() < 0) return Failed("open", path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Failed("lock", path);
    char holder[32] = {};
    const ssize_t size = pread(fd.get(), holder, sizeof(holder) - 1, 0);
    const std::string pid(holder, size > 0 ? strcspn(holder, "\n") : 0);
    return absl::FailedPreconditionError(absl::StrCat(
        "'", folder, "' is in use by process ", pid.empty() ? "?" : pid, "; stop that one first"));
  }
  if (ftruncate(fd.get(), 0) != 0) return Failed("write", path);
  CHAPTER_RETURN_IF_ERROR(WriteAll(fd.get(), absl::StrCat(getpid(), "\n"), path));
  return fd.release();
}

absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kSmallFileMax));
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    return absl::FailedPreconditionError(absl::StrCat("'", path, "' is damaged: no JSON object"));
  }
  return value;
}

std::string TextOf(const json& value, const char* name) {
  const auto it = value.find(name);
  return it != value.end() && it->is_string() ? it->get<std::string>() : std::string();
}

absl::StatusOr<NodeId> NodeOf(const json& value, const std::string& path) {
  const std::string text = TextOf(value, "node");
  if (text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string::npos) {
    return NodeIdFromBytes(absl::HexStringToBytes(text));
  }
  return absl::FailedPreconditionError(absl::StrCat("'", path, "' is damaged: no node id"));
}

// 32 hexadecimal digits.
std::string ShortHash(const std::string& text) {
  return absl::BytesToHexString(storage::Sha256(text).substr(0, 16));
}

// A key or certificate. That it is missing is no reason to make the folder anew.
absl::StatusOr<std::string> ReadTrustFile(const std::string& path) {
  auto text = ReadWholeFile(path, kSmallFileMax);
  if (absl::IsNotFound(text.status())) {
    return absl::FailedPreconditionError(std::string(text.status().message()));
  }
  return text;
}

absl::Status CheckOwnFolder(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return Failed("look at", path);
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "' is not a folder that only this user may enter"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteFileDurably(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  {
    // Not one that lies there, whose mode and owner are who knows what.
    if (unlink(temporary.c_str()) != 0 && errno != ENOENT) return Failed("replace", temporary);
    const Fd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kFileMode));
    if (fd.get() < 0) return Failed("write", temporary);
    CHAPTER_RETURN_IF_ERROR(WriteAll(fd.get(), text, temporary));
    if (fsync(fd.get()) != 0) return Failed("sync", temporary);
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) return Failed("replace", path);
  return SyncFolder(std::filesystem::path(path).parent_path().string());
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t bytes_max) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat("there is no file '", path, "'"));
    return Failed("read", path);
  }
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t size = read(fd.get(), buffer, sizeof(buffer));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Failed("read", path);
    if (size == 0) return text;
    text.append(buffer, static_cast<size_t>(size));
    if (text.size() > bytes_max) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", path, "' is longer than ", bytes_max, " bytes"));
    }
  }
}

DataFolder::DataFolder(DataFolder&& other) noexcept
    : path_(std::move(other.path_)),
      lock_fd_(std::exchange(other.lock_fd_, -1)),
      facts_(std::move(other.facts_)) {}

DataFolder::~DataFolder() {
  if (lock_fd_ >= 0) close(lock_fd_);  // gives the lock back
}

absl::StatusOr<DataFolder> DataFolder::Prepare(const std::string& path) {
  CHAPTER_ASSIGN_OR_RETURN(std::string folder, AbsolutePath(path));
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), error);
  if (mkdir(folder.c_str(), kFolderMode) != 0 && errno != EEXIST) return Failed("make", folder);
  DIR* listing = opendir(folder.c_str());
  if (listing == nullptr) return Failed("read", folder);
  std::set<std::string> names;
  while (const dirent* entry = readdir(listing)) names.insert(entry->d_name);
  closedir(listing);
  if (names.contains(kFactsFile + 1)) {
    return absl::AlreadyExistsError(absl::StrCat("'", folder, "' is a data folder already"));
  }
  // What a join that did not end may have left.
  const std::set<std::string> ours = {".",
                                      "..",
                                      kLockFile + 1,
                                      kJoiningFile + 1,
                                      "identity.pem",
                                      "authority.pem",
                                      kMarkerFile + 1,
                                      kAuthorityKeyFile + 1};
  for (const std::string& name : names) {
    if (ours.contains(name) || name.ends_with(".new")) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("'", folder, "' is not empty (it holds '", name, "')"));
  }
  if (chmod(folder.c_str(), kFolderMode) != 0) return Failed("change the mode of", folder);
  CHAPTER_ASSIGN_OR_RETURN(const int fd, Lock(folder));
  return DataFolder(std::move(folder), fd);
}

absl::StatusOr<DataFolder> DataFolder::Open(const std::string& path, bool hub) {
  CHAPTER_ASSIGN_OR_RETURN(std::string folder, AbsolutePath(path));
  const char* make = hub ? "`chapter-hub init`" : "`chapter-node join`";
  if (!Exists(folder)) {
    return absl::NotFoundError(
        absl::StrCat("there is no folder '", folder, "'; ", make, " makes one"));
  }
  if (!Exists(folder + kFactsFile)) {
    return absl::NotFoundError(
        absl::StrCat("'", folder, "' is not a data folder; ", make, " makes one"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const int fd, Lock(folder));
  DataFolder opened(std::move(folder), fd);
  CHAPTER_RETURN_IF_ERROR(opened.Load(hub));
  return opened;
}

absl::Status DataFolder::Load(bool hub) {
  const std::string path = path_ + kFactsFile;
  CHAPTER_ASSIGN_OR_RETURN(const json value, ReadJsonFile(path));
  const auto format = value.find("format");
  if (format == value.end() || !format->is_number_integer() || format->get<int>() < 1) {
    return absl::FailedPreconditionError(absl::StrCat("'", path, "' is damaged: no format"));
  }
  if (format->get<int>() > kFolderFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path_, "' is of format ", format->get<int>(),
                     ", this program reads up to ", kFolderFormat, "; a newer program made it"));
  }
  const std::string role = TextOf(value, "role");
  if (role != (hub ? "hub" : "node")) {
    return absl::FailedPreconditionError(absl::StrCat(
        "'", path_, "' is a ", role == "hub" ? "hub" : "node", "'s folder; it is for `",
        role == "hub" ? "chapter-hub" : "chapter-node", "`"));
  }
  facts_.hub = hub;
  CHAPTER_ASSIGN_OR_RETURN(facts_.node, NodeOf(value, path));
  facts_.chapter = TextOf(value, "chapter");
  facts_.federation = TextOf(value, "federation");
  facts_.hub_address = TextOf(value, "hub");
  if (chmod(path_.c_str(), kFolderMode) != 0) return Failed("change the mode of", path_);
  return absl::OkStatus();
}

absl::StatusOr<JoiningNode> DataFolder::Joining() {
  const std::string path = path_ + kJoiningFile;
  auto value = ReadJsonFile(path);
  if (value.ok()) {
    CHAPTER_ASSIGN_OR_RETURN(const NodeId node, NodeOf(*value, path));
    auto key = PrivateKey::FromPem(TextOf(*value, "key"));
    if (key.ok()) return JoiningNode{node, *std::move(key)};
    return absl::FailedPreconditionError(absl::StrCat("'", path, "' is damaged: no key"));
  }
  if (!absl::IsNotFound(value.status())) return value.status();
  JoiningNode joining{{}, PrivateKey::Make()};
  CHAPTER_CHECK(
      RAND_bytes(joining.node.bytes.data(), static_cast<int>(joining.node.bytes.size())) == 1);
  const json text = {{"node", joining.node.ToString()}, {"key", joining.key.ToPem()}};
  CHAPTER_RETURN_IF_ERROR(WriteFileDurably(path, text.dump() + "\n"));
  return joining;
}

absl::Status DataFolder::Create(const FolderFacts& facts) {
  // Never written again: it tells copies by being another file.
  if (!Exists(path_ + kMarkerFile)) {
    CHAPTER_RETURN_IF_ERROR(
        WriteFileDurably(path_ + kMarkerFile,
                         "A copy of this file is another file: by that copies are found out.\n"));
  }
  json value = {{"format", kFolderFormat},
                {"role", facts.hub ? "hub" : "node"},
                {"node", facts.node.ToString()},
                {"federation", facts.federation}};
  if (!facts.hub) {
    value["chapter"] = facts.chapter;
    value["hub"] = facts.hub_address;
  }
  const std::string text = value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  CHAPTER_RETURN_IF_ERROR(WriteFileDurably(path_ + kFactsFile, text));
  facts_ = facts;
  unlink((path_ + kJoiningFile).c_str());
  return absl::OkStatus();
}

absl::Status DataFolder::WriteAuthority(const std::string& certificate_pem) {
  return WriteFileDurably(authority_path(), certificate_pem);
}

absl::Status DataFolder::WriteAuthority(const Authority& authority) {
  CHAPTER_RETURN_IF_ERROR(WriteFileDurably(path_ + kAuthorityKeyFile, authority.key().ToPem()));
  return WriteAuthority(authority.certificate_pem());
}

absl::StatusOr<Authority> DataFolder::ReadAuthority() const {
  CHAPTER_ASSIGN_OR_RETURN(const std::string key, ReadTrustFile(path_ + kAuthorityKeyFile));
  CHAPTER_ASSIGN_OR_RETURN(const std::string certificate, ReadTrustFile(authority_path()));
  auto authority = Authority::FromPem(key, certificate);
  if (authority.ok()) return authority;
  return absl::FailedPreconditionError(
      absl::StrCat("'", path_, kAuthorityKeyFile, "' or '", authority_path(),
                   "' is damaged: ", authority.status().message()));
}

absl::Status DataFolder::WriteIdentity(const PrivateKey& key, const std::string& chain) {
  return WriteFileDurably(identity_path(), IdentityText(key, chain));
}

absl::StatusOr<TlsIdentity> DataFolder::ReadIdentity() const {
  CHAPTER_ASSIGN_OR_RETURN(const std::string text, ReadTrustFile(identity_path()));
  CHAPTER_ASSIGN_OR_RETURN(const std::string authority, ReadTrustFile(authority_path()));
  auto identity = ParseIdentity(text, authority);
  if (identity.ok()) return identity;
  return absl::FailedPreconditionError(absl::StrCat("'", identity_path(), "' or '",
                                                    authority_path(),
                                                    "' is damaged: ", identity.status().message()));
}

absl::StatusOr<std::string> DataFolder::Marker() const {
  const std::string path = path_ + kMarkerFile;
  if (!Exists(path)) {
    CHAPTER_RETURN_IF_ERROR(WriteFileDurably(path, "This file was missing and was made anew.\n"));
  }
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &info) != 0) {
    return Failed("look at", path);
  }
  // An inode's number is given out again soon after a file was removed; the birth
  // tells the two apart.
  std::string birth = "none";
  if ((info.stx_mask & STATX_BTIME) != 0) {
    birth = absl::StrCat(info.stx_btime.tv_sec, ".", info.stx_btime.tv_nsec);
  }
  std::string machine = "none";
  if (auto id = ReadWholeFile("/etc/machine-id", kSmallFileMax); id.ok()) {
    machine = id->substr(0, id->find('\n'));
  }
  return absl::StrCat("inode ", info.stx_ino, ", birth ", birth, ", machine ", machine);
}

bool DataFolder::served() const { return Exists(path_ + kServedFile); }

absl::Status DataFolder::SetServed() const {
  return WriteFileDurably(path_ + kServedFile,
                          "The database was made: an empty one is a lost one.\n");
}

absl::StatusOr<std::string> DataFolder::SocketPath() const {
  std::string path = path_ + "/socket";
  if (path.size() > kSocketPathMax) {
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    std::string base = runtime != nullptr && runtime[0] == '/' ? runtime : "/tmp";
    // The same for the same folder, so that a crash leaves nothing behind for ever.
    const std::string tail = absl::StrCat("/chaptersync-", ShortHash(path_));
    if (base.size() + tail.size() + sizeof("/socket") > kSocketPathMax) base = "/tmp";
    const std::string folder = base + tail;
    if (mkdir(folder.c_str(), kFolderMode) != 0 && errno != EEXIST) return Failed("make", folder);
    CHAPTER_RETURN_IF_ERROR(CheckOwnFolder(folder));
    path = folder + "/socket";
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return Failed("remove", path);
  return path;
}

absl::Status DataFolder::WriteEndpoints(const std::map<std::string, std::string>& endpoints) const {
  const json value(endpoints);
  return WriteFileDurably(path_ + kEndpointsFile, value.dump() + "\n");
}

void DataFolder::RemoveEndpoints() const { unlink((path_ + kEndpointsFile).c_str()); }

}  // namespace chaptersync::node
