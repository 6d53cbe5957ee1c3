// Reading files of a few kilobytes: /proc, machine ids, pid files.
#ifndef ZCBROKER_IPC_PLATFORM_SMALL_FILE_H_
#define ZCBROKER_IPC_PLATFORM_SMALL_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace zcbroker::ipc {

// All of `path`. kNotFound, kPermissionDenied and so on by errno, with the
// path in front; kResourceExhausted where it is over `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          std::size_t max_bytes);

// All of an open file, from where it stands; `name` is for messages.
absl::StatusOr<std::string> ReadSmallFd(int fd, const std::string& name,
                                        std::size_t max_bytes);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_PLATFORM_SMALL_FILE_H_
