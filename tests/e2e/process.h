// Real processes for end-to-end tests: started without a shell, waited for
// through a pidfd, never signalled by anything but their own pid.
#ifndef ZCBROKER_TESTS_E2E_PROCESS_H_
#define ZCBROKER_TESTS_E2E_PROCESS_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ipc/unique_fd.h"

namespace zcbroker::testing {

// Generous: a sanitizer on a busy machine must not fail a test.
inline constexpr absl::Duration kPatience = absl::Seconds(60);

using Environment = std::map<std::string, std::string>;

struct ProcessOptions {
  std::string cwd = "/";
  // Becomes descriptor 3 of the process; -1: none.
  int third_fd = -1;
  // Where its output and its errors go; -1: where ours go.
  int stdout_fd = -1;
  int stderr_fd = -1;
};

// SIGSTOP, and waits until every thread of the process has stopped: the signal
// reaches one of them, and on a busy machine the others go on for a while.
// Fails the test where they do not stop.
void StopWhole(pid_t pid);

// A child of this process; ended by SIGKILL and reaped with the object.
class Process {
 public:
  // Aborts where it cannot be started: there is nothing to test then.
  Process(std::vector<std::string> argv, const Environment& environment,
          const ProcessOptions& options = {});
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  void StopWhole() const { testing::StopWhole(pid_); }
  // Its exit status, 128 and the signal where one ended it, -1 where it does
  // not end in time. May be asked again.
  int Wait(absl::Duration timeout = kPatience);

 private:
  pid_t pid_ = -1;
  ipc::UniqueFd pidfd_;
  bool reaped_ = false;
  int status_ = -1;
};

struct Finished {
  int status = -1;
  std::string out;
  std::string err;
};

// Runs a command to its end.
Finished RunToEnd(std::vector<std::string> argv, const Environment& environment,
                  const std::string& cwd = "/");

// Those whose parent is this process, by /proc.
std::vector<pid_t> Children();

// Ends by pid, and reaps, every child and what falls to us meanwhile: as the
// subreaper, all that our children left behind.
void EndAllChildren();

// Whether the process is there and has not ended; a zombie has.
bool IsRunning(pid_t pid);

std::string ReadFile(const std::string& path);
// Writes beside it and renames, as an editor does; mode 0600 or 0700.
void WriteFile(const std::string& path, const std::string& content,
               bool executable = false);

}  // namespace zcbroker::testing

#endif  // ZCBROKER_TESTS_E2E_PROCESS_H_
