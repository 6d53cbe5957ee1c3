#include "ipc/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/testing/wait_for.h"

namespace zcbroker::ipc {
namespace {

std::string StatText(const std::string& name) {
  return absl::StrCat("4711 (", name,
                      ") S 12 34 56 0 -1 4194304 1 2 3 4 7 8 0 0 20 0 1 0 "
                      "987654321 4096 10\n");
}

TEST(ProcessStatTest, TheNameMayHoldAnything) {
  for (const char* name :
       {"gcc", "", "a b", "a) R 1 2 3", ") (", "((", "))", "new\nline"}) {
    const auto stat = ParseProcessStat(StatText(name));
    ASSERT_TRUE(stat.ok()) << name << stat.status();
    EXPECT_EQ(stat->pid, 4711);
    EXPECT_EQ(stat->name, name);
    EXPECT_EQ(stat->state, 'S');
    EXPECT_EQ(stat->parent, 12);
    EXPECT_EQ(stat->group, 34);
    EXPECT_EQ(stat->session, 56);
    EXPECT_EQ(stat->cpu_ticks, 15U);
    EXPECT_EQ(stat->start_time, 987654321U);
  }
}

TEST(ProcessStatTest, WhatIsCutOrForeignIsDataLoss) {
  const std::string whole = StatText("x");
  for (const std::string& bad :
       {std::string(), std::string("4711"), std::string("4711 (x"),
        std::string("4711 )x("), whole.substr(0, whole.find(" 987")),
        std::string("pid (x) S 1 2 3"), std::string("1 (x) SS 1 2 3")}) {
    EXPECT_EQ(ParseProcessStat(bad).status().code(),
              absl::StatusCode::kDataLoss)
        << bad;
  }
}

// A child that does nothing until it is signalled, or sleeps as `program`.
class Child {
 public:
  explicit Child(const char* program = nullptr) : pid_(fork()) {
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (program != nullptr) execl(program, program, "600", nullptr);
      for (;;) pause();
    }
  }
  ~Child() { KillAndReap(); }
  void Kill() const { kill(pid_, SIGKILL); }
  void KillAndReap() {
    if (pid_ <= 0) return;
    Kill();
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  int pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(ProcessTest, IdentifiesItself) {
  const auto self = IdentifyProcess(getpid());
  ASSERT_TRUE(self.ok()) << self.status();
  EXPECT_EQ(self->pid, getpid());
  EXPECT_GT(self->start_time, 0U);
  EXPECT_EQ(self->boot_id.size(), 36U);
  EXPECT_EQ(*IdentifyProcess(getpid()), *self);
  EXPECT_TRUE(IsAlive(*self));
  EXPECT_EQ(ReadProcessStat(getpid())->parent, getppid());
  EXPECT_EQ(*ExecutablePath(getpid()),
            std::filesystem::read_symlink("/proc/self/exe").string());
  EXPECT_EQ(*MountNamespace(getpid()), *OwnMountNamespace());
}

TEST(ProcessTest, AProgramHasItsNameWhenItsFileIsGone) {
  const ScopedRuntimeDir dir;
  const std::string file = dir.Entry("sleeper");
  std::filesystem::copy_file("/bin/sleep", file);
  const Child child(file.c_str());
  ASSERT_TRUE(WaitFor([&] { return *ExecutablePath(child.pid()) == file; },
                      "the child to run its program"));
  EXPECT_EQ(*ProgramName(child.pid()), "sleeper");
  EXPECT_TRUE(RunsProgram(child.pid(), "sleeper"));
  EXPECT_FALSE(RunsProgram(child.pid(), "leeper"));
  std::filesystem::remove(file);
  EXPECT_EQ(*ExecutablePath(child.pid()), file + " (deleted)");
  EXPECT_EQ(*ProgramName(child.pid()), "sleeper");
}

TEST(ProcessTest, ARecycledPidIsNotTheProcess) {
  Child child;
  ProcessIdentity earlier = *IdentifyProcess(child.pid());
  --earlier.start_time;
  EXPECT_FALSE(IsAlive(earlier));
  EXPECT_EQ(OpenPidfd(earlier).status().code(), absl::StatusCode::kNotFound);
  ProcessIdentity other_boot = *IdentifyProcess(child.pid());
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_FALSE(IsAlive(other_boot));
  EXPECT_EQ(OpenPidfd(other_boot).status().code(), absl::StatusCode::kNotFound);
}

TEST(ProcessTest, APidfdSignalsAndTellsTheEnd) {
  Child child;
  const ProcessIdentity identity = *IdentifyProcess(child.pid());
  const auto pidfd = OpenPidfd(identity);
  ASSERT_TRUE(pidfd.ok()) << pidfd.status();
  pollfd entry = {pidfd->get(), POLLIN, 0};
  EXPECT_EQ(poll(&entry, 1, 0), 0);
  EXPECT_TRUE(SendSignal(*pidfd, SIGTERM).ok());
  EXPECT_EQ(poll(&entry, 1, 20000), 1);
  child.KillAndReap();
  EXPECT_EQ(SendSignal(*pidfd, SIGTERM).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenPidfd(identity).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(IdentifyProcess(identity.pid).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ProcessTest, AZombieIsNotAlive) {
  Child child;
  const ProcessIdentity identity = *IdentifyProcess(child.pid());
  child.Kill();
  EXPECT_TRUE(WaitFor(
      [&] {
        const auto stat = ReadProcessStat(identity.pid);
        return stat.ok() && stat->state == 'Z';
      },
      "the child to become a zombie"));
  EXPECT_FALSE(IsAlive(identity));
}

TEST(ProcessTest, AStoppedProcessSaysSo) {
  Child child;
  kill(child.pid(), SIGSTOP);
  EXPECT_TRUE(
      WaitFor([&] { return ReadProcessStat(child.pid())->state == 'T'; },
              "the child to stop"));
  EXPECT_TRUE(IsAlive(*IdentifyProcess(child.pid())));
}

TEST(ProcessTest, ReadsTheEnvironmentAProcessWasStartedWith) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ready[1], 1);
    const char* argv[] = {"sh", "-c", "echo; kill -STOP $$", nullptr};
    const char* env[] = {"A=1", "AB=two=2", "EMPTY=", "A=second", nullptr};
    execve("/bin/sh", const_cast<char**>(argv), const_cast<char**>(env));
    _exit(127);
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const auto found = ReadEnvironment(child, {"A", "AB", "EMPTY", "MISSING"});
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, (std::map<std::string, std::string>{
                        {"A", "1"}, {"AB", "two=2"}, {"EMPTY", ""}}));
  EXPECT_EQ(ReadEnvironment(child, {"A"}).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace zcbroker::ipc
