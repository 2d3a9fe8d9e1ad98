// SPDX-License-Identifier: Apache-2.0
//
// Reads plans and runs them; see plan.h. Each line becomes a step that acts on a
// federation, or an expectation that looks at it once it has come to rest. One
// thread.
#include "tests/simulation/plan.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "storage/core/status.h"
#include "tests/simulation/federation.h"
#include "tests/simulation/plan_text.h"

namespace chaptersync::simulation {
namespace {

using Aware = Federation::Aware;
using Edit = Federation::Edit;
using storage::CellPath;
using storage::Choice;

// Seconds for the federation to come to rest.
constexpr uint64_t kTicksMax = 1500;
// How long a step waits for a computer to start, or for a stream to be opened.
constexpr uint64_t kWaitMsMax = 120'000;
constexpr uint64_t kRoundsMax = 200;
constexpr uint64_t kRunMsMax = uint64_t{8} * 24 * 3600 * 1000;
// A broken line that nobody was told of is found out after so long, in milliseconds.
constexpr uint64_t kFoundMs = 30'000;
constexpr uint64_t kDownMs = 1'000;
constexpr int kManyWrites = 1'000'000;

// --- A plan, compiled for one round. ---

// What is known of a computer at its beginning.
struct Beginning {
  uint64_t replica = 0;
  uint64_t epoch = 0;
};

struct Stage {
  Federation& federation;
  std::map<std::string, Beginning> beginnings;
  size_t At(const std::string& name) const { return *federation.Find(name); }
};

using Act = std::function<absl::Status(Stage&)>;

struct Step {
  size_t line = 0;
  std::string text;
  Act act;
};

struct Round {
  Options options;
  Federation::Limits limits;
  uint64_t rounds = 1;
  std::vector<Step> steps;
  std::vector<Step> expectations;
};

absl::Status Unmet(const std::string& instead) { return absl::FailedPreconditionError(instead); }

void Begin(Stage& stage, const std::string& name) {
  const storage::Replica* replica = stage.federation.replica(stage.At(name));
  if (replica == nullptr) return;
  stage.beginnings[name] = {replica->replica_id().value, replica->epoch().value};
}

absl::Status WaitUntil(Stage& stage, const std::string& what,
                       const std::function<bool()>& condition) {
  const uint64_t begin_ms = stage.federation.scheduler().now_ms();
  while (!condition()) {
    if (!stage.federation.Step()) return absl::OkStatus();  // the failure is told elsewhere
    if (stage.federation.scheduler().now_ms() - begin_ms > kWaitMsMax) {
      return Unmet(absl::StrCat(what, ", after ", kWaitMsMax / 1000, " s of waiting"));
    }
  }
  return absl::OkStatus();
}

// The officer waits for the computer to start.
absl::Status WaitUp(Stage& stage, const std::string& name) {
  return WaitUntil(stage, name + " does not run",
                   [&] { return stage.federation.up(stage.At(name)); });
}

// Calls `act` with the site's line; where none is open, with its next one.
absl::Status WithLine(Stage& stage, const std::string& name,
                      const std::function<void(Line&)>& act) {
  const size_t site = stage.At(name);
  const absl::Status status = WaitUntil(stage, name + " has no line", [&] {
    const Line* line = stage.federation.LineOf(site);
    return line != nullptr && line->open();
  });
  if (!status.ok() || stage.federation.failed()) return status;
  act(*stage.federation.LineOf(site));
  return absl::OkStatus();
}

class Compiler {
 public:
  Compiler(std::string file, const std::string& text, uint64_t round)
      : file_(std::move(file)), text_(absl::StrReplaceAll(text, {{"$n", absl::StrCat(round)}})) {}

  absl::StatusOr<Round> Compile();

 private:
  using Command = absl::StatusOr<Act> (Compiler::*)(const Words&);
  // How a command looks; words in capitals stand for something.
  struct Form {
    const char* usage;
    Command compile;
  };
  static const std::vector<Form>& Commands();
  static const std::vector<Form>& Deeds();

  static std::string Verb(const Form& form) {
    const std::string usage = form.usage;
    return usage.substr(0, usage.find(' '));
  }
  absl::StatusOr<Act> CompileOne(const std::vector<Form>& forms, const Words& words);
  absl::Status CompileLine(const Words& words, Step step);
  absl::Status CompileExpectation(const std::string& line, Step step);
  absl::Status Complete();

  // --- Names. ---
  absl::Status Declare(const std::string& name, bool hub);
  absl::Status Site(const std::string& name) const;
  absl::Status Kind(const std::string& name, bool hub) const;
  // Without a message: the caller says which form the line should have.
  absl::Status Fits(bool fits) const { return fits ? absl::OkStatus() : Wrong(""); }

  // --- Commands. ---
  absl::StatusOr<Act> Seed(const Words& words);
  absl::StatusOr<Act> Repeat(const Words& words);
  absl::StatusOr<Act> Page(const Words& words);
  absl::StatusOr<Act> Hub(const Words& words);
  absl::StatusOr<Act> Node(const Words& words);
  absl::StatusOr<Act> Link(const Words& words);
  absl::StatusOr<Act> LineOf(const Words& words);
  absl::StatusOr<Act> Divide(const Words& words);
  absl::StatusOr<Act> Switch(const Words& words);
  absl::StatusOr<Act> At(const Words& words);
  absl::StatusOr<Act> Run(const Words& words);
  absl::StatusOr<Act> Rest(const Words& words);
  absl::StatusOr<Act> Crash(const Words& words);
  absl::StatusOr<Act> Backup(const Words& words);
  absl::StatusOr<Act> GoBack(const Words& words);
  absl::StatusOr<Act> Copy(const Words& words);
  absl::StatusOr<Act> Clock(const Words& words);
  absl::StatusOr<Act> Cut(const Words& words);
  absl::StatusOr<Act> BreakLine(const Words& words);
  absl::StatusOr<Act> Slow(const Words& words);
  absl::StatusOr<Act> FullDisk(const Words& words);
  absl::StatusOr<Act> FailDisk(const Words& words);
  absl::StatusOr<Act> TellDropped(const Words& words);
  absl::StatusOr<Act> Revoke(const Words& words);
  absl::StatusOr<Act> Certificate(const Words& words);
  absl::StatusOr<Act> Decide(const Words& words);
  absl::StatusOr<Act> Schema(const Words& words);
  absl::StatusOr<Act> Nonsense(const Words& words);

