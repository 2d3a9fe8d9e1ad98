// SPDX-License-Identifier: Apache-2.0
//
// Text forms of ids: records as UUIDs, nodes and replicas in hexadecimal.
// Values in, values out; any thread.
#include "storage/core/types.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace chaptersync::storage {
namespace {

std::string BytesToHex(const std::array<uint8_t, 16>& bytes) {
  return absl::BytesToHexString(
      std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace

std::string RecordId::ToString() const {
  const std::string hex = BytesToHex(bytes);
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

absl::StatusOr<RecordId> RecordId::Parse(std::string_view text) {
  std::string hex;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash != (text[i] == '-') || (!dash && !absl::ascii_isxdigit(text[i]))) break;
    if (!dash) hex.push_back(text[i]);
  }
  if (text.size() != 36 || hex.size() != 32) {
    return absl::InvalidArgumentError(
        absl::StrCat("record id '", absl::CHexEscape(std::string(text.substr(0, 64))),
                     "' is not a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"));
  }
  const std::string raw = absl::HexStringToBytes(hex);
  RecordId id;
  for (size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<uint8_t>(raw[i]);
  return id;
}

std::string NodeId::ToString() const { return BytesToHex(bytes); }

std::string ToHex(uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

}  // namespace chaptersync::storage
