#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ipc/listener.h"
#include "ipc/service_manager.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {
namespace {

constexpr int kFirstInheritedFd = 3;

std::string TakeVariable(const char* name) {
  const char* value = getenv(name);
  std::string taken = value != nullptr ? value : "";
  unsetenv(name);
  return taken;
}

}  // namespace

absl::StatusOr<absl::optional<Listener>> InheritedListener() {
  int pid = 0;
  int count = 0;
  // All three go, whatever they say.
  const std::string listen_pid = TakeVariable("LISTEN_PID");
  const std::string listen_fds = TakeVariable("LISTEN_FDS");
  TakeVariable("LISTEN_FDNAMES");
  if (!absl::SimpleAtoi(listen_pid, &pid) ||
      !absl::SimpleAtoi(listen_fds, &count) || pid != getpid() || count == 0) {
    return absl::nullopt;
  }
  if (count != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("LISTEN_FDS is ", count, "; one socket is served"));
  }
  absl::StatusOr<Listener> listener =
      Listener::Adopt(UniqueFd(kFirstInheritedFd));
  if (!listener.ok()) return listener.status();
  return absl::optional<Listener>(*std::move(listener));
}

void NotifyServiceManager(absl::string_view state) {
  const char* path = getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (path == nullptr || (path[0] != '/' && path[0] != '@') ||
      strlen(path) >= sizeof(address.sun_path)) {
    return;
  }
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path, strlen(path));
  // '@' spells the abstract name space.
  if (path[0] == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return;
  // Nobody to tell is no error of ours.
  static_cast<void>(sendto(
      fd.get(), state.data(), state.size(), MSG_NOSIGNAL,
      reinterpret_cast<const sockaddr*>(&address),
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(path))));
}

}  // namespace zcbroker::ipc
