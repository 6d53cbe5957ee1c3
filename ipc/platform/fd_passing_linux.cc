#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/fd_passing.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

absl::Status SendError(int error) {
  switch (error) {
    case EAGAIN:
    // Too many descriptors are under way; the peer's reading makes room.
    case ETOOMANYREFS:
      return absl::UnavailableError("send: no room now");
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
      return absl::AbortedError("send: the peer is gone");
    case ENOBUFS:
    case ENOMEM:
      return absl::ResourceExhaustedError("send: out of memory");
    default:
      return absl::ErrnoToStatus(error, "send");
  }
}

int SocketOption(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

}  // namespace

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> PacketSocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                 ends) != 0) {
    return absl::ErrnoToStatus(errno, "socketpair");
  }
  return std::make_pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

absl::StatusOr<UniqueFd> AdoptPacketSocket(int fd) {
  sockaddr_un peer;
  socklen_t size = sizeof(peer);
  if (SocketOption(fd, SO_DOMAIN) != AF_UNIX ||
      SocketOption(fd, SO_TYPE) != SOCK_SEQPACKET ||
      getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor ", fd, " is no connected packet socket"));
  }
  UniqueFd taken(fd);
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "fcntl");
  }
  return taken;
}

absl::Status SendPacket(const UniqueFd& fd, absl::string_view bytes,
                        int attached) {
  // An empty packet cannot be told from the peer's end.
  if (bytes.empty() || bytes.size() > kMaxPacketBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a packet of ", bytes.size(), " bytes"));
  }
  iovec part = {const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (attached >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &attached, sizeof(int));
  }
  for (;;) {
    if (sendmsg(fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
      return absl::OkStatus();
    }
    if (errno != EINTR) return SendError(errno);
  }
}

absl::StatusOr<absl::optional<Packet>> ReceivePacket(const UniqueFd& fd) {
  std::array<char, kMaxPacketBytes> bytes;
  // Room for a second one, so that too many are seen and closed.
  alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control;
  iovec part = {bytes.data(), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n;
  do {
    n = recvmsg(fd.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return absl::optional<Packet>();
  }
  if (n < 0 && errno != ECONNRESET) return absl::ErrnoToStatus(errno, "read");
  if (n <= 0) return absl::AbortedError("read: the peer is gone");
  Packet packet;
  int count = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t size = header->cmsg_len - CMSG_LEN(0);
    for (std::size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
      int received;
      std::memcpy(&received, CMSG_DATA(header) + at, sizeof(int));
      packet.attached.reset(received);
      ++count;
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || count > 1) {
    return absl::DataLossError("read: a packet that does not fit");
  }
  packet.bytes.assign(bytes.data(), static_cast<std::size_t>(n));
  return absl::optional<Packet>(std::move(packet));
}

absl::Status AwaitPacket(const UniqueFd& fd, Deadline deadline) {
  for (;;) {
    const bool last_look = deadline.Expired();
    pollfd entry = {fd.get(), POLLIN, 0};
    const int ready = poll(&entry, 1, deadline.PollTimeoutMillis());
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "poll");
    if (last_look) return absl::DeadlineExceededError("no packet came in time");
  }
}

absl::StatusOr<UniqueFd> Duplicate(int fd) {
  UniqueFd duplicate(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (duplicate) return duplicate;
  if (errno == EMFILE) {
    return absl::ResourceExhaustedError("duplicate a descriptor: none is left");
  }
  return absl::ErrnoToStatus(errno, "duplicate a descriptor");
}

}  // namespace zcbroker::ipc
