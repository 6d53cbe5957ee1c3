#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/listener.h"
#include "ipc/socket_use.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {
namespace {

// As enum in the kernel's net/tcp_states.h; sockets of all families use it.
constexpr uint32_t kEstablished = 1;
constexpr uint32_t kListening = 10;
// Both RCV_SHUTDOWN and SEND_SHUTDOWN: the other end has closed.
constexpr uint8_t kHungUp = 3;
// The kernel answers at once; this is for one that does not answer at all.
constexpr int kPatienceSeconds = 2;

// The file a socket is bound to, as UNIX_DIAG tells it.
struct SocketFile {
  uint32_t inode = 0;
  uint32_t device = 0;
};

absl::Status Failure(absl::string_view what) {
  return absl::ErrnoToStatus(errno, what);
}

SocketFile InKernelsWords(const FileIdentity& file) {
  // The kernel's own way to write a device number.
  return SocketFile{static_cast<uint32_t>(file.inode),
                    major(file.device) << 20 | minor(file.device)};
}

// How many clients' connections a socket stands for: one where it is the other
// end of one, as many as wait where it listens, since those that are not
// accepted yet are not told one by one.
std::size_t Connections(const nlmsghdr& message,
                        const absl::optional<SocketFile>& file,
                        const std::string& path) {
  const auto* socket = static_cast<const unix_diag_msg*>(NLMSG_DATA(&message));
  std::size_t waiting = 0;
  bool there = false;
  bool hung_up = false;
  const auto* attribute = reinterpret_cast<const rtattr*>(socket + 1);
  auto left =
      static_cast<int>(message.nlmsg_len - NLMSG_LENGTH(sizeof(*socket)));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    const void* data = RTA_DATA(attribute);
    const size_t size = RTA_PAYLOAD(attribute);
    if (attribute->rta_type == UNIX_DIAG_VFS && file.has_value() &&
        size >= sizeof(unix_diag_vfs)) {
      unix_diag_vfs vfs;
      memcpy(&vfs, data, sizeof(vfs));
      there |=
          vfs.udiag_vfs_ino == file->inode && vfs.udiag_vfs_dev == file->device;
    } else if (attribute->rta_type == UNIX_DIAG_NAME) {
      const absl::string_view name(static_cast<const char*>(data), size);
      there |= name.substr(0, name.find('\0')) == path;
    } else if (attribute->rta_type == UNIX_DIAG_SHUTDOWN && size >= 1) {
      hung_up = *static_cast<const uint8_t*>(data) == kHungUp;
    } else if (attribute->rta_type == UNIX_DIAG_RQLEN &&
               size >= sizeof(unix_diag_rqlen)) {
      unix_diag_rqlen queue;
      memcpy(&queue, data, sizeof(queue));
      waiting = queue.udiag_rqueue;
    }
  }
  if (!there) return 0;
  if (socket->udiag_state == kListening) return waiting;
  return hung_up ? 0 : 1;
}

absl::Status AskForSockets(const UniqueFd& fd) {
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } ask = {};
  ask.header.nlmsg_len = sizeof(ask);
  ask.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  ask.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  ask.request.sdiag_family = AF_UNIX;
  ask.request.udiag_states = 1U << kEstablished | 1U << kListening;
  ask.request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_RQLEN;
  if (send(fd.get(), &ask, sizeof(ask), MSG_NOSIGNAL) < 0) {
    return Failure("ask for sockets");
  }
  return absl::OkStatus();
}

absl::Status CheckAccessTimes(const std::string& path) {
  struct statvfs mount;
  if (statvfs(path.c_str(), &mount) != 0) {
    return Failure(absl::StrCat("statvfs ", path));
  }
  if ((mount.f_flag & ST_NOATIME) != 0) {
    return absl::UnimplementedError(
        absl::StrCat(path, " is on a file system without access times"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::size_t> CountConnections(
    const Endpoint& endpoint, const absl::optional<FileIdentity>& known) {
  const UniqueFd fd(
      socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd) return Failure("open UNIX_DIAG");
  const timeval patience{kPatienceSeconds, 0};
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience,
                 sizeof(patience)) != 0) {
    return Failure("set a time limit for UNIX_DIAG");
  }
  absl::optional<SocketFile> file;
  if (known.has_value()) {
    file = InKernelsWords(*known);
  } else if (const auto found = IdentifyFile(endpoint.path()); found.ok()) {
    file = InKernelsWords(*found);
  }
  ZCB_RETURN_IF_ERROR(AskForSockets(fd));
  std::size_t count = 0;
  alignas(nlmsghdr) std::array<char, 32768> buffer;
  for (;;) {
    const ssize_t n = recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failure("read UNIX_DIAG");
    auto left = static_cast<uint32_t>(n);
    const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
    for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
      if (message->nlmsg_type == NLMSG_DONE) return count;
      if (message->nlmsg_type == NLMSG_ERROR) {
        const auto* error = static_cast<const nlmsgerr*>(NLMSG_DATA(message));
        return absl::ErrnoToStatus(-error->error, "UNIX_DIAG");
      }
      if (message->nlmsg_type == SOCK_DIAG_BY_FAMILY) {
        count += Connections(*message, file, endpoint.path());
      }
    }
  }
}

absl::Status ForgetConnections(const Endpoint& endpoint) {
  const std::string& path = endpoint.path();
  ZCB_RETURN_IF_ERROR(CheckAccessTimes(path));
  // Older than the last change, so that also a mount that updates access times
  // no more often than it must (relatime) notes the next connection.
  const std::array<timespec, 2> times{timespec{0, 0}, timespec{0, UTIME_OMIT}};
  if (utimensat(AT_FDCWD, path.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) !=
      0) {
    return Failure(absl::StrCat("set times of ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> WasConnectedTo(const Endpoint& endpoint) {
  const std::string& path = endpoint.path();
  ZCB_RETURN_IF_ERROR(CheckAccessTimes(path));
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    return Failure(absl::StrCat("stat ", path));
  }
  return status.st_atim.tv_sec != 0;
}

}  // namespace zcbroker::ipc