  // --- What people do at a computer: `site_` is where. ---
  absl::StatusOr<Act> Put(const Words& words);
  absl::StatusOr<Act> DoRecord(const Words& words);
  absl::StatusOr<Act> Settle(const Words& words);
  absl::StatusOr<Act> DoRefused(const Words& words);
  Act Do(std::function<bool(Federation&, size_t)> deed);

  // --- Expectations. ---
  absl::Status ExpectRecord(const std::optional<std::string>& site, const Words& words, Step step);
  absl::Status ExpectConflict(const Words& words, const Step& step);
  absl::Status ExpectRefused(const std::string& site, const Words& words, const Step& step);
  absl::Status ExpectNowhere(const Words& words, Step step);
  absl::Status ExpectIdentity(bool epoch, const Words& words, Step step);

  // Lines that together are all that there is of something.
  struct List {
    Step step;  // the first of them
    std::vector<std::string> lines;
    bool none = false;
  };
  absl::Status AddTo(List& list, const Step& step, std::optional<std::string> line);

  const std::string file_;
  const std::string text_;
  Round round_;
  std::map<std::string, bool> sites_;  // whether it is a hub
  std::set<std::string> backups_;
  std::string site_;
  bool cannot_ = false;
  // How often the plan writes a value to a field of a record.
  using Written =
      std::map<std::tuple<std::string, uint32_t, std::optional<std::string>, PlainValue>, int>;
  static Written::key_type KeyOfWrite(const std::string& record, const Federation::CellText& cell) {
    return {record, cell.field, cell.map_key, cell.text};
  }
  const std::shared_ptr<Written> written_ = std::make_shared<Written>();
  std::map<std::string, List> conflicts_;  // by record
  std::map<std::string, List> refused_;    // by computer
  std::optional<Step> alarms_step_;
  uint64_t alarms_ = 0;
  std::optional<Step> losses_step_;
  std::map<std::string, uint64_t> losses_;
};

const std::vector<Compiler::Form>& Compiler::Commands() {
  static const auto* const forms = new std::vector<Form>{
      {"seed NUMBER", &Compiler::Seed},
      {"repeat TIMES", &Compiler::Repeat},
      {"page NUMBER records|bytes", &Compiler::Page},
      {"hub NAME [schema older]", &Compiler::Hub},
      {"node NAME chapter CHAPTER hub HUB [schema older]", &Compiler::Node},
      {"link HUB HUB", &Compiler::Link},
      {"line COMPUTER down|up", &Compiler::LineOf},
      {"divide COMPUTER HUB", &Compiler::Divide},
      {"join COMPUTER HUB", &Compiler::Divide},
      {"switch NODE HUB", &Compiler::Switch},
      {"at COMPUTER [cannot] put|delete|restore|erase|settle|retry-refused|drop-refused|scrub ...",
       &Compiler::At},
      {"run TIME", &Compiler::Run},
      {"rest", &Compiler::Rest},
      {"crash COMPUTER [losing unsynced | after NUMBER operations]", &Compiler::Crash},
      {"backup COMPUTER", &Compiler::Backup},
      {"restore COMPUTER", &Compiler::GoBack},
      {"rollback COMPUTER", &Compiler::GoBack},
      {"copy NODE as NAME", &Compiler::Copy},
      {"clone NODE as NAME", &Compiler::Copy},
      {"clock COMPUTER +TIME|-TIME|drift NUMBERppm|drift -NUMBERppm", &Compiler::Clock},
      {"cut COMPUTER [after NUMBER messages]", &Compiler::Cut},
      {"half-open COMPUTER", &Compiler::BreakLine},
      {"mute COMPUTER", &Compiler::BreakLine},
      {"deaf COMPUTER", &Compiler::BreakLine},
      {"redial COMPUTER", &Compiler::BreakLine},
      {"slow COMPUTER TIME", &Compiler::Slow},
      {"clog COMPUTER TIME", &Compiler::Slow},
      {"full-disk COMPUTER on|off", &Compiler::FullDisk},
      {"fail-write COMPUTER", &Compiler::FailDisk},
      {"tear-write COMPUTER", &Compiler::FailDisk},
      {"fail-sync COMPUTER", &Compiler::FailDisk},
      {"tell HUB dropped NODE RECORD", &Compiler::TellDropped},
      {"revoke NODE", &Compiler::Revoke},
      {"expire NODE", &Compiler::Certificate},
      {"rejoin NODE", &Compiler::Certificate},
      {"approve HUB", &Compiler::Decide},
      {"reject HUB", &Compiler::Decide},
      {"schema COMPUTER older|newer", &Compiler::Schema},
      {"nonsense COMPUTER", &Compiler::Nonsense},
  };
  return *forms;
}

const std::vector<Compiler::Form>& Compiler::Deeds() {
  static const auto* const forms = new std::vector<Form>{
      {"put RECORD FIELD=VALUE... [and RECORD FIELD=VALUE...]", &Compiler::Put},
      {"delete RECORD", &Compiler::DoRecord},
      {"restore RECORD", &Compiler::DoRecord},
      {"erase RECORD", &Compiler::DoRecord},
      {"settle RECORD FIELD LOST keep|take|value [VALUE], or RECORD deletion|restoration keep|take",
       &Compiler::Settle},
      {"retry-refused", &Compiler::DoRefused},
      {"drop-refused", &Compiler::DoRefused},
      {"scrub", &Compiler::DoRefused},
  };
  return *forms;
}

absl::StatusOr<Act> Compiler::CompileOne(const std::vector<Form>& forms, const Words& words) {
  std::vector<std::string> verbs;
  for (const Form& form : forms) {
    verbs.push_back(Verb(form));
    if (verbs.back() != words[0]) continue;
    absl::StatusOr<Act> act = (this->*form.compile)(words);
    if (act.ok() || !act.status().message().empty()) return act;
    return Wrong(absl::StrCat("'", Joined(words), "' is not of the form '", form.usage, "'"));
  }
  return Wrong(
      absl::StrCat("'", words[0], "' is no command; there are ", absl::StrJoin(verbs, ", ")));
}

absl::StatusOr<Round> Compiler::Compile() {
  size_t number = 0;
  bool expectations = false;
  for (const absl::string_view raw : absl::StrSplit(text_, '\n')) {
    ++number;
    const std::string line(absl::StripAsciiWhitespace(raw));
    if (line.empty() || line[0] == '#') continue;
    const Step step{.line = number, .text = line, .act = {}};
    absl::Status status;
    if (line == "----") {
      if (expectations) status = Wrong("a second ----");
      expectations = true;
    } else if (expectations) {
      status = CompileExpectation(line, step);
    } else {
      const auto words = Split(line);
      status = words.ok() ? CompileLine(*words, step) : words.status();
    }
    if (!status.ok()) return Wrong(absl::StrCat(file_, ":", number, ": ", status.message()));
  }
  const bool some = !round_.expectations.empty() || !conflicts_.empty() || !refused_.empty() ||
                    alarms_step_ || losses_step_;
  if (!some) {
    return Wrong(absl::StrCat(file_, ": no expectations: they follow a line ----"));
  }
  const absl::Status status = Complete();
  if (!status.ok()) return Wrong(absl::StrCat(file_, ": ", status.message()));
  return std::move(round_);
}

absl::Status Compiler::CompileLine(const Words& words, Step step) {
  CHAPTER_ASSIGN_OR_RETURN(step.act, CompileOne(Commands(), words));
  if (step.act) round_.steps.push_back(std::move(step));
  return absl::OkStatus();
}

// --- Names. ---

absl::Status Compiler::Declare(const std::string& name, bool hub) {
  if (!sites_.emplace(name, hub).second) {
    return Wrong(absl::StrCat("there is a computer '", name, "' already"));
  }
  return absl::OkStatus();
}

absl::Status Compiler::Site(const std::string& name) const {
  if (sites_.contains(name)) return absl::OkStatus();
  std::vector<std::string> names;
  for (const auto& [known, hub] : sites_) names.push_back(known);
  return Wrong(
      absl::StrCat("there is no computer '", name, "' here; there are ", LinesText(names)));
}

absl::Status Compiler::Kind(const std::string& name, bool hub) const {
  CHAPTER_RETURN_IF_ERROR(Site(name));
  if (sites_.at(name) == hub) return absl::OkStatus();
  return Wrong(absl::StrCat("'", name, "' is no ", hub ? "hub" : "node"));
}

// --- Commands. ---

absl::StatusOr<Act> Compiler::Seed(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_ASSIGN_OR_RETURN(round_.options.seed, Number(words[1], 0, UINT64_MAX));
  return Act();
}

absl::StatusOr<Act> Compiler::Repeat(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_ASSIGN_OR_RETURN(round_.rounds, Number(words[1], 1, kRoundsMax));
  return Act();
}

absl::StatusOr<Act> Compiler::Page(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(
      Fits(words.size() == 3 && (words[2] == "records" || words[2] == "bytes")));
  if (!sites_.empty()) return Wrong("pages are chosen before the first computer");
  if (words[2] == "records") {
    CHAPTER_ASSIGN_OR_RETURN(round_.limits.page_records_max, Number(words[1], 1, 1000));
  } else {
    CHAPTER_ASSIGN_OR_RETURN(round_.limits.page_bytes_max, Number(words[1], 512, 1 << 20));
  }
  return Act();
}

bool OlderSchema(const Words& words, size_t from) {
  return words.size() == from + 2 && words[from] == "schema" && words[from + 1] == "older";
}

absl::StatusOr<Act> Compiler::Hub(const Words& words) {
  const bool older = OlderSchema(words, 2);
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2 || older));
  CHAPTER_RETURN_IF_ERROR(Declare(words[1], true));
  return Act([name = words[1], older](Stage& stage) {
    stage.federation.AddHub(name, older);
    Begin(stage, name);
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Node(const Words& words) {
  const bool older = OlderSchema(words, 6);
  CHAPTER_RETURN_IF_ERROR(
      Fits((words.size() == 6 || older) && words[2] == "chapter" && words[4] == "hub"));
  CHAPTER_RETURN_IF_ERROR(Kind(words[5], true));
  CHAPTER_RETURN_IF_ERROR(Declare(words[1], false));
  return Act([words, older](Stage& stage) {
    stage.federation.AddNode(words[1], words[3], stage.At(words[5]), older);
    Begin(stage, words[1]);
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Link(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3));
  for (const size_t i : {1, 2}) CHAPTER_RETURN_IF_ERROR(Kind(words[i], true));
  return Act([words](Stage& stage) {
    stage.federation.LinkHubs(stage.At(words[1]), stage.At(words[2]));
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::LineOf(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3 && (words[2] == "down" || words[2] == "up")));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  return Act([words](Stage& stage) {
    stage.federation.Isolate(stage.At(words[1]), words[2] == "down");
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Divide(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  CHAPTER_RETURN_IF_ERROR(Kind(words[2], true));
  return Act([words](Stage& stage) {
    stage.federation.Divide(stage.At(words[1]), stage.At(words[2]), words[0] == "divide");
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Switch(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3));
  CHAPTER_RETURN_IF_ERROR(Kind(words[1], false));
  CHAPTER_RETURN_IF_ERROR(Kind(words[2], true));
  return Act([words](Stage& stage) {
    stage.federation.SwitchHub(stage.At(words[1]), stage.At(words[2]));
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Run(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_ASSIGN_OR_RETURN(const uint64_t ms, Duration(words[1]));
  if (ms > kRunMsMax) return Wrong(absl::StrCat("'", words[1], "' is too long; at most 8d"));
  return Act([ms](Stage& stage) {
    stage.federation.RunFor(ms);
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Rest(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 1));
  return Act([](Stage& stage) {
    if (stage.federation.Rest(kTicksMax) || stage.federation.failed()) return absl::OkStatus();
    return Unmet(absl::StrCat("it does not come to rest within ", kTicksMax, " s"));
  });
}

absl::StatusOr<Act> Compiler::Crash(const Words& words) {
  const bool losing = words.size() == 4 && words[2] == "losing" && words[3] == "unsynced";
  const bool after = words.size() == 5 && words[2] == "after" && words[4] == "operations";
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2 || losing || after));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  uint64_t operations = 0;
  if (after) {
    CHAPTER_ASSIGN_OR_RETURN(operations, Number(words[3], 0, 10'000));
  }
  return Act([name = words[1], losing, after, operations](Stage& stage) {
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, name));
    if (after) {
      stage.federation.CrashAfter(stage.At(name), operations);
    } else {
      stage.federation.Crash(stage.At(name), kDownMs, losing);
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Backup(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  if (!backups_.insert(words[1]).second) {
    return Wrong(absl::StrCat(words[1], " has a backup already; a plan takes one of a computer"));
  }
  return Act([name = words[1]](Stage& stage) {
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, name));
    stage.federation.TakeBackup(stage.At(name));
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::GoBack(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  if (!backups_.contains(words[1])) {
    return Wrong(absl::StrCat(words[1], " has no backup; 'backup ", words[1], "' takes one"));
  }
  const Aware aware = words[0] == "restore" ? Aware::kYes : Aware::kNo;
  return Act([name = words[1], aware](Stage& stage) {
    stage.federation.GoBack(stage.At(name), aware);
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Copy(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 4 && words[2] == "as"));
  CHAPTER_RETURN_IF_ERROR(Kind(words[1], false));
  CHAPTER_RETURN_IF_ERROR(Declare(words[3], false));
  const Aware aware = words[0] == "copy" ? Aware::kYes : Aware::kNo;
  return Act([words, aware](Stage& stage) {
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, words[1]));
    const storage::Replica& original = *stage.federation.replica(stage.At(words[1]));
    const Beginning beginning{original.replica_id().value, original.epoch().value};
    if (!stage.federation.Copy(stage.At(words[1]), aware, words[3])) {
      return Unmet(absl::StrCat("the disk of ", words[1], " cannot be read"));
    }
    stage.beginnings[words[3]] = beginning;
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Clock(const Words& words) {
  const bool drift = words.size() == 4 && words[2] == "drift";
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3 || drift));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  int64_t amount = 0;
  if (drift) {
    absl::string_view number = words[3];
    constexpr int64_t kDriftMax = 100'000;
    if (!absl::ConsumeSuffix(&number, "ppm") || !absl::SimpleAtoi(number, &amount) ||
        amount < -kDriftMax || amount > kDriftMax) {
      return Wrong(absl::StrCat(
          "'", words[3], "' is no drift, such as 50000ppm or -200ppm (at most ", kDriftMax, ")"));
    }
  } else {
    CHAPTER_RETURN_IF_ERROR(Fits(words[2][0] == '+' || words[2][0] == '-'));
    CHAPTER_ASSIGN_OR_RETURN(const uint64_t ms, Duration(words[2].substr(1)));
    amount = static_cast<int64_t>(ms) * (words[2][0] == '-' ? -1 : 1);
  }
  return Act([words, drift, amount](Stage& stage) {
    const size_t site = stage.At(words[1]);
    if (drift) {
      stage.federation.DriftClock(site, amount);
    } else {
      stage.federation.JumpClock(site, amount);
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Cut(const Words& words) {
  const bool after = words.size() == 5 && words[2] == "after" && words[4] == "messages";
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2 || after));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  uint64_t messages = 0;
  if (after) {
    CHAPTER_ASSIGN_OR_RETURN(messages, Number(words[3], 0, 10'000));
  }
  return Act([words, messages](Stage& stage) {
    return WithLine(stage, words[1], [&](Line& line) {
      if (messages == 0) {
        line.Cut();
      } else {
        line.CutAfter(messages);
      }
    });
  });
}

absl::StatusOr<Act> Compiler::BreakLine(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  return Act([words](Stage& stage) {
    return WithLine(stage, words[1], [&](Line& line) {
      if (words[0] == "redial") return line.HangUpUnheard(kFoundMs);
      if (words[0] != "deaf") line.LoseFrom(kInitiator, kFoundMs);
      if (words[0] != "mute") line.LoseFrom(kAcceptor, kFoundMs);
    });
  });
}

absl::StatusOr<Act> Compiler::Slow(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  CHAPTER_ASSIGN_OR_RETURN(const uint64_t ms, Duration(words[2]));
  return Act([words, ms](Stage& stage) {
    return WithLine(stage, words[1], [&](Line& line) {
      if (words[0] == "slow") return line.SlowReader(kInitiator, ms);
      line.Clog(kInitiator, ms);
      line.Clog(kAcceptor, ms);
    });
  });
}

absl::StatusOr<Act> Compiler::FullDisk(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3 && (words[2] == "on" || words[2] == "off")));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  return Act([words](Stage& stage) {
    const bool on = words[2] == "on";
    stage.federation.FailNextWrites(
        stage.At(words[1]), on ? kManyWrites : 0,
        on ? absl::ResourceExhaustedError("the disk is full") : absl::OkStatus());
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::FailDisk(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  return Act([words](Stage& stage) {
    const size_t site = stage.At(words[1]);
    if (words[0] == "fail-sync") {
      stage.federation.FailNextSyncs(site, 1, absl::DataLossError("the disk failed in a sync"));
    } else if (words[0] == "tear-write") {
      stage.federation.FailNextWrites(site, 1, absl::DataLossError("the disk failed in a write"));
    } else {
      stage.federation.FailNextWrites(site, 1, absl::ResourceExhaustedError("the disk is full"));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::TellDropped(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 5 && words[2] == "dropped"));
  CHAPTER_RETURN_IF_ERROR(Kind(words[1], true));
  CHAPTER_RETURN_IF_ERROR(Kind(words[3], false));
  CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[4]));
  return Act([words, record](Stage& stage) {
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, words[1]));
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, words[3]));
    if (stage.federation.failed()) return absl::OkStatus();
    if (stage.federation.TellDropped(stage.At(words[1]), stage.At(words[3]), record)) {
      return absl::OkStatus();
    }
    return Unmet(absl::StrCat("the disk of ", words[1], " cannot be written"));
  });
}

absl::StatusOr<Act> Compiler::Revoke(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Kind(words[1], false));
  return Act([name = words[1]](Stage& stage) {
    stage.federation.Revoke(stage.At(name));
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Certificate(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Kind(words[1], false));
  return Act([name = words[1], ends = words[0] == "expire"](Stage& stage) {
    if (ends) {
      stage.federation.EndCertificate(stage.At(name));
    } else {
      stage.federation.JoinAgain(stage.At(name));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Decide(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Kind(words[1], true));
  return Act([name = words[1], approve = words[0] == "approve"](Stage& stage) {
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, name));
    if (stage.federation.failed()) return absl::OkStatus();
    if (stage.federation.Decide(stage.At(name), approve)) return absl::OkStatus();
    return Unmet(absl::StrCat("nothing waits at ", name, " for headquarters' word"));
  });
}

absl::StatusOr<Act> Compiler::Schema(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 3 && (words[2] == "older" || words[2] == "newer")));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  return Act([words](Stage& stage) {
    stage.federation.SetSchema(stage.At(words[1]), words[2] == "older");
    return absl::OkStatus();
  });
}

absl::StatusOr<Act> Compiler::Nonsense(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  return Act([name = words[1], hub = sites_.at(words[1])](Stage& stage) {
    if (hub) {
      stage.federation.NonsenseToHub(stage.At(name));
    } else {
      stage.federation.NonsenseToNode(stage.At(name));
    }
    return absl::OkStatus();
  });
}

// --- What people do. ---

absl::StatusOr<Act> Compiler::At(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() >= 3));
  CHAPTER_RETURN_IF_ERROR(Site(words[1]));
  site_ = words[1];
  cannot_ = words[2] == "cannot";
  const Words deed(words.begin() + (cannot_ ? 3 : 2), words.end());
  CHAPTER_RETURN_IF_ERROR(Fits(!deed.empty()));
  return CompileOne(Deeds(), deed);
}

Act Compiler::Do(std::function<bool(Federation&, size_t)> deed) {
  return [deed = std::move(deed), site = site_, cannot = cannot_](Stage& stage) {
    CHAPTER_RETURN_IF_ERROR(WaitUp(stage, site));
    if (stage.federation.failed()) return absl::OkStatus();
    const bool taken = deed(stage.federation, stage.At(site));
    if (taken != cannot) return absl::OkStatus();
    return Unmet(absl::StrCat(site, taken ? " took it" : " did not take it, or had it already"));
  };
}

absl::StatusOr<Act> Compiler::Put(const Words& words) {
  std::vector<Edit> edits;
  for (size_t i = 1; i < words.size(); ++i) {
    if (i == 1 || words[i - 1] == "and") {
      CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[i]));
      edits.push_back({record, {}});
    } else if (words[i] != "and") {
      CHAPTER_ASSIGN_OR_RETURN(const PlanCell cell, CellOf(edits.back().record, words[i]));
      edits.back().cells.push_back({cell.path.field, cell.path.map_key, cell.value, false});
      ++(*written_)[KeyOfWrite(edits.back().record, edits.back().cells.back())];
    }
  }
  CHAPTER_RETURN_IF_ERROR(Fits(!edits.empty()));
  for (const Edit& edit : edits) CHAPTER_RETURN_IF_ERROR(Fits(!edit.cells.empty()));
  return Do([written = written_, edits](Federation& federation, size_t site) mutable {
    for (Edit& edit : edits) {
      for (Federation::CellText& cell : edit.cells)
        cell.unique = cell.text && (*written)[KeyOfWrite(edit.record, cell)] == 1;
    }
    return federation.Put(site, edits);
  });
}

absl::StatusOr<Act> Compiler::DoRecord(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 2));
  CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[1]));
  return Do([verb = words[0], record](Federation& federation, size_t site) {
    if (verb == "delete") return federation.Delete(site, record);
    if (verb == "restore") return federation.Restore(site, record);
    return federation.Erase(site, record);
  });
}

absl::StatusOr<Act> Compiler::Settle(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() >= 4));
  CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[1]));
  CellPath path;
  PlainValue lost;
  size_t at = 3;
  if (words[2] == "deletion" || words[2] == "restoration") {
    lost = words[2] == "deletion" ? "deleted" : "restored";
  } else {
    CHAPTER_ASSIGN_OR_RETURN(path, Path(record, words[2]));
    CHAPTER_ASSIGN_OR_RETURN(
        const PlanCell cell,
        CellOf(record, absl::StrCat(words[2], "=", words[3] == "cleared" ? "" : words[3])));
    lost = cell.value;
    at = 4;
  }
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() > at));
  Choice choice = Choice::kKeep;
  PlainValue third;
  if (words[at] == "value") {
    CHAPTER_RETURN_IF_ERROR(Fits(at == 4 && words.size() == 6));
    choice = Choice::kValue;
    CHAPTER_ASSIGN_OR_RETURN(const PlanCell cell,
                             CellOf(record, absl::StrCat(words[2], "=", words[5])));
    third = cell.value;
    ++(*written_)[KeyOfWrite(record, {path.field, path.map_key, third, true})];
  } else {
    CHAPTER_RETURN_IF_ERROR(
        Fits(words.size() == at + 1 && (words[at] == "keep" || words[at] == "take")));
    if (words[at] == "take") choice = Choice::kTake;
  }
  return Do([record, path, lost, choice, third](Federation& federation, size_t site) {
    const auto stored = federation.replica(site)->Read(KeyOf(record));
    if (!stored.ok()) return false;
    for (const storage::ConflictEntry& entry : stored->record.conflicts) {
      if (entry.path != path || PlainValueOf(path, entry.lost_value) != lost) continue;
      return federation.SettleConflict(site, record, path, entry.lost_value, choice, third);
    }
    return false;
  });
}

absl::StatusOr<Act> Compiler::DoRefused(const Words& words) {
  CHAPTER_RETURN_IF_ERROR(Fits(words.size() == 1));
  return Do([verb = words[0]](Federation& federation, size_t site) {
    if (verb == "scrub") return federation.Scrub(site);
    return verb == "retry-refused" ? federation.RetryRefused(site) : federation.DropRefused(site);
  });
}

// --- Expectations. ---

absl::Status Compiler::CompileExpectation(const std::string& line, Step step) {
  static constexpr char kForms[] =
      "'everywhere: RECORD ...', 'at COMPUTER: RECORD ...', 'conflicts: RECORD ...', 'refused at "
      "COMPUTER: ...', 'nowhere: TEXT', 'new id: COMPUTER', 'same id: COMPUTER', 'new epoch: "
      "COMPUTER', 'same epoch: COMPUTER', 'false alarms: NUMBER', 'losses allowed: NUMBER WHY'";
  const std::pair<std::string, std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
  CHAPTER_ASSIGN_OR_RETURN(const Words head, Split(parts.first));
  CHAPTER_ASSIGN_OR_RETURN(const Words words, Split(parts.second));
  const std::string what = Joined(head);
  if (words.empty() || head.empty()) {
    return Wrong(absl::StrCat("'", line, "' is no expectation; there are ", kForms));
  }
  if (what == "everywhere") return ExpectRecord(std::nullopt, words, std::move(step));
  if (head[0] == "at" && head.size() == 2) {
    CHAPTER_RETURN_IF_ERROR(Site(head[1]));
    return ExpectRecord(head[1], words, std::move(step));
  }
  if (what == "conflicts") return ExpectConflict(words, step);
  if (head[0] == "refused" && head.size() == 3 && head[1] == "at") {
    CHAPTER_RETURN_IF_ERROR(Kind(head[2], false));
    return ExpectRefused(head[2], words, step);
  }
  if (what == "nowhere") return ExpectNowhere(words, std::move(step));
  if (what == "new id" || what == "same id") return ExpectIdentity(false, words, std::move(step));
  if (what == "new epoch" || what == "same epoch") {
    return ExpectIdentity(true, words, std::move(step));
  }
  if (what == "false alarms") {
    if (alarms_step_ || words.size() != 1) return Wrong("one number of false alarms is expected");
    CHAPTER_ASSIGN_OR_RETURN(alarms_, Number(words[0] == "none" ? "0" : words[0], 0, 1000));
    alarms_step_ = std::move(step);
    return absl::OkStatus();
  }
  if (what == "losses allowed") {
    if (!losses_step_) losses_step_ = std::move(step);
    if (words.size() == 1 && words[0] == "none") return absl::OkStatus();
    CHAPTER_ASSIGN_OR_RETURN(const uint64_t number, Number(words[0], 1, 1000));
    losses_[absl::StrJoin(words.begin() + 1, words.end(), " ")] = number;
    return absl::OkStatus();
  }
  return Wrong(absl::StrCat("'", what, "' is no expectation; there are ", kForms));
}

const PlainRecord* FindIn(const void* context, const std::string& name) {
  const auto* records = static_cast<const PlainRecords*>(context);
  const auto it = records->find(name);
  return it == records->end() ? nullptr : &it->second;
}

// Hubs, and nodes that hold the record or should.
std::vector<size_t> Holders(Federation& federation, const std::string& record) {
  std::vector<size_t> out;
  std::optional<std::set<std::string>> scopes;
  for (size_t site = 0; site < federation.sites(); ++site) {
    if (federation.revoked(site)) continue;
    if (federation.hub(site)) {
      if (out.empty()) {
        const PlainRecords records = federation.ReadAll(site);
        const PlainRecord* held = FindIn(&records, record);
        if (held != nullptr) scopes = PlainScopes(record, *held, FindIn, &records);
      }
      out.push_back(site);
      continue;
    }
    const bool should = scopes && (scopes->contains("global") ||
                                   scopes->contains("chapter/" + federation.chapter(site)));
    if (should || federation.Read(site, record)) out.push_back(site);
  }
  return out;
}

absl::Status Compiler::ExpectRecord(const std::optional<std::string>& site, const Words& words,
                                    Step step) {
  static const auto* const states =
      new std::set<std::string>{"live", "deleted", "erased", "absent"};
  CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[0]));
  std::optional<std::string> state;
  std::vector<PlanCell> cells;
  for (size_t i = 1; i < words.size(); ++i) {
    if (states->contains(words[i])) {
      state = words[i];
    } else {
      CHAPTER_ASSIGN_OR_RETURN(PlanCell cell, CellOf(record, words[i]));
      cells.push_back(std::move(cell));
    }
  }
  if (!state && cells.empty()) {
    return Wrong(absl::StrCat("of ", record,
                              " nothing is expected: live, deleted, erased, absent "
                              "or FIELD=VALUE"));
  }
  step.act = [site, record, state, cells](Stage& stage) {
    Federation& federation = stage.federation;
    const auto sites = site ? std::vector<size_t>{stage.At(*site)} : Holders(federation, record);
    for (const size_t at : sites) {
      const PlainRecords records = federation.ReadAll(at);
      const PlainRecord* held = FindIn(&records, record);
      const auto found = held == nullptr ? std::nullopt : std::optional<PlainRecord>(*held);
      bool met = !state || StateText(found) == *state;
      for (const PlanCell& cell : cells) {
        met &= found && !found->erased && found->Value(PathText(cell.path)) == cell.value;
      }
      if (!met) {
        return Unmet(absl::StrCat(federation.name(at), " has ", RecordText(record, found)));
      }
    }
    return absl::OkStatus();
  };
  round_.expectations.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Compiler::AddTo(List& list, const Step& step, std::optional<std::string> line) {
  if (list.none || (!line && !list.lines.empty())) return Wrong("'none', and yet others");
  if (list.step.line == 0) list.step = step;
  list.none = !line;
  if (line) list.lines.push_back(*std::move(line));
  return absl::OkStatus();
}

absl::Status Compiler::ExpectConflict(const Words& words, const Step& step) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[0]));
  if (words.size() < 2)
    return Wrong("of the conflicts nothing is expected: none, or FIELD lost ...");
  const bool none = words.size() == 2 && words[1] == "none";
  return AddTo(conflicts_[record], step,
               none ? std::nullopt : std::optional(Joined(Words(words.begin() + 1, words.end()))));
}

