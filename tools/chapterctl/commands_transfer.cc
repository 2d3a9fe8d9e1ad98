// SPDX-License-Identifier: Apache-2.0
//
// import and export of a noun's records: files in, files out, in a form that
// goes both ways. Exported CSV has one column for each field that some record
// holds, so the records are read twice.
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "node/entity/text.h"
#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/flatten.h"
#include "tools/chapterctl/importer.h"
#include "tools/chapterctl/json.h"
#include "tools/chapterctl/rows.h"

namespace chaptersync::ctl {
namespace {

using node::EntityType;
using Records = v1::RecordsService::Stub;

constexpr int kPageSize = 500;

struct ImportOptions {
  std::string file;
  std::string format;  // empty: by the file's name
  std::vector<std::string> map;
  bool dry_run = false;
};

absl::StatusOr<ColumnMap> ReadMap(const std::vector<std::string>& words) {
  ColumnMap map;
  for (const std::string& word : words) {
    // A column's name may hold "=", a field's hardly.
    const size_t at = word.rfind('=');
    if (at == std::string::npos || at == 0) {
      return UsageError(absl::StrCat("--map '", node::Shown(word), "' is not COLUMN=FIELD"));
    }
    if (!map.emplace(word.substr(0, at), word.substr(at + 1)).second) {
      return UsageError(absl::StrCat("--map gives column '", node::Shown(word.substr(0, at)),
                                     "' twice (once is allowed)"));
    }
  }
  return map;
}

absl::StatusOr<std::string> FormatOf(const ImportOptions& options) {
  if (!options.format.empty()) return options.format;
  const std::string name = absl::AsciiStrToLower(options.file);
  for (const char* ending : {".json", ".jsonl", ".ndjson"}) {
    if (absl::EndsWith(name, ending)) return std::string("json");
  }
  if (absl::EndsWith(name, ".csv")) return std::string("csv");
  return UsageError(absl::StrCat("cannot tell the format of '", node::Shown(options.file),
                                 "' by its name: give --format csv or json"));
}

absl::Status Import(Context& context, const EntityType& type, const ImportOptions& options) {
  CHAPTER_ASSIGN_OR_RETURN(const ColumnMap map, ReadMap(options.map));
  CHAPTER_ASSIGN_OR_RETURN(const std::string format, FormatOf(options));
  std::ifstream file;
  std::istream* in = &context.output.terminal().in;
  if (options.file != "-") {
    std::error_code error;
    const bool folder = std::filesystem::is_directory(options.file, error);
    if (!folder) file.open(options.file, std::ios::binary);
    if (folder || !file) {
      return WithExit(absl::NotFoundError(absl::StrCat(
                          "cannot read '", node::Shown(options.file),
                          "': ", folder ? "it is a folder" : "no such file, or no right")),
                      Exit::kFailed);
    }
    in = &file;
  }
  const std::string name =
      options.file == "-" ? "standard input" : absl::StrCat("'", node::Shown(options.file), "'");
  std::unique_ptr<RowSource> rows;
  if (format == "csv") {
    try {
      CHAPTER_ASSIGN_OR_RETURN(rows, OpenCsvRows(type, *in, map));
    } catch (const std::ios_base::failure& failure) {
      return CannotRead(name, failure);
    }
  } else {
    rows = OpenJsonRows(type, *in, map);
  }
  return Importer(context.client, context.output, type.plural, name, options.dry_run).Run(*rows);
}

// Calls `record` with every record, in the order of ids.
absl::Status ForEachRecord(Context& context, const EntityType& type, const std::string& progress,
                           const std::function<absl::Status(const v1::Record&)>& record) {
  v1::ListRecordsRequest request;
  request.set_noun(type.plural);
  request.set_page_size(kPageSize);
  uint64_t count = 0;
  const absl::Status status =
      context.client.Pages<Records, v1::ListRecordsRequest, v1::ListRecordsResponse>(
          context.client.records(), &Records::ListRecords, std::move(request),
          [&](v1::ListRecordsResponse& page) -> absl::StatusOr<bool> {
            for (const v1::Record& one : page.records()) {
              CHAPTER_RETURN_IF_ERROR(record(one));
              ++count;
            }
            // What goes to a terminal shows how far it is by itself.
            if (!context.output.terminal().out_terminal) {
              context.output.Progress(absl::StrCat(progress, " ", count, " ", type.plural, " ..."));
            }
            return true;
          });
  context.output.Progress("");
  return status;
}

absl::Status ExportJson(Context& context, const EntityType& type) {
  return ForEachRecord(context, type, "exported", [&](const v1::Record& record) -> absl::Status {
    CHAPTER_ASSIGN_OR_RETURN(const Json json, RecordJson(record));
    context.output.Object(json);
    return absl::OkStatus();
  });
}

// The columns of all records: scalar fields always, whatever else as it is found.
absl::StatusOr<std::vector<std::string>> FindColumns(Context& context, const EntityType& type) {
  // By number of the field, then by path.
  std::map<int, std::set<std::string>> found;
  size_t count = 0;
  for (int i = 0; i < type.descriptor->field_count(); ++i) {
    const auto* field = type.descriptor->field(i);
    if (field->is_repeated() ||
        field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    found[field->number()].insert(field->name());
    ++count;
  }
  CHAPTER_RETURN_IF_ERROR(
      ForEachRecord(context, type, "looked at", [&](const v1::Record& record) -> absl::Status {
        CHAPTER_ASSIGN_OR_RETURN(const auto message, EntityOf(type, record));
        for (const FlatValue& value : Flatten(type, *message)) {
          const std::string name = value.path.substr(0, value.path.find('.'));
          const auto* field = type.descriptor->FindFieldByName(name);
          if (field != nullptr && found[field->number()].insert(value.path).second) ++count;
        }
        if (count <= kCsvColumnsMax) return absl::OkStatus();
        return absl::FailedPreconditionError(
            absl::StrCat("the ", type.plural, " have more than ", kCsvColumnsMax,
                         " different fields and keys: export them with --format json"));
      }));
  std::vector<std::string> columns = {kIdColumn};
  for (const auto& [number, paths] : found) {
    columns.insert(columns.end(), paths.begin(), paths.end());
  }
  return columns;
}

absl::Status ExportCsv(Context& context, const EntityType& type) {
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<std::string> columns, FindColumns(context, type));
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < columns.size(); ++i) places[columns[i]] = i;
  context.output.Raw(CsvRow(columns));
  return ForEachRecord(context, type, "exported", [&](const v1::Record& record) -> absl::Status {
    CHAPTER_ASSIGN_OR_RETURN(const auto message, EntityOf(type, record));
    std::vector<std::string> cells(columns.size());
    cells[0] = record.id();
    for (FlatValue& value : Flatten(type, *message)) {
      const auto place = places.find(value.path);
      if (place == places.end()) {
        return absl::AbortedError(absl::StrCat("field '", node::Shown(value.path), "' of ",
                                               record.name(),
                                               " was written meanwhile: export again"));
      }
      cells[place->second] = std::move(value.value);
    }
    context.output.Raw(CsvRow(cells));
    return absl::OkStatus();
  });
}

}  // namespace

