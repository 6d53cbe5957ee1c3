// Directories that only their owner may enter. Each is opened first and
// checked through the descriptor, so what was checked is what is used; a
// symbolic link in the last place is refused, never followed.
#ifndef ZCBROKER_IPC_PRIVATE_DIR_H_
#define ZCBROKER_IPC_PRIVATE_DIR_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

// Errors, each with the path and what to do about it:
// kNotFound (it is not there), kFailedPrecondition (no directory, a symbolic
// link, or its mode is not 0700), kPermissionDenied (it belongs to somebody
// else, or may not be opened).

// Opens `path`, which must belong to `owner` and have mode 0700.
absl::StatusOr<UniqueFd> OpenPrivateDir(const std::string& path,
                                        std::uint32_t owner);

// Opens any directory, whoever owns it, following links: where private ones
// are made. The descriptor is for OpenOrCreatePrivateDirAt.
absl::StatusOr<UniqueFd> OpenDirectory(const std::string& path);

// The same as OpenPrivateDir for the entry `leaf` of the open directory
// `parent_fd`, whose path `parent_path` is for messages.
absl::StatusOr<UniqueFd> OpenPrivateDirAt(int parent_fd,
                                          absl::string_view parent_path,
                                          absl::string_view leaf,
                                          std::uint32_t owner);

// The same, made with mode 0700 whatever the umask where it is not there.
// Safe against others doing so at the same time.
absl::StatusOr<UniqueFd> OpenOrCreatePrivateDirAt(int parent_fd,
                                                  absl::string_view parent_path,
                                                  absl::string_view leaf,
                                                  std::uint32_t owner);

// The directory `path` and all its missing parents, those made with mode 0700;
// what is there already is not looked at. Errors: by errno.
absl::Status MakeDirectories(const std::string& path);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_PRIVATE_DIR_H_
