// SPDX-License-Identifier: Apache-2.0
//
// A record's state as bytes, on disk and on the wire. Integers are unsigned
// LEB128 varints or 8 bytes little-endian ("fixed"); a string is its length as
// a varint, then its bytes.
//
//   update    := flags:varint replicas writes cells seen conflicts [base] [scopes]
//   replicas  := count { id:fixed }                       every replica named below
//   writes    := count { replica:index time:fixed actor:string [learned:varint] }
//   cells     := count { head:varint [key:string] write:index [value:string] }
//   seen,base := count { replica:index time:fixed }
//   conflicts := count { head:varint [key:string] version actor:string [value:string]
//                        version actor:string [value:string] found_at:fixed
//                        found_by:index count { version actor:string choice:varint } }
//   version   := replica:index time:fixed
//   scopes    := count { name:string }
//
// flags: 1 erased, 2 partial (base follows), 4 scopes follow, 8 learned follows,
// 16 held again from another hub.
// A cell's head is field * 4 + 2 (has a key) + 1 (has a value); a conflict's is
// field * 8 + 4 (has a key) + 2 (lost has a value) + 1 (current has a value).
// Counts, indexes and order are checked on reading; nothing may follow. Pure;
// any thread.
#ifndef CHAPTERSYNC_STORAGE_CORE_RECORD_CODEC_H_
#define CHAPTERSYNC_STORAGE_CORE_RECORD_CODEC_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "storage/core/merge.h"
#include "storage/core/record.h"

namespace chaptersync::storage {

inline constexpr size_t kKeyBytes = 20;  // entity as 4 bytes big-endian, id

void AppendVarint(uint64_t value, std::string& out);
void AppendFixed64(uint64_t value, std::string& out);      // little-endian
void AppendBigEndian64(uint64_t value, std::string& out);  // sorts as the number does
void AppendString(std::string_view value, std::string& out);
void AppendKey(const RecordKey& key, std::string& out);
void AppendPath(const CellPath& path, std::string& out);
std::string EncodeKey(const RecordKey& key);

// Reads from the front of a byte string. After a failed read ok() is false and
// every later read gives zero or empty.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  uint64_t Varint();
  uint64_t Fixed64();
  uint64_t BigEndian64();
  std::string_view String(size_t bytes_max);
  std::string_view Bytes(size_t count);
  RecordKey Key();
  CellPath Path();
  // A varint that counts things of at least `item_bytes` each: fails above `max`
  // and above what the rest can hold.
  size_t Count(size_t max, size_t item_bytes);

  bool ok() const { return ok_; }
  bool empty() const { return rest_.empty(); }
  size_t remaining() const { return rest_.size(); }
  void Fail() {
    ok_ = false;
    rest_ = {};
  }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// The canonical bytes of `update`.
std::string EncodeUpdate(const RecordUpdate& update);
// Whether an encoded update leaves cells out; true of what is no update.
bool IsPartial(std::string_view bytes);
// INVALID_ARGUMENT where `bytes` are no update: it says what is wrong.
absl::StatusOr<RecordUpdate> DecodeUpdate(std::string_view bytes);

// A record as this replica keeps it: whole, with where it learnt each version.
void AppendRecord(const Record& record, std::string& out);
// DATA_LOSS where `bytes` are no record.
absl::StatusOr<Record> DecodeRecord(std::string_view bytes);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_RECORD_CODEC_H_
