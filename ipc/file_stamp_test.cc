#include "ipc/file_stamp.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

class FileStampTest : public testing::Test {
 protected:
  FileStampTest() { Write(path_, "one"); }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::trunc) << text;
  }
  ScopedRuntimeDir dir_;
  const std::string path_ = dir_.Entry("file");
};

TEST_F(FileStampTest, IsTheSameWhileNothingHappens) {
  ASSERT_TRUE(StampOf(path_).has_value()) << "this kernel is before 5.8";
  EXPECT_EQ(*StampOf(path_), *StampOf(path_));
}

TEST_F(FileStampTest, AReplacedFileHasAnother) {
  const auto before = StampOf(path_);
  const std::string other = dir_.Entry("other");
  Write(other, "two");
  ASSERT_EQ(rename(other.c_str(), path_.c_str()), 0);
  EXPECT_NE(*StampOf(path_), *before);
}

TEST_F(FileStampTest, AnotherSizeIsAnother) {
  const auto before = StampOf(path_);
  Write(path_, "longer");
  EXPECT_NE(*StampOf(path_), *before);
}

TEST_F(FileStampTest, NothingWhereThereIsNoFile) {
  EXPECT_FALSE(StampOf(dir_.Entry("none")).has_value());
  EXPECT_FALSE(StampOf(dir_.path()).has_value());
  std::filesystem::create_symlink(path_, dir_.Entry("link"));
  EXPECT_FALSE(StampOf(dir_.Entry("link")).has_value());
}

TEST_F(FileStampTest, AnotherMountNamespaceHasAnother) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const auto before = StampOf(path_);
  const pid_t pid = fork();
  if (pid == 0) {
    if (unshare(CLONE_NEWNS) != 0) _exit(77);
    const auto there = StampOf(path_);
    _exit(there.has_value() && *there != *before ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "unshare is forbidden";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace zcbroker::ipc
