// Where everything of zcbroker lives that dies with the boot: the directory
// `zcbroker/` in the first of
//   $XDG_RUNTIME_DIR, if absolute, ours and of mode 0700;
//   /run/user/<effective uid>, if ours and of mode 0700;
//   /tmp/zcbroker-<effective uid>, ours, 0700, no symbolic link; made if need
//   be.
// The same rule for the broker, every client and every stub.
// Source: docs/protocol.md, "Runtime directory".
#ifndef ZCBROKER_IPC_RUNTIME_DIR_H_
#define ZCBROKER_IPC_RUNTIME_DIR_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/environment.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

struct RuntimeDirInputs {
  absl::optional<std::string> xdg_runtime_dir;
  std::uint32_t euid = 0;
  // Absolute, without a slash at the end; tests put their own here.
  std::string run_user_root = "/run/user";
  std::string tmp_root = "/tmp";
};

// XDG_RUNTIME_DIR from `environment`, and this process's effective uid.
RuntimeDirInputs HostRuntimeDirInputs(const EnvironmentLookup& environment);

// Holds the directory open: what was checked stays what is used, even when its
// path is moved or replaced. Move-only.
class RuntimeDir {
 public:
  // For the broker: makes what is missing, with mode 0700.
  // For clients: makes nothing; kNotFound where no broker has ever run.
  // Errors of both: kFailedPrecondition and kPermissionDenied as in
  // private_dir.h, naming the directory and what to do; where no base
  // directory would do, the message says why for each.
  static absl::StatusOr<RuntimeDir> OpenOrCreate(
      const RuntimeDirInputs& inputs);
  static absl::StatusOr<RuntimeDir> Find(const RuntimeDirInputs& inputs);

  // Opens the same path again, and makes the directory where it was removed or
  // moved away; its base directory must be there. Errors as of OpenOrCreate,
  // kNotFound for the base.
  absl::StatusOr<RuntimeDir> Reopen() const;

  // `worlds/<world id>` in this one, with the routes for clients of another
  // world than the broker's (docs/protocol.md, "Worlds"; ZccacheWorldId).
  // FindWorld makes nothing: kNotFound where no broker has served that world.
  // Other errors as above.
  absl::StatusOr<RuntimeDir> FindWorld(absl::string_view world_id) const;
  absl::StatusOr<RuntimeDir> OpenOrCreateWorld(
      absl::string_view world_id) const;

  // "/run/user/1000/zcbroker".
  const std::string& path() const { return path_; }
  // "/run/user/1000".
  const std::string& base() const { return base_; }
  // The open directory, for openat(2); valid as long as this object.
  int fd() const { return fd_.get(); }

  // `<path>/broker.sock`, the broker's real socket. Not checked for length.
  std::string broker_socket() const { return Entry("broker.sock"); }
  // `<path>/<leaf>`.
  std::string Entry(absl::string_view leaf) const;

  // Better places that were passed over, each with its reason and what to do
  // about it; for the broker to report. Where /run/user has none for us, that
  // is no such place.
  const std::vector<std::string>& passed_over() const { return passed_over_; }

 private:
  RuntimeDir(std::uint32_t owner, std::string base, std::string path,
             UniqueFd fd, std::vector<std::string> passed_over)
      : owner_(owner),
        base_(std::move(base)),
        path_(std::move(path)),
        fd_(std::move(fd)),
        passed_over_(std::move(passed_over)) {}

  static absl::StatusOr<RuntimeDir> Open(const RuntimeDirInputs& inputs,
                                         bool create);

  std::uint32_t owner_;
  std::string base_;
  std::string path_;
  UniqueFd fd_;
  std::vector<std::string> passed_over_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_RUNTIME_DIR_H_
