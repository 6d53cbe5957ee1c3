#include "client/launcher/backend_group.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "gtest/gtest.h"
#include "ipc/process.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::client {
namespace {

// A process of this program that leads a session, with a child in its group;
// both only wait. Ended with the object.
class Family {
 public:
  explicit Family(bool with_child) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const ipc::UniqueFd read_end(ends[0]);
    ipc::UniqueFd write_end(ends[1]);
    leader_ = fork();
    if (leader_ == 0) {
      setsid();
      const int child = with_child ? fork() : getpid();
      if (child == 0) {
        for (;;) pause();
      }
      (void)!write(write_end.get(), &child, sizeof(child));
      for (;;) pause();
    }
    EXPECT_EQ(read(read_end.get(), &child_, sizeof(child_)),
              static_cast<ssize_t>(sizeof(child_)));
    identity_ = *ipc::IdentifyProcess(leader_);
  }
  ~Family() {
    kill(-leader_, SIGKILL);
    waitpid(leader_, nullptr, 0);
  }
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;

  zcbroker::v1::RouteInfo info() const {
    zcbroker::v1::RouteInfo info;
    info.set_pid(static_cast<unsigned>(leader_));
    info.set_group(static_cast<unsigned>(leader_));
    info.set_start_time(identity_.start_time);
    info.set_boot_id(identity_.boot_id);
    info.set_binary("/proc/self/exe");
    return info;
  }
  int leader() const { return leader_; }
  int child() const { return child_; }
  bool Is(char state) const {
    const auto stat = ipc::ReadProcessStat(leader_);
    return stat.ok() && stat->state == state;
  }

 private:
  int leader_ = 0;
  int child_ = 0;
  ipc::ProcessIdentity identity_;
};

TEST(BackendGroupTest, StoppedIsWedgedAtOnce) {
  const Family family(/*with_child=*/true);
  BackendGroup group(family.info());
  EXPECT_TRUE(group.DaemonLives());
  EXPECT_FALSE(group.LooksWedged());
  kill(family.leader(), SIGSTOP);
  ASSERT_TRUE(ipc::WaitFor([&] { return family.Is('T'); }, "the stop"));
  EXPECT_TRUE(group.LooksWedged());
}

TEST(BackendGroupTest, IdleTwiceWithoutChildrenIsWedged) {
  const Family family(/*with_child=*/false);
  ASSERT_TRUE(ipc::WaitFor([&] { return family.Is('S'); }, "its rest"));
  BackendGroup group(family.info());
  EXPECT_FALSE(group.LooksWedged());
  EXPECT_TRUE(group.LooksWedged());
}

TEST(BackendGroupTest, WhoHasChildrenIsBusy) {
  const Family family(/*with_child=*/true);
  BackendGroup group(family.info());
  for (int probe = 0; probe < 3; ++probe) EXPECT_FALSE(group.LooksWedged());
}

TEST(BackendGroupTest, EndsTheWholeGroup) {
  const Family family(/*with_child=*/true);
  BackendGroup group(family.info());
  EXPECT_TRUE(group.TryEnd());
  EXPECT_FALSE(group.DaemonLives());
  const auto child = ipc::ReadProcessStat(family.child());
  EXPECT_TRUE(!child.ok() || child->state == 'Z');
}

TEST(BackendGroupTest, EndsNobodyElse) {
  const Family family(/*with_child=*/false);
  zcbroker::v1::RouteInfo info = family.info();
  info.set_binary("/bin/true");
  EXPECT_FALSE(BackendGroup(info).TryEnd());
  info = family.info();
  info.set_start_time(info.start_time() + 1);
  EXPECT_FALSE(BackendGroup(info).TryEnd());
  info = family.info();
  info.set_group(static_cast<unsigned>(getpgid(0)));
  EXPECT_FALSE(BackendGroup(info).TryEnd());
  info = family.info();
  info.set_boot_id("another");
  EXPECT_FALSE(BackendGroup(info).TryEnd());
  EXPECT_TRUE(BackendGroup(family.info()).DaemonLives());
}

TEST(BackendGroupTest, AwaitsWhatADeadDaemonLeftRunning) {
  const Family family(/*with_child=*/true);
  BackendGroup group(family.info());
  kill(family.leader(), SIGKILL);
  ASSERT_TRUE(ipc::WaitFor([&] { return family.Is('Z'); }, "its end"));
  std::thread ender([&] { kill(family.child(), SIGKILL); });
  group.AwaitQuiet();
  const auto child = ipc::ReadProcessStat(family.child());
  EXPECT_TRUE(!child.ok() || child->state == 'Z');
  ender.join();
}

TEST(BackendGroupTest, DoesNotAwaitADaemonThatLives) {
  const Family family(/*with_child=*/false);
  BackendGroup(family.info()).AwaitQuiet();
}

}  // namespace
}  // namespace zcbroker::client
