#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/platform/small_file.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

absl::StatusOr<std::string> ReadSmallFd(int fd, const std::string& name,
                                        std::size_t max_bytes) {
  std::string content;
  std::array<char, 4096> chunk;
  for (;;) {
    const ssize_t n = read(fd, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", name));
    if (n == 0) return content;
    content.append(chunk.data(), static_cast<std::size_t>(n));
    if (content.size() > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(name, " is longer than ", max_bytes, " bytes"));
    }
  }
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          std::size_t max_bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  return ReadSmallFd(fd.get(), path, max_bytes);
}

}  // namespace zcbroker::ipc
