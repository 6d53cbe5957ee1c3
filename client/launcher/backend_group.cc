#include "client/launcher/backend_group.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/launcher/compiler_path.h"
#include "client/launcher/route_choice.h"
#include "ipc/deadline.h"
#include "ipc/process.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {
namespace {

struct CloseDir {
  void operator()(DIR* stream) const { closedir(stream); }
};

// A process that has ended and waits to be collected writes nothing.
bool IsLive(const ipc::ProcessStat& stat) {
  return stat.state != 'Z' && stat.state != 'X';
}

// The group's end cannot be waited for: its members are not our children.
void Pause() { (void)poll(nullptr, 0, 10); }

}  // namespace

std::vector<int> BackendGroup::Members() const {
  std::vector<int> members;
  const std::unique_ptr<DIR, CloseDir> proc(opendir("/proc"));
  if (proc == nullptr) return members;
  while (const dirent* entry = readdir(proc.get())) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid)) continue;
    const absl::StatusOr<ipc::ProcessStat> stat = ipc::ReadProcessStat(pid);
    if (stat.ok() && stat->group == static_cast<int>(info_.group()) &&
        IsLive(*stat)) {
      members.push_back(pid);
    }
  }
  return members;
}

bool BackendGroup::DaemonLives() const {
  return ipc::IsAlive(IdentityOf(info_));
}

bool BackendGroup::LooksWedged() {
  const absl::StatusOr<ipc::ProcessStat> stat =
      ipc::ReadProcessStat(static_cast<int>(info_.pid()));
  if (!stat.ok() || stat->start_time != info_.start_time()) return false;
  if (stat->state == 'T' || stat->state == 't') return true;
  const bool idle = cpu_ticks_ == stat->cpu_ticks;
  cpu_ticks_ = stat->cpu_ticks;
  return idle && Members().size() <= 1;
}

bool BackendGroup::TryEnd() {
  const int pid = static_cast<int>(info_.pid());
  // From here on no other process can be meant by it.
  const absl::StatusOr<ipc::UniqueFd> pidfd = ipc::OpenPidfd(IdentityOf(info_));
  if (!pidfd.ok()) return false;
  const absl::StatusOr<ipc::ProcessStat> stat = ipc::ReadProcessStat(pid);
  if (!stat.ok() || stat->start_time != info_.start_time() ||
      stat->group != pid || stat->session != pid ||
      info_.group() != info_.pid() ||
      !SameProgram(absl::StrCat("/proc/", pid, "/exe"), info_.binary())) {
    return false;
  }
  // The group keeps its number as long as it has a member.
  (void)kill(-pid, SIGKILL);
  while (!Members().empty()) Pause();
  return true;
}

void BackendGroup::AwaitQuiet(absl::Duration patience) {
  const ipc::Deadline deadline = ipc::Deadline::After(patience);
  // What the daemon starts from now on is for others.
  std::vector<int> awaited = Members();
  bool said = false;
  for (;;) {
    const std::vector<int> members = Members();
    const int daemon = DaemonLives() ? static_cast<int>(info_.pid()) : 0;
    awaited.erase(std::remove_if(awaited.begin(), awaited.end(),
                                 [&](int pid) {
                                   return pid == daemon ||
                                          std::find(members.begin(),
                                                    members.end(),
                                                    pid) == members.end();
                                 }),
                  awaited.end());
    if (awaited.empty()) return;
    if (!said && deadline.Expired()) {
      said = true;
      const std::string text = absl::StrCat(
          "zcb: the daemon (process ", info_.pid(),
          ") gave no answer; waiting for what it started to end: process ",
          awaited.front(), "\n");
      (void)!write(STDERR_FILENO, text.data(), text.size());
    }
    Pause();
  }
}

}  // namespace zcbroker::client