void AddTransferCommands(CLI::App& noun, const EntityType& type, Action& action) {
  const auto options = std::make_shared<ImportOptions>();
  const auto format = std::make_shared<std::string>();
  const EntityType* const t = &type;

  CLI::App* import = noun.add_subcommand("import", "writes the rows of a file");
  import->add_option("FILE", options->file, "CSV or one JSON object a line; - is standard input")
      ->required();
  import->add_flag("--dry-run", options->dry_run, "only say what would come of it");
  import->add_option("--map", options->map, "COLUMN=FIELD: what a column stands for")
      ->allow_extra_args(false);
  import->add_option("--format", options->format, "csv or json; unset: by the file's name")
      ->check(CLI::IsMember({"csv", "json"}));
  import->callback(
      [=, &action] { action = [=](Context& context) { return Import(context, *t, *options);
};
}  // namespace chaptersync::ctl
);

CLI::App* out = noun.add_subcommand("export", "prints all records in a form that import takes");
out->add_option("--format", *format, "csv or json; unset: as --output says, else csv")
    ->check(CLI::IsMember({"csv", "json"}));
out->callback([=, &action] {
  action = [=](Context& context) {
    const bool json = format->empty() ? context.output.json() : *format == "json";
    return json ? ExportJson(context, *t) : ExportCsv(context, *t);
  };
});
}

}  // namespace chaptersync::ctl
