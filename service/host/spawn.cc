#include "service/host/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/exec_words.h"
#include "service/host/descriptors.h"

namespace zcbroker::service {
namespace {

class FileActions {
 public:
  explicit FileActions(const SpawnRequest& request) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, request.output_fd, 1);
    if (request.discard_errors) {
      posix_spawn_file_actions_addopen(&actions_, 2, "/dev/null", O_WRONLY, 0);
    } else {
      posix_spawn_file_actions_adddup2(&actions_, request.output_fd, 2);
    }
    posix_spawn_file_actions_addchdir_np(&actions_, "/");
    // Ours are close-on-exec; what the broker was started with may not be.
    posix_spawn_file_actions_addclosefrom_np(&actions_, 3);
  }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

class Attributes {
 public:
  Attributes() {
    posix_spawnattr_init(&attributes_);
    sigset_t all;
    sigfillset(&all);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSID |
                                               POSIX_SPAWN_SETSIGDEF |
                                               POSIX_SPAWN_SETSIGMASK);
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
  ~Attributes() { posix_spawnattr_destroy(&attributes_); }
  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

}  // namespace

absl::StatusOr<pid_t> Spawn(const SpawnRequest& request) {
  const FileActions actions(request);
  const Attributes attributes;
  const std::vector<char*> argv = ipc::ExecWords(request.argv);
  const std::vector<char*> env = ipc::ExecWords(request.env);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, request.binary.c_str(), actions.get(),
                                attributes.get(), argv.data(), env.data());
  if (error == EAGAIN || error == ENOMEM) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "start ", request.binary, ": no process or memory left for it"));
  }
  if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("start ", request.binary));
  }
  if (const rlimit* original = OriginalDescriptorLimit()) {
    // posix_spawn cannot set limits; a process that has just been executed has
    // not opened anything yet.
    prlimit(pid, RLIMIT_NOFILE, original, nullptr);
  }
  return pid;
}

}  // namespace zcbroker::service
