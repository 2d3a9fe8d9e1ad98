// SPDX-License-Identifier: Apache-2.0
//
// The folder that a daemon serves: what it is (chaptersync.json), its key and
// certificates, the lock that keeps a second daemon out, and the marker by which a
// copy or a restored backup is found out. One thread at a time, but for ReadIdentity and
// WriteIdentity: any.
//
//   chaptersync.json  format, role, node, chapter, federation, hub
//   identity.pem      its private key, its certificate, the authority's
//   authority.pem     the certificate of whom it believes
//   authority.key     a hub's: with it certificates are made
//   joining.json      the node's id and key while it joins; gone once it has
//   lock              held by the daemon, with its process id
//   marker            never written again: its inode and birth tell a copy
//   db/               the engine's
//   endpoints.json    where the daemon listens, while it serves
//   socket            for the tools of this machine
#ifndef CHAPTERSYNC_NODE_DAEMON_FOLDER_H_
#define CHAPTERSYNC_NODE_DAEMON_FOLDER_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "node/trust/certificate.h"
#include "node/trust/identity.h"
#include "storage/core/types.h"

namespace chaptersync::node {

// The folder's format that this program reads and writes.
inline constexpr int kFolderFormat = 1;
// A Unix socket's path as it fits into every system's address, in bytes.
inline constexpr size_t kSocketPathMax = 100;

// What a folder holds, for life.
struct FolderFacts {
  bool hub = false;
  storage::NodeId node;
  std::string chapter;      // a node's
  std::string federation;   // its name, for people
  std::string hub_address;  // a node's: HOST:PORT
};

struct JoiningNode {
  storage::NodeId node;
  PrivateKey key;
};

class DataFolder {
 public:
  // Makes `path` ready to become a data folder and locks it: it is missing, empty,
  // or was left by a join that did not end. ALREADY_EXISTS where it is a data
  // folder, FAILED_PRECONDITION where it holds something else or is in use.
  static absl::StatusOr<DataFolder> Prepare(const std::string& path);
  // Locks an existing data folder. NOT_FOUND where there is none,
  // FAILED_PRECONDITION where it is of the other role, of a newer format, or in
  // use; the holder's process id is named.
  static absl::StatusOr<DataFolder> Open(const std::string& path, bool hub);

  DataFolder(DataFolder&& other) noexcept;
  DataFolder& operator=(DataFolder&& other) = delete;
  ~DataFolder();

  // As whom a node joins: the same in every try. After Prepare.
  absl::StatusOr<JoiningNode> Joining();
  // Writes what the folder is; from now on it is a data folder. After Prepare, once the identity
  // is written. Later: replaces what may change, a node's federation's name and hub's address.
  absl::Status Create(const FolderFacts& facts);

  const FolderFacts& facts() const { return facts_; }

  // Whom it believes. A hub's authority with its key.
  absl::Status WriteAuthority(const std::string& certificate_pem);
  absl::Status WriteAuthority(const Authority& authority);
  // A hub's. FAILED_PRECONDITION where a file is missing or damaged.
  absl::StatusOr<Authority> ReadAuthority() const;
  // Key and certificates, which change together.
  absl::Status WriteIdentity(const PrivateKey& key, const std::string& chain);
  // FAILED_PRECONDITION where a file is missing or damaged.
  absl::StatusOr<TlsIdentity> ReadIdentity() const;
  std::string identity_path() const { return path_ + "/identity.pem"; }
  std::string authority_path() const { return path_ + "/authority.pem"; }
  // Tells this folder on this machine from copies of it: the marker's inode, its
  // birth where the file system knows it, the machine's id.
  absl::StatusOr<std::string> Marker() const;
  std::string database_path() const { return path_ + "/db"; }
  // The database was made: that it is not there, or empty, is a loss.
  bool served() const;
  absl::Status SetServed() const;
  // Where the tools' socket goes: in the folder or, where that is too long a path,
  // in one of this user's own, which it makes. An old socket there is removed.
  absl::StatusOr<std::string> SocketPath() const;

  // Written and removed as a whole. Names of listeners -> addresses.
  absl::Status WriteEndpoints(const std::map<std::string, std::string>& endpoints) const;
  void RemoveEndpoints() const;

  const std::string& path() const { return path_; }  // absolute

 private:
  DataFolder(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}
  absl::Status Load(bool hub);

  std::string path_;
  int lock_fd_ = -1;
  FolderFacts facts_;
};

// Replaces the file at `path` durably: a crash leaves the old one or the new one.
// Only its owner may read it.
absl::Status WriteFileDurably(const std::string& path, const std::string& text);
// NOT_FOUND where there is none; FAILED_PRECONDITION where it is longer than
// `bytes_max` or cannot be read.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t bytes_max);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_FOLDER_H_
