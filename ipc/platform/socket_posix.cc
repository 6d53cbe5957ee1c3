#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/platform/socket_address.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

absl::Status ConnectError(int error, const std::string& path) {
  const std::string context = absl::StrCat("connect ", path);
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(absl::StrCat(context, ": no such socket"));
    case ECONNREFUSED:
      return absl::UnavailableError(
          absl::StrCat(context, ": nobody listens there"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(context, ": permission denied"));
    case EAGAIN:
      return absl::DeadlineExceededError(
          absl::StrCat(context, ": its queue of connections stayed full"));
    case ENOTDIR:
    case ELOOP:
    case ENOTSOCK:
    case EPROTOTYPE:
      return absl::FailedPreconditionError(
          absl::StrCat(context, ": not a listening stream socket"));
    default:
      return absl::ErrnoToStatus(error, context);
  }
}

absl::Status SetNonblocking(int fd, bool nonblocking) {
  const int flags = fcntl(fd, F_GETFL);
  const int wanted = nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (flags < 0 || fcntl(fd, F_SETFL, wanted) != 0) {
    return absl::ErrnoToStatus(errno, "fcntl");
  }
  return absl::OkStatus();
}

// While the backlog is full, connect(2) on a blocking socket waits its turn,
// for SO_SNDTIMEO at most; poll(2) cannot wait for that.
absl::Status SetConnectTimeout(int fd, absl::Duration remaining) {
  timeval timeout = {};
  if (remaining < absl::Hours(24 * 365)) {
    timeout = absl::ToTimeval(std::max(remaining, absl::Microseconds(1)));
  }
  if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0) {
    return absl::ErrnoToStatus(errno, "set SO_SNDTIMEO");
  }
  return absl::OkStatus();
}

// Until `events` or the deadline; whichever it was, the caller looks again.
absl::Status Wait(int fd, int events, Deadline deadline) {
  pollfd entry = {};
  entry.fd = fd;
  entry.events = static_cast<decltype(entry.events)>(events);
  if (poll(&entry, 1, deadline.PollTimeoutMillis()) < 0 && errno != EINTR) {
    return absl::ErrnoToStatus(errno, "poll");
  }
  return absl::OkStatus();
}

bool PeerIsGone(int error) { return error == EPIPE || error == ECONNRESET; }

absl::StatusOr<std::size_t> Receive(int fd, char* buffer, std::size_t size,
                                    int flags, Deadline deadline) {
  for (;;) {
    const bool last_look = deadline.Expired();
    const ssize_t n = recv(fd, buffer, size, flags | MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR) continue;
    if (PeerIsGone(errno)) {
      return absl::AbortedError("read: the peer reset the connection");
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return absl::ErrnoToStatus(errno, "read");
    }
    if (last_look) {
      return absl::DeadlineExceededError("read: nothing came in time");
    }
    ZCB_RETURN_IF_ERROR(Wait(fd, POLLIN, deadline));
  }
}

}  // namespace

absl::StatusOr<UniqueFd> Connect(const Endpoint& endpoint, Deadline deadline) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "socket");
  const sockaddr_un address = SocketAddress(endpoint);
  bool blocking = false;
  for (;;) {
    const bool last_look = deadline.Expired();
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) == 0) {
      break;
    }
    const int error = errno;
    if (error == EINTR && !last_look) continue;
    if (error != EAGAIN || last_look) {
      return ConnectError(error, endpoint.path());
    }
    ZCB_RETURN_IF_ERROR(SetConnectTimeout(fd.get(), deadline.Remaining()));
    ZCB_RETURN_IF_ERROR(SetNonblocking(fd.get(), false));
    blocking = true;
  }
  if (blocking) {
    ZCB_RETURN_IF_ERROR(SetConnectTimeout(fd.get(), absl::InfiniteDuration()));
    ZCB_RETURN_IF_ERROR(SetNonblocking(fd.get(), true));
  }
  return fd;
}

absl::StatusOr<std::size_t> WriteSome(const UniqueFd& fd,
                                      absl::string_view bytes,
                                      Deadline deadline) {
  for (;;) {
    const bool last_look = deadline.Expired();
    const ssize_t n =
        send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR) continue;
    if (PeerIsGone(errno)) {
      return absl::AbortedError("write: the peer closed the connection");
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return absl::ErrnoToStatus(errno, "write");
    }
    if (last_look) {
      return absl::DeadlineExceededError("write: the peer does not read");
    }
    ZCB_RETURN_IF_ERROR(Wait(fd.get(), POLLOUT, deadline));
  }
}

absl::Status WriteAll(const UniqueFd& fd, absl::string_view bytes,
                      Deadline deadline) {
  while (!bytes.empty()) {
    const bool last_look = deadline.Expired();
    ZCB_ASSIGN_OR_RETURN(const std::size_t n, WriteSome(fd, bytes, deadline));
    bytes.remove_prefix(n);
    if (last_look && !bytes.empty()) {
      return absl::DeadlineExceededError(
          "write: the peer did not take all of it in time");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::size_t> ReadSome(const UniqueFd& fd, char* buffer,
                                     std::size_t size, Deadline deadline) {
  return Receive(fd.get(), buffer, size, 0, deadline);
}

absl::StatusOr<std::size_t> Peek(const UniqueFd& fd, char* buffer,
                                 std::size_t size, Deadline deadline) {
  return Receive(fd.get(), buffer, size, MSG_PEEK, deadline);
}

}  // namespace zcbroker::ipc
