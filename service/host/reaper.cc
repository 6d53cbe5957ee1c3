#include "service/host/reaper.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace zcbroker::service {

std::string ExitStatus::ToString() const {
  if (!signalled) return absl::StrCat("exited with status ", value);
  return absl::StrCat(
      "was ended by signal ", value, " (",
      sigabbrev_np(value) != nullptr ? sigabbrev_np(value) : "unknown", ")");
}

Reaper::Reaper(asio::io_context& loop)
    : signals_(loop, {SIGCHLD}, [this](int) { Collect(); }) {
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

void Reaper::Watch(pid_t pid, std::function<void(ExitStatus)> done,
                   std::function<void()> before_reap) {
  watched_[pid] = Watched{std::move(done), std::move(before_reap)};
}

void Reaper::Collect() {
  while (true) {
    siginfo_t info{};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0) {
      return;
    }
    const auto found = watched_.find(info.si_pid);
    Watched watched;
    if (found != watched_.end()) {
      watched = std::move(found->second);
      watched_.erase(found);
    }
    if (watched.before_reap) watched.before_reap();
    waitid(P_PID, info.si_pid, &info, WEXITED);
    if (watched.done) {
      watched.done(ExitStatus{info.si_code != CLD_EXITED, info.si_status});
    }
  }
}

}  // namespace zcbroker::service
