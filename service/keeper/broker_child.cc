#include "service/keeper/broker_child.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ipc/exec_words.h"
#include "ipc/keeper_channel.h"
#include "ipc/status_macros.h"

namespace zcbroker::service {
namespace {

constexpr int kChannelNumber = 3;
// Held and never used: its backends do not inherit it, so it ends with it.
constexpr int kLifelineNumber = 4;

std::vector<std::string> BrokerEnvironment() {
  const std::string channel = absl::StrCat(ipc::kKeeperFdVariable, "=");
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!absl::StartsWith(*entry, "NOTIFY_SOCKET=") &&
        !absl::StartsWith(*entry, channel)) {
      all.emplace_back(*entry);
    }
  }
  all.push_back(absl::StrCat(channel, kChannelNumber));
  return all;
}

}  // namespace

absl::StatusOr<std::string> OwnPath() {
  char self[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof(self));
  if (n <= 0) return absl::ErrnoToStatus(errno, "readlink /proc/self/exe");
  return std::string(self, static_cast<size_t>(n));
}

absl::StatusOr<std::string> FindBroker() {
  ZCB_ASSIGN_OR_RETURN(const std::string path, OwnPath());
  const std::string directory = path.substr(0, path.rfind('/'));
  std::string beside = absl::StrCat(directory, "/zcbrokerd");
  if (access(beside.c_str(), X_OK) == 0) return beside;
  // There each program has its package's directory.
  std::string built = absl::StrCat(directory, "/../zcbrokerd");
  if (absl::StrContains(directory, "/bazel-out/") &&
      access(built.c_str(), X_OK) == 0) {
    return built;
  }
  return absl::NotFoundError(
      absl::StrCat("there is no ", beside, "; name one with --broker"));
}

absl::StatusOr<pid_t> StartBroker(const std::string& program,
                                  const std::vector<std::string>& arguments,
                                  const ipc::UniqueFd& channel,
                                  const ipc::UniqueFd& lifeline) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // Also where it has that number already: the copy is not close-on-exec.
  posix_spawn_file_actions_adddup2(&actions, channel.get(), kChannelNumber);
  posix_spawn_file_actions_adddup2(&actions, lifeline.get(), kLifelineNumber);
  posix_spawn_file_actions_addclosefrom_np(&actions, kLifelineNumber + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigdefault(&attributes, &all);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  std::vector<std::string> words{program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program.c_str(), &actions, &attributes,
                                ipc::ExecWords(words).data(),
                                ipc::ExecWords(BrokerEnvironment()).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("start ", program));
  }
  return pid;
}

}  // namespace zcbroker::service
