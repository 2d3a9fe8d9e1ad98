// SPDX-License-Identifier: Apache-2.0
//
// Applies a scope rule to a record's cells. A clause whose field is missing or is
// no text gives nothing. Pure; any thread.
#include "storage/core/scope_rule.h"

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {

std::optional<std::string_view> StringOf(const std::optional<std::string>& wire) {
  if (!wire) return std::nullopt;
  Reader reader(*wire);
  const uint64_t tag = reader.Varint();
  const std::string_view text = reader.String(wire->size());
  if (!reader.ok() || !reader.empty() || (tag & 7) != 2) return std::nullopt;
  return text;
}

OwnScopes Apply(const ScopeRule& rule, const Record& record) {
  OwnScopes out;
  const auto chapter = [&out](std::string_view handle, bool hq_is_hq) {
    if (handle.empty() || handle.size() + 8 > kScopeBytesMax) return;
    if (out.scopes.size() >= kScopesMax) return;
    out.scopes.insert(hq_is_hq && handle == "hq" ? Scope::Hq() : Scope::Chapter(handle));
  };
  for (const ScopeClause& clause : rule.clauses) {
    if (clause.when) {
      const Cell* cell = record.Find({.field = clause.when->field, .map_key = {}});
      if (cell == nullptr || cell->value != clause.when->value) continue;
    }
    const Cell* cell = record.Find({.field = clause.field, .map_key = {}});
    const std::optional<std::string_view> text =
        cell == nullptr ? std::nullopt : StringOf(cell->value);
    switch (clause.kind) {
      case ScopeClause::Kind::kGlobal:
        out.scopes.insert(Scope::Global());
        break;
      case ScopeClause::Kind::kHq:
        out.scopes.insert(Scope::Hq());
        break;
      case ScopeClause::Kind::kChapterField:
      case ScopeClause::Kind::kOwnerField:
        if (text) chapter(*text, clause.kind == ScopeClause::Kind::kOwnerField);
        break;
      case ScopeClause::Kind::kChapterKeys:
        for (const Cell& entry : record.cells) {
          if (entry.path.field == clause.field && entry.path.map_key && entry.value) {
            chapter(*entry.path.map_key, true);
          }
        }
        break;
      case ScopeClause::Kind::kFollows:
        if (text) {
          if (auto id = RecordId::Parse(*text); id.ok())
            out.leaders.push_back({clause.leader, *id});
        }
        break;
    }
  }
  if (out.scopes.empty() && out.leaders.empty()) out.scopes.insert(rule.otherwise);
  return out;
}

}  // namespace chaptersync::storage