absl::Status Compiler::ExpectRefused(const std::string& site, const Words& words,
                                     const Step& step) {
  if (words.size() == 1 && words[0] == "none") return AddTo(refused_[site], step, std::nullopt);
  CHAPTER_ASSIGN_OR_RETURN(const std::string record, RecordName(words[0]));
  std::set<std::string> cells;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "deletion" || words[i] == "restoration") {
      cells.insert(words[i]);
      continue;
    }
    CHAPTER_ASSIGN_OR_RETURN(const PlanCell cell, CellOf(record, words[i]));
    cells.insert(CellText(record, cell.path, cell.value));
  }
  return AddTo(refused_[site], step, absl::StrCat(record, " ", absl::StrJoin(cells, " ")));
}

absl::Status Compiler::ExpectNowhere(const Words& words, Step step) {
  if (words.size() != 1 || words[0].size() < 5) {
    return Wrong("one text of at least five letters is to be nowhere");
  }
  step.act = [text = words[0]](Stage& stage) {
    for (size_t site = 0; site < stage.federation.sites(); ++site) {
      if (stage.federation.revoked(site) || !stage.federation.DiskHolds(site, text)) continue;
      return Unmet(absl::StrCat("it is on the disk of ", stage.federation.name(site)));
    }
    return absl::OkStatus();
  };
  round_.expectations.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Compiler::ExpectIdentity(bool epoch, const Words& words, Step step) {
  if (words.size() != 1) return Wrong("one computer is named");
  CHAPTER_RETURN_IF_ERROR(Site(words[0]));
  const bool fresh = absl::StartsWith(step.text, "new");
  step.act = [epoch, name = words[0], fresh](Stage& stage) {
    const storage::Replica* replica = stage.federation.replica(stage.At(name));
    if (replica == nullptr) return Unmet(name + " does not run");
    const Beginning& beginning = stage.beginnings.at(name);
    const uint64_t then = epoch ? beginning.epoch : beginning.replica;
    const uint64_t now = epoch ? replica->epoch().value : replica->replica_id().value;
    if ((then != now) == fresh) return absl::OkStatus();
    return Unmet(
        absl::StrCat(name, " was ", storage::ToHex(then), " and is ", storage::ToHex(now)));
  };
  round_.expectations.push_back(std::move(step));
  return absl::OkStatus();
}

std::vector<std::string> ConflictLines(Federation& federation, const std::string& record) {
  std::vector<std::string> lines;
  for (size_t site = 0; site < federation.sites(); ++site) {
    if (!federation.hub(site) || !federation.up(site)) continue;
    const auto stored = federation.replica(site)->Read(KeyOf(record));
    if (!stored.ok()) break;
    for (const storage::ConflictEntry& entry : stored->record.conflicts) {
      lines.push_back(EntryText(record, entry));
    }
    break;
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::vector<std::string> RefusedLines(Federation& federation, size_t site) {
  std::vector<std::string> lines;
  const auto refused = federation.replica(site)->ListRefused(0, 1000);
  if (!refused.ok()) return {std::string(refused.status().message())};
  for (const storage::RefusedWrite& write : *refused) lines.push_back(RefusedText(write));
  std::sort(lines.begin(), lines.end());
  return lines;
}

absl::Status SameLines(const std::vector<std::string>& expected,
                       const std::vector<std::string>& found, const std::string& where) {
  if (expected == found) return absl::OkStatus();
  return Unmet(absl::StrCat("all that was expected ", where, ": ", LinesText(expected),
                            "; there is: ", LinesText(found)));
}

// What is told by several lines together, and what holds although nothing is said.
absl::Status Compiler::Complete() {
  for (auto& [record, list] : conflicts_) {
    std::sort(list.lines.begin(), list.lines.end());
    Step step = list.step;
    step.act = [record = record, lines = list.lines](Stage& stage) {
      return SameLines(lines, ConflictLines(stage.federation, record), "of " + record);
    };
    round_.expectations.push_back(std::move(step));
  }
  for (auto& [site, list] : refused_) {
    std::sort(list.lines.begin(), list.lines.end());
    Step step = list.step;
    step.act = [site = site, lines = list.lines](Stage& stage) {
      return SameLines(lines, RefusedLines(stage.federation, stage.At(site)), "at " + site);
    };
    round_.expectations.push_back(std::move(step));
  }
  Step alarms = alarms_step_.value_or(Step{.line = 0, .text = "false alarms: none", .act = {}});
  alarms.act = [expected = alarms_](Stage& stage) {
    uint64_t found = 0;
    for (const auto& [reason, count] : stage.federation.ledger().alarms_allowed()) found += count;
    return found == expected ? absl::OkStatus() : Unmet(absl::StrCat("there are ", found));
  };
  round_.expectations.push_back(std::move(alarms));
  Step losses = losses_step_.value_or(Step{.line = 0, .text = "losses allowed: none", .act = {}});
  losses.act = [expected = losses_](Stage& stage) {
    const auto& found = stage.federation.ledger().losses_allowed();
    if (found == expected) return absl::OkStatus();
    std::vector<std::string> lines;
    for (const auto& [why, number] : found) lines.push_back(absl::StrCat(number, " ", why));
    return Unmet(absl::StrCat("there are: ", LinesText(lines)));
  };
  round_.expectations.push_back(std::move(losses));
  return absl::OkStatus();
}

std::string Place(const std::string& file, const Step& step) {
  return step.line == 0 ? absl::StrCat(file, ": '", step.text, "' (unless said otherwise)")
                        : absl::StrCat(file, ":", step.line, ": '", step.text, "'");
}

Report RunRound(const std::string& file, const Round& round,
                const std::function<void(const std::string&)>& sink) {
  Federation federation(round.options, round.limits);
  federation.set_event_sink(sink);
  Stage stage{federation, {}};
  std::string failure;
  for (const Step& step : round.steps) {
    federation.Log(absl::StrCat("* ", step.text));
    const absl::Status status = step.act(stage);
    if (status.ok() && !federation.failed()) continue;
    failure = absl::StrCat(Place(file, step), ": ", status.message());
    break;
  }
  if (failure.empty()) {
    federation.Settle(kTicksMax);
    if (federation.failed()) failure = absl::StrCat(file, ": at rest: ");
  }
  for (const Step& expectation : round.expectations) {
    if (!failure.empty()) break;
    const absl::Status status = expectation.act(stage);
    if (!status.ok()) {
      failure = absl::StrCat(Place(file, expectation), " does not hold: ", status.message());
    }
  }
  Report report = federation.Finish();
  if (failure.empty()) return report;
  report.ok = false;
  report.failure = failure + report.failure;
  return report;
}

}  // namespace

absl::StatusOr<Plan> Plan::Parse(const std::string& file, const std::string& text) {
  Plan plan;
  plan.file_ = file;
  plan.text_ = text;
  const std::string first = text.substr(0, text.find('\n'));
  plan.title_ = std::string(absl::StripAsciiWhitespace(absl::StripPrefix(first, "#")));
  if (!absl::StartsWith(first, "# ") || plan.title_.empty()) {
    return Wrong(
        absl::StrCat(file, ":1: '", first, "' is no title; it is the first comment, # ..."));
  }
  CHAPTER_ASSIGN_OR_RETURN(const Round round, Compiler(file, text, 1).Compile());
  plan.rounds_ = round.rounds;
  return plan;
}

Report Plan::Run(const std::function<void(const std::string&)>& sink) const {
  Report report;
  for (uint64_t n = 1; n <= rounds_; ++n) {
    Compiler compiler(file_, text_, n);
    const absl::StatusOr<Round> round = compiler.Compile();
    if (!round.ok()) {
      report.ok = false;
      report.failure = std::string(round.status().message());
      return report;
    }
    if (sink && rounds_ > 1) sink(absl::StrCat("round ", n, " of ", rounds_));
    report = RunRound(file_, *round, sink);
    if (report.ok) continue;
    if (rounds_ > 1) absl::StrAppend(&report.failure, " (with $n = ", n, ")");
    return report;
  }
  return report;
}

}  // namespace chaptersync::simulation
