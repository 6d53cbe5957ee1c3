#include "tests/e2e/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/process.h"
#include "ipc/testing/wait_for.h"

namespace zcbroker::testing {
namespace {

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "%s: %s\n", what.c_str(), strerror(errno));
  abort();
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

ipc::UniqueFd MemoryFile() {
  ipc::UniqueFd fd(memfd_create("output", MFD_CLOEXEC));
  if (!fd) Die("memfd_create");
  return fd;
}

std::string ContentOf(const ipc::UniqueFd& fd) {
  std::string content;
  char buffer[65536];
  ssize_t n;
  while ((n = pread(fd.get(), buffer, sizeof(buffer),
                    static_cast<off_t>(content.size()))) > 0) {
    content.append(buffer, static_cast<size_t>(n));
  }
  return content;
}

}  // namespace

Process::Process(std::vector<std::string> argv, const Environment& environment,
                 const ProcessOptions& options) {
  std::vector<std::string> env;
  for (const auto& [name, value] : environment) {
    env.push_back(absl::StrCat(name, "=", value));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  if (options.stdout_fd >= 0) {
    posix_spawn_file_actions_adddup2(&actions, options.stdout_fd, 1);
  }
  if (options.stderr_fd >= 0) {
    posix_spawn_file_actions_adddup2(&actions, options.stderr_fd, 2);
  }
  if (options.third_fd >= 0) {
    posix_spawn_file_actions_adddup2(&actions, options.third_fd, 3);
  }
  posix_spawn_file_actions_addchdir_np(&actions, options.cwd.c_str());
  const std::string program = argv.front();
  const int error = posix_spawnp(&pid_, program.c_str(), &actions, nullptr,
                                 Pointers(argv).data(), Pointers(env).data());
  posix_spawn_file_actions_destroy(&actions);
  errno = error;
  if (error != 0) Die(absl::StrCat("start ", program));
  pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  if (!pidfd_) Die("pidfd_open");
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      reaped_(other.reaped_),
      status_(other.status_) {}

Process::~Process() {
  if (pid_ < 0 || reaped_) return;
  Signal(SIGKILL);
  Wait();
}

void Process::Signal(int signal) const {
  syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

int Process::Wait(absl::Duration timeout) {
  if (reaped_) return status_;
  const ipc::Deadline deadline = ipc::Deadline::After(timeout);
  pollfd waited{pidfd_.get(), POLLIN, 0};
  while (poll(&waited, 1, deadline.PollTimeoutMillis()) <= 0) {
    if (deadline.Expired()) return -1;
  }
  int status = 0;
  if (waitpid(pid_, &status, 0) == pid_) {
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  reaped_ = true;
  return status_;
}

Finished RunToEnd(std::vector<std::string> argv, const Environment& environment,
                  const std::string& cwd) {
  const ipc::UniqueFd out = MemoryFile();
  const ipc::UniqueFd err = MemoryFile();
  ProcessOptions options;
  options.cwd = cwd;
  options.stdout_fd = out.get();
  options.stderr_fd = err.get();
  Process process(std::move(argv), environment, options);
  Finished finished;
  finished.status = process.Wait();
  finished.out = ContentOf(out);
  finished.err = ContentOf(err);
  return finished;
}

std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  const std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir("/proc"), closedir);
  while (const dirent* entry = readdir(proc.get())) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid)) continue;
    const auto stat = ipc::ReadProcessStat(pid);
    // ThreadSanitizer's runtime starts one of these in any program of ours and
    // leaves it behind.
    if (stat.ok() && stat->parent == getpid() &&
        stat->name.find("llvm-symbolize") == std::string::npos) {
      children.push_back(pid);
    }
  }
  return children;
}

void EndAllChildren() {
  const ipc::Deadline deadline = ipc::Deadline::After(kPatience);
  while (!deadline.Expired()) {
    for (const pid_t child : Children()) kill(child, SIGKILL);
    if (waitpid(-1, nullptr, 0) < 0 && errno == ECHILD) return;
  }
  ADD_FAILURE() << "children of the test do not end";
}

void StopWhole(pid_t pid) {
  // 0 would be ourselves.
  ASSERT_GT(pid, 0);
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  const std::string threads = absl::StrCat("/proc/", pid, "/task");
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        std::error_code gone;
        for (const auto& thread :
             std::filesystem::directory_iterator(threads, gone)) {
          const std::string stat = ReadFile(thread.path() / "stat");
          if (!absl::StrContains(stat, ") T ")) return false;
        }
        return !gone;
      },
      absl::StrCat("process ", pid, " to stop"), kPatience));
}

bool IsRunning(pid_t pid) {
  const auto stat = ipc::ReadProcessStat(pid);
  return stat.ok() && stat->state != 'Z' && stat->state != 'X';
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

void WriteFile(const std::string& path, const std::string& content,
               bool executable) {
  const std::string temporary = path + ".new";
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file << content;
    if (!file.good()) Die(temporary);
  }
  if (chmod(temporary.c_str(), executable ? 0700 : 0600) != 0 ||
      rename(temporary.c_str(), path.c_str()) != 0) {
    Die(path);
  }
}

}  // namespace zcbroker::testing
