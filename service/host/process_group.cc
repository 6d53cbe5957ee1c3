#include "service/host/process_group.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/process.h"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;

// Looking at every process costs more than asking for the group.
constexpr milliseconds kLookCloser(50);
constexpr milliseconds kPatience(10'000);

bool AnyIn(const std::string& directory,
           const std::function<bool(const ipc::ProcessStat&)>& matches) {
  const std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir(directory.c_str()),
                                                 closedir);
  if (proc == nullptr) return true;  // who cannot look assumes the worst
  while (const dirent* entry = readdir(proc.get())) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid)) continue;
    const absl::StatusOr<ipc::ProcessStat> stat = ipc::ReadProcessStat(pid);
    if (stat.ok() && matches(*stat)) return true;
  }
  return false;
}

bool AnyProcess(const std::function<bool(const ipc::ProcessStat&)>& matches) {
  return AnyIn("/proc", matches);
}

// A zombie that nobody collects (pid 1 of some containers does not) keeps its
// group's number taken for ever, but does nothing any more.
bool OnlyZombiesLeft(pid_t pgid) {
  return !AnyProcess([pgid](const ipc::ProcessStat& stat) {
    return stat.group == pgid && !stat.ended();
  });
}

class GroupEnd : public std::enable_shared_from_this<GroupEnd> {
 public:
  GroupEnd(asio::io_context& loop, pid_t pgid, std::function<void()> done)
      : timer_(loop), pgid_(pgid), done_(std::move(done)) {}

  void Step() {
    // Once is enough: a fork with the signal pending is refused by the kernel,
    // and a later one could meet a group that has the number by then.
    const bool empty = kill(-pgid_, signal_) != 0 && errno == ESRCH;
    signal_ = 0;
    const bool gone =
        empty || (waited_ > kLookCloser && OnlyZombiesLeft(pgid_));
    if (!gone && waited_ > kPatience) {
      LogError(absl::StrCat("process group ", pgid_,
                            " does not end; going on without waiting for it"));
    }
    if (gone || waited_ > kPatience) {
      done_();
      return;
    }
    timer_.expires_after(pause_);
    waited_ += pause_;
    pause_ = std::min(pause_ * 2, milliseconds(20));
    timer_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (!e) self->Step();
    });
  }

 private:
  asio::steady_timer timer_;
  const pid_t pgid_;
  int signal_ = SIGKILL;
  std::function<void()> done_;
  milliseconds pause_{1};
  milliseconds waited_{0};
};

}  // namespace

void EndGroup(asio::io_context& loop, pid_t pgid, std::function<void()> done) {
  std::make_shared<GroupEnd>(loop, pgid, std::move(done))->Step();
}

void EndOrphanedGroup(asio::io_context& loop, pid_t pgid,
                      uint64_t leader_start_time, std::function<void()> done) {
  const absl::StatusOr<ipc::ProcessStat> leader = ipc::ReadProcessStat(pgid);
  if (leader.ok() && leader->start_time != leader_start_time) {
    asio::post(loop, std::move(done));
    return;
  }
  // A number stays taken for as long as a group has it: whoever is in this one
  // was started by that leader.
  EndGroup(loop, pgid, std::move(done));
}

bool WaitsForDisk(pid_t pid) {
  // A thread is found in /proc by its own number, too.
  return AnyIn(absl::StrCat("/proc/", pid, "/task"),
               [](const ipc::ProcessStat& stat) { return stat.state == 'D'; });
}

bool HasRunningChildren(pid_t pid) {
  return AnyProcess([pid](const ipc::ProcessStat& stat) {
    return stat.parent == pid && !stat.ended();
  });
}

}  // namespace zcbroker::service
