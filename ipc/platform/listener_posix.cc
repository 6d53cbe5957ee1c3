#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/deadline.h"
#include "ipc/listener.h"
#include "ipc/platform/socket_address.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

FileIdentity IdentityOf(const struct stat& info) {
  return FileIdentity{info.st_dev, info.st_ino};
}

absl::Status CheckNameIsFree(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0 || S_ISSOCK(info.st_mode)) {
    return absl::OkStatus();  // where the name cannot be, bind says so
  }
  if (S_ISLNK(info.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " is a symbolic link; remove it"));
  }
  return absl::AlreadyExistsError(
      absl::StrCat(path, " exists and is no socket; remove it"));
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "socket");
  // The name is made with the socket's own mode, less the umask.
  if (fchmod(fd.get(), 0600) != 0) return absl::ErrnoToStatus(errno, "chmod");
  return fd;
}

// A name in the directory of `path` that nothing has; bound.
absl::StatusOr<Endpoint> BindTemporary(int fd, const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  std::random_device random;
  for (int attempt = 0; attempt < 16; ++attempt) {
    ZCB_ASSIGN_OR_RETURN(
        Endpoint temporary,
        Endpoint::Parse(absl::StrCat(directory, ".zcb-",
                                     absl::Hex(random(), absl::kZeroPad8))));
    const sockaddr_un address = SocketAddress(temporary);
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address),
             sizeof(address)) == 0) {
      return temporary;
    }
    if (errno != EADDRINUSE) {
      return absl::ErrnoToStatus(errno, absl::StrCat("bind ", path));
    }
  }
  return absl::UnavailableError(
      absl::StrCat("bind ", path, ": no temporary name was free"));
}

std::string HiddenName(const std::string& path) {
  const std::size_t leaf = path.rfind('/') + 1;
  return absl::StrCat(path.substr(0, leaf), ".zcb-hidden-", path.substr(leaf));
}

absl::Status BadDescriptor(absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("the inherited descriptor ", why));
}

absl::StatusOr<int> IntOption(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof(value);
  if (getsockopt(fd, SOL_SOCKET, option, &value, &size) != 0) {
    return BadDescriptor("is no socket");
  }
  return value;
}

absl::StatusOr<Endpoint> BoundName(int fd) {
  sockaddr_un address = {};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::ErrnoToStatus(errno, "getsockname");
  }
  if (address.sun_family != AF_UNIX) return BadDescriptor("is no Unix socket");
  constexpr std::size_t kHeader = offsetof(sockaddr_un, sun_path);
  std::string path(address.sun_path, size > kHeader ? size - kHeader : 0);
  // The length counts the NUL for most callers of bind; an abstract name
  // begins with one.
  if (!path.empty() && path.back() == '\0') path.pop_back();
  absl::StatusOr<Endpoint> name = Endpoint::Parse(path);
  if (!name.ok()) return BadDescriptor("is not bound to an absolute path");
  return name;
}

}  // namespace

absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  }
  return IdentityOf(info);
}

absl::StatusOr<Listener> Listener::Bind(const Endpoint& endpoint) {
  const std::string& path = endpoint.path();
  ZCB_RETURN_IF_ERROR(CheckNameIsFree(path));
  ZCB_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  ZCB_ASSIGN_OR_RETURN(const Endpoint temporary, BindTemporary(fd.get(), path));
  absl::StatusOr<FileIdentity> identity = IdentifyFile(temporary.path());
  absl::Status status = identity.status();
  if (status.ok() && listen(fd.get(), SOMAXCONN) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("listen ", path));
  }
  if (status.ok() && rename(temporary.path().c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("rename ", path));
  }
  if (!status.ok()) {
    unlink(temporary.path().c_str());
    return status;
  }
  // Of one that died while its name was hidden.
  unlink(HiddenName(path).c_str());
  return Listener(endpoint, *identity, std::move(fd));
}

