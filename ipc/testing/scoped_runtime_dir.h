// A runtime directory of a test's own: short enough for socket paths, mode
// 0700, removed with all it holds when the object ends.
#ifndef ZCBROKER_IPC_TESTING_SCOPED_RUNTIME_DIR_H_
#define ZCBROKER_IPC_TESTING_SCOPED_RUNTIME_DIR_H_

#include <string>

#include "absl/strings/string_view.h"
#include "ipc/runtime_dir.h"

namespace zcbroker::ipc {

class ScopedRuntimeDir {
 public:
  // Aborts where /tmp cannot be written.
  ScopedRuntimeDir();
  ~ScopedRuntimeDir();
  ScopedRuntimeDir(const ScopedRuntimeDir&) = delete;
  ScopedRuntimeDir& operator=(const ScopedRuntimeDir&) = delete;

  // "/tmp/zcb.XXXXXX": what XDG_RUNTIME_DIR would be.
  const std::string& path() const { return path_; }
  // `<path>/<leaf>`.
  std::string Entry(absl::string_view leaf) const;
  // Inputs that lead to this directory only; the other roots are inside it and
  // do not exist.
  RuntimeDirInputs inputs() const;

 private:
  std::string path_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_TESTING_SCOPED_RUNTIME_DIR_H_
