#include <unistd.h>

#include <cerrno>

#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

void UniqueFd::reset(int fd) {
  const int old = std::exchange(fd_, fd);
  if (old < 0) return;
  const int saved_errno = errno;
  // Not repeated on EINTR: on Linux the descriptor is gone either way.
  close(old);
  errno = saved_errno;
}

}  // namespace zcbroker::ipc