absl::StatusOr<Listener> Listener::Adopt(UniqueFd fd) {
  ZCB_ASSIGN_OR_RETURN(const int type, IntOption(fd.get(), SO_TYPE));
  if (type != SOCK_STREAM) return BadDescriptor("is no stream socket");
  ZCB_ASSIGN_OR_RETURN(const int listening, IntOption(fd.get(), SO_ACCEPTCONN));
  if (listening == 0) return BadDescriptor("does not listen");
  ZCB_ASSIGN_OR_RETURN(Endpoint endpoint, BoundName(fd.get()));
  const int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "fcntl");
  }
  absl::optional<FileIdentity> identity;
  absl::StatusOr<FileIdentity> found = IdentifyFile(endpoint.path());
  if (found.ok()) identity = *found;
  return Listener(std::move(endpoint), identity, std::move(fd));
}

absl::StatusOr<Listener> Listener::Resume(const Endpoint& endpoint,
                                          UniqueFd fd) {
  ZCB_ASSIGN_OR_RETURN(Listener listener, Adopt(std::move(fd)));
  const std::string hidden = HiddenName(endpoint.path());
  if (absl::IsNotFound(IdentifyFile(endpoint.path()).status())) {
    // It may have been hidden when its process died.
    rename(hidden.c_str(), endpoint.path().c_str());
  }
  ZCB_ASSIGN_OR_RETURN(const FileIdentity identity,
                       IdentifyFile(endpoint.path()));
  absl::StatusOr<UniqueFd> connection =
      Connect(endpoint, Deadline::After(absl::ZeroDuration()));
  // A full backlog is somebody's who serves; nobody but us held it.
  if (!absl::IsDeadlineExceeded(connection.status())) {
    sockaddr_un peer = {};
    socklen_t size = sizeof(peer);
    if (!connection.ok() ||
        getpeername(connection->get(), reinterpret_cast<sockaddr*>(&peer),
                    &size) != 0 ||
        listener.endpoint_.path() != peer.sun_path) {
      return absl::AbortedError(
          absl::StrCat(endpoint.path(), " leads to another socket by now"));
    }
  }
  listener.endpoint_ = endpoint;
  listener.identity_ = identity;
  return listener;
}

bool Listener::HasItsName() const {
  const absl::StatusOr<FileIdentity> found = IdentifyFile(endpoint_.path());
  return found.ok() && identity_.has_value() && *found == *identity_;
}

absl::Status Listener::Hide() const {
  const std::string& path = endpoint_.path();
  if (!HasItsName()) {
    return absl::AbortedError(
        absl::StrCat(path, " leads to another socket by now"));
  }
  if (rename(path.c_str(), HiddenName(path).c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("rename ", path));
  }
  return absl::OkStatus();
}

absl::Status Listener::Show() const {
  const std::string& path = endpoint_.path();
  const std::string hidden = HiddenName(path);
  // Never over somebody who came meanwhile.
  if (link(hidden.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(hidden.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("link ", path));
  }
  unlink(hidden.c_str());
  return absl::OkStatus();
}

absl::StatusOr<absl::optional<UniqueFd>> Listener::Accept() const {
  for (;;) {
    UniqueFd connection(
        accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection) return absl::optional<UniqueFd>(std::move(connection));
    switch (errno) {
      case EINTR:
      case ECONNABORTED:
        continue;
      case EAGAIN:
        return absl::optional<UniqueFd>();
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        return absl::ResourceExhaustedError(absl::StrCat(
            "accept on ", endpoint_.path(), ": out of descriptors or memory"));
      default:
        return absl::ErrnoToStatus(
            errno, absl::StrCat("accept on ", endpoint_.path()));
    }
  }
}

absl::Status Listener::UnlinkIfOurs() const {
  const std::string& path = endpoint_.path();
  const absl::StatusOr<FileIdentity> found = IdentifyFile(path);
  if (absl::IsNotFound(found.status())) return absl::OkStatus();
  ZCB_RETURN_IF_ERROR(found.status());
  if (!identity_.has_value() || *found != *identity_) return absl::OkStatus();
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return absl::ErrnoToStatus(errno, absl::StrCat("unlink ", path));
  }
  return absl::OkStatus();
}

}  // namespace zcbroker::ipc
