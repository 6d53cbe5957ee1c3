// One broker per user. Whoever holds an `InstanceLock` is the only process that
// may bind, replace or unlink that user's broker socket.
// Source: docs/protocol.md, "Single instance".
#ifndef ZCBROKER_IPC_INSTANCE_LOCK_H_
#define ZCBROKER_IPC_INSTANCE_LOCK_H_

#include <utility>

#include "absl/status/statusor.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

inline constexpr char kInstanceLockLeaf[] = "broker.lock";

// Move-only. flock(2) on `broker.lock` in the runtime directory, and valid
// only while that name still is the file that was locked. The file stays
// behind, for the next one to lock.
class InstanceLock {
 public:
  // Claims `dir` without waiting; the claim ends
  // with the object or the process, even on a crash.
  // Errors: kAlreadyExists (held; the message names the pid),
  // kFailedPrecondition (the name is a symbolic link), others by errno.
  [[nodiscard]] static absl::StatusOr<InstanceLock> TryAcquire(
      const RuntimeDir& dir);

  // Who claimed `dir` last, by its pid, which may have ended since. kNotFound
  // where nobody has; others by errno.
  static absl::StatusOr<int> LastHolder(const RuntimeDir& dir);

  // False once somebody removed or replaced the lock file: another process may
  // hold the place then.
  bool StillHeld() const;

 private:
  InstanceLock(UniqueFd dir, UniqueFd file)
      : dir_(std::move(dir)), file_(std::move(file)) {}

  UniqueFd dir_;
  UniqueFd file_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_INSTANCE_LOCK_H_
