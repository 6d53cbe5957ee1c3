#include "service/keeper/last_will.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/process.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket_link.h"
#include "proto/zcbroker/v1/journal.pb.h"
#include "proto/zcbroker/v1/launcher.pb.h"
#include "service/host/journal.h"

namespace zcbroker::service {
namespace {

constexpr int kLowestNumber = 10;
constexpr int kLooksAfterDeath = 50;
constexpr int kPauseMillis = 10;

// Never over somebody who serves there by now; but a process that is killed
// closes its descriptors one after the other, the listening ones maybe last.
// There is nobody to tell of anything else.
void LeadTo(const ipc::Endpoint& endpoint, const ipc::Endpoint& name,
            int looks) {
  for (int i = 0; i < looks; ++i) {
    if (i > 0) poll(nullptr, 0, kPauseMillis);
    const absl::Status linked = ipc::LinkSocket(endpoint, name);
    if (!absl::IsAlreadyExists(linked)) return;
  }
}

// The child: its end of the pipe becomes readable when nobody holds the other.
[[noreturn]] void AwaitTheEnd(int pipe) {
  prctl(PR_SET_NAME, "zcb-last-will");
  // What ends the keeper in order, or a whole terminal, is not for us.
  for (const int signal_number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
    signal(signal_number, SIG_IGN);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  char byte = 0;
  while (read(pipe, &byte, 1) < 0 && errno == EINTR) {
  }
  CarryOutLastWill(kLooksAfterDeath);
  _exit(0);
}

}  // namespace

absl::StatusOr<ipc::UniqueFd> LeaveLastWill() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  ipc::UniqueFd read_end(ends[0]);
  ipc::UniqueFd write_end(ends[1]);
  const pid_t child = fork();
  if (child < 0) return absl::ErrnoToStatus(errno, "fork");
  if (child == 0) {
    write_end.reset();
    AwaitTheEnd(read_end.get());
  }
  // Out of the way of the numbers that a child's descriptors are given.
  ipc::UniqueFd high(fcntl(write_end.get(), F_DUPFD_CLOEXEC, kLowestNumber));
  if (!high) return absl::ErrnoToStatus(errno, "duplicate");
  return high;
}

void CarryOutLastWill(int looks) {
  const absl::StatusOr<ipc::RuntimeDir> runtime =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
  if (!runtime.ok()) return;
  for (const auto& [id, entry] : ReadJournals(runtime->Entry("backends"))) {
    // It is on its way out: whoever the name led to it would lose it at once,
    // and nobody takes the link away.
    if (entry.asked_to_end()) continue;
    const v1::RouteInfo& backend = entry.backend();
    const absl::StatusOr<ipc::Endpoint> endpoint =
        ipc::Endpoint::Parse(backend.endpoint());
    if (!endpoint.ok() ||
        !ipc::IsAlive({static_cast<int>(backend.pid()), backend.start_time(),
                       backend.boot_id()})) {
      continue;
    }
    for (const std::string& path : entry.public_names()) {
      const absl::StatusOr<ipc::Endpoint> name = ipc::Endpoint::Parse(path);
      if (name.ok()) LeadTo(*endpoint, *name, looks);
    }
  }
}

}  // namespace zcbroker::service
