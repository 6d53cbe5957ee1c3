#include "ipc/instance_lock.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

class InstanceLockTest : public testing::Test {
 protected:
  InstanceLockTest() : runtime_(*RuntimeDir::OpenOrCreate(dir_.inputs())) {}
  std::string LockPath() const { return runtime_.Entry("broker.lock"); }

  ScopedRuntimeDir dir_;
  RuntimeDir runtime_;
};

TEST_F(InstanceLockTest, SecondClaimNamesTheHolder) {
  const auto lock = InstanceLock::TryAcquire(runtime_);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_TRUE(lock->StillHeld());
  const absl::Status second = InstanceLock::TryAcquire(runtime_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(absl::StrContains(second.message(), absl::StrCat(getpid())))
      << second;
}

TEST_F(InstanceLockTest, WhoClaimedLastIsKnownAfterwards) {
  EXPECT_TRUE(absl::IsNotFound(InstanceLock::LastHolder(runtime_).status()));
  { ASSERT_TRUE(InstanceLock::TryAcquire(runtime_).ok()); }
  EXPECT_EQ(*InstanceLock::LastHolder(runtime_), getpid());
  std::ofstream(LockPath()) << "nobody\n";
  EXPECT_TRUE(absl::IsNotFound(InstanceLock::LastHolder(runtime_).status()));
}

TEST_F(InstanceLockTest, TheClaimEndsWithTheObject) {
  { ASSERT_TRUE(InstanceLock::TryAcquire(runtime_).ok()); }
  EXPECT_TRUE(InstanceLock::TryAcquire(runtime_).ok());
}

TEST_F(InstanceLockTest, TheClaimEndsWithTheProcess) {
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = InstanceLock::TryAcquire(runtime_);
    _exit(lock.ok() ? 0 : 1);  // no destructor runs
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_TRUE(InstanceLock::TryAcquire(runtime_).ok());
}

TEST_F(InstanceLockTest, ADeletedPathNoLongerCounts) {
  const auto lock = InstanceLock::TryAcquire(runtime_);
  ASSERT_EQ(unlink(LockPath().c_str()), 0);
  EXPECT_FALSE(lock->StillHeld());
  const auto successor = InstanceLock::TryAcquire(runtime_);
  ASSERT_TRUE(successor.ok()) << successor.status();
  EXPECT_TRUE(successor->StillHeld());
  EXPECT_FALSE(lock->StillHeld());
}

TEST_F(InstanceLockTest, AReplacedPathNoLongerCounts) {
  const auto lock = InstanceLock::TryAcquire(runtime_);
  std::ofstream(LockPath() + ".new") << "1\n";
  ASSERT_EQ(rename((LockPath() + ".new").c_str(), LockPath().c_str()), 0);
  EXPECT_FALSE(lock->StillHeld());
}

TEST_F(InstanceLockTest, ALinkInItsPlaceIsRefused) {
  ASSERT_EQ(symlink("/dev/null", LockPath().c_str()), 0);
  EXPECT_EQ(InstanceLock::TryAcquire(runtime_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace zcbroker::ipc
