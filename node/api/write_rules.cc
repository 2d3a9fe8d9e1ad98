// SPDX-License-Identifier: Apache-2.0
//
// The checks of a local write. The hub checks rights again: what is refused
// here would only come back as a refused write.
#include "node/api/write_rules.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "node/entity/cells.h"
#include "node/entity/ids.h"
#include "node/entity/text.h"
#include "node/entity/validate.h"
#include "storage/core/status.h"
#include "storage/replica/rights.h"

namespace chaptersync::node {
namespace {

using storage::CellWrite;

std::vector<CellWrite> News(const std::vector<CellWrite>& cells, const storage::Record* held) {
  std::vector<CellWrite> news;
  for (const CellWrite& write : cells) {
    const storage::Cell* cell = held == nullptr ? nullptr : held->Find(write.path);
    if ((cell == nullptr ? std::nullopt : cell->value) != write.value) news.push_back(write);
  }
  return news;
}

std::string HeadquartersOnly(const ApiContext& api, const std::string& what) {
  return absl::StrCat(what, " can be written at headquarters only; this is the replica of chapter ",
                      api.replica.options().chapter);
}

// Whether a chapter writes this field, or, for an empty path, deletes and restores.
absl::Status CheckField(const ApiContext& api, const EntityType& type,
                        const storage::CellPath& path) {
  if (type.rule.headquarters_only) {
    return absl::PermissionDeniedError(HeadquartersOnly(api, type.plural));
  }
  if (type.rule.headquarters_fields.count(path.field) > 0) {
    return absl::PermissionDeniedError(HeadquartersOnly(
        api, absl::StrCat("field '", Shown(PathText(type, path)), "' of ", type.plural)));
  }
  return absl::OkStatus();
}

// Of what is for everybody its hosts write. `record` is what is held, or what would be made.
absl::Status CheckHost(const ApiContext& api, const EntityType& type,
                       const storage::Record& record) {
  const storage::ReplicaOptions& options = api.replica.options();
  if (options.hub) return absl::OkStatus();
  std::map<storage::RecordKey, storage::Record> leaders;
  absl::Status status;
  const auto find = [&](const storage::RecordKey& key) -> const storage::Record* {
    auto stored = api.replica.Read(key);
    if (!stored.ok()) {
      if (!absl::IsNotFound(stored.status())) status.Update(stored.status());
      return nullptr;
    }
    return &(leaders[key] = std::move(stored->record));
  };
  const bool host = storage::IsHost(options.entities, {type.number, {}}, record,
                                    storage::Scope::Chapter(options.chapter), find);
  CHAPTER_RETURN_IF_ERROR(status);
  if (host) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      type.plural,
      " for everybody can be written by their hosts and at headquarters only; chapter ",
      options.chapter, " is no host of this one"));
}

// A record with these cells alone.
storage::Record Made(const std::vector<CellWrite>& cells) {
  storage::Record record;
  for (const CellWrite& write : cells) {
    record.Put(
        {.path = write.path, .version = {}, .actor = {}, .value = write.value, .learned = {}});
  }
  return record;
}

// The field that names a record says what its id is.
absl::Status CheckNameField(const EntityType& type, const storage::RecordKey& key,
                            const std::vector<CellWrite>& cells) {
  if (type.name_field == nullptr) return absl::OkStatus();
  for (const CellWrite& write : cells) {
    if (write.path.field != static_cast<uint32_t>(type.name_field->number())) continue;
    const auto name = storage::StringOf(write.value);
    if (name && NamedId(type, std::string(*name)) == key.id) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "field '", type.name_field->name(), "': value '",
        name ? Shown(std::string(*name)) : std::string(), "' is not allowed in record ",
        key.id.ToString(), " (the field names the record and does not change)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSettler(const ApiContext& api, const EntityType& type,
                          const storage::CellPath& path, const storage::Record& held) {
  if (api.replica.options().hub) return absl::OkStatus();
  CHAPTER_RETURN_IF_ERROR(CheckField(api, type, path));
  return CheckHost(api, type, held);
}

absl::Status CheckWrite(const ApiContext& api, const EntityType& type,
                        const storage::RecordKey& key, const std::vector<CellWrite>& cells,
                        const storage::Record* held) {
  const std::vector<CellWrite> news = News(cells, held);
  if (!api.replica.options().hub && !news.empty()) {
    for (const CellWrite& write : news) {
      CHAPTER_RETURN_IF_ERROR(CheckField(api, type, write.path));
    }
    CHAPTER_RETURN_IF_ERROR(CheckHost(api, type, held == nullptr ? Made(cells) : *held));
  }
  CHAPTER_RETURN_IF_ERROR(ValidateCells(type, news));
  return CheckNameField(type, key, news);
}

absl::Status CheckExistenceWriter(const ApiContext& api, const EntityType& type, bool deletes,
                                  const storage::Record* held) {
  if (api.replica.options().hub) return absl::OkStatus();
  if (held != nullptr && held->live() != deletes) return absl::OkStatus();
  CHAPTER_RETURN_IF_ERROR(CheckField(api, type, storage::CellPath::Existence()));
  return held == nullptr ? absl::OkStatus() : CheckHost(api, type, *held);
}

}  // namespace chaptersync::node
