#include "service/keeper/successor_check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace zcbroker::service {

absl::StatusOr<SuccessorCheck> SuccessorCheck::Ask(std::string program,
                                                   std::string question,
                                                   std::string answer) {
  SuccessorCheck check(std::move(program), std::move(question),
                       std::move(answer));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return absl::ErrnoToStatus(errno, "pipe");
  }
  check.said_ = ipc::UniqueFd(ends[0]);
  const ipc::UniqueFd says(ends[1]);
  std::vector<char*> words{const_cast<char*>(check.program_.c_str()),
                           const_cast<char*>(check.question_.c_str()), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, says.get(), STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int error = posix_spawn(&check.child_, check.program_.c_str(), &actions,
                                &attributes, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("start ", check.program_));
  }
  return check;
}

void SuccessorCheck::Kill() const { kill(child_, SIGKILL); }

absl::Status SuccessorCheck::Judge(int wait_status) const {
  char said[256];
  const ssize_t n = read(said_.get(), said, sizeof(said));
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0 && n > 0 &&
      absl::StartsWith(absl::string_view(said, static_cast<size_t>(n)),
                       answer_)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(program_, " does not know ", question_,
                   "; mend it, or end and start the keeper"));
}

}  // namespace zcbroker::service
