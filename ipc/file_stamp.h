// Whether a file is still what it was when it was read, for one system call.
#ifndef ZCBROKER_IPC_FILE_STAMP_H_
#define ZCBROKER_IPC_FILE_STAMP_H_

#include <cstdint>
#include <string>

#include "absl/types/optional.h"

namespace zcbroker::ipc {

// Equal for one file with one content, seen from one mount namespace: a mount
// has another number in every namespace it is copied to. A file that is
// replaced by a rename has another inode; one that is written to in place
// within the clock's tick (4 ms) and keeps its size looks unchanged.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t changed_nanos = 0;
  std::uint64_t size = 0;
  std::uint64_t mount = 0;

  friend bool operator==(const FileStamp& a, const FileStamp& b) {
    return a.device == b.device && a.inode == b.inode &&
           a.changed_nanos == b.changed_nanos && a.size == b.size &&
           a.mount == b.mount;
  }
  friend bool operator!=(const FileStamp& a, const FileStamp& b) {
    return !(a == b);
  }
};

// Nothing where there is no such file, a symbolic link, or where the system
// does not tell all of that (Linux before 5.8).
absl::optional<FileStamp> StampOf(const std::string& path);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_FILE_STAMP_H_
