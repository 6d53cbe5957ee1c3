#include "ipc/runtime_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RuntimeDirTest : public testing::Test {
 protected:
  RuntimeDirTest() {
    Make("run", 0755);
    Make("tmp", 01777);
    inputs_.euid = geteuid();
    inputs_.run_user_root = dir_.Entry("run");
    inputs_.tmp_root = dir_.Entry("tmp");
  }

  // mkdir and chmod below the test's directory; gives the path.
  std::string Make(const std::string& leaf, mode_t mode) {
    std::string path = dir_.Entry(leaf);
    EXPECT_EQ(mkdir(path.c_str(), 0700), 0) << path;
    EXPECT_EQ(chmod(path.c_str(), mode), 0) << path;
    return path;
  }
  std::string RunUser() const { return absl::StrCat("run/", inputs_.euid); }
  std::string Tmp() const {
    return absl::StrCat("tmp/zcbroker-", inputs_.euid);
  }

  // The base that was chosen, below the test's directory, or the error.
  std::string Chosen() {
    const auto found = RuntimeDir::OpenOrCreate(inputs_);
    if (!found.ok()) return found.status().ToString();
    return found->base().substr(dir_.path().size() + 1);
  }

  ScopedRuntimeDir dir_;
  RuntimeDirInputs inputs_;
};

TEST_F(RuntimeDirTest, PrefersXdgRuntimeDir) {
  inputs_.xdg_runtime_dir = Make("xdg", 0700);
  Make(RunUser(), 0700);
  const auto found = RuntimeDir::OpenOrCreate(inputs_);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->base(), dir_.Entry("xdg"));
  EXPECT_EQ(found->path(), dir_.Entry("xdg/zcbroker"));
  EXPECT_EQ(found->broker_socket(), dir_.Entry("xdg/zcbroker/broker.sock"));
  EXPECT_TRUE(found->passed_over().empty());
  struct stat info;
  ASSERT_EQ(fstat(found->fd(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
}

TEST_F(RuntimeDirTest, ASlashAtTheEndMakesNoDifference) {
  inputs_.xdg_runtime_dir = Make("xdg", 0700) + "//";
  EXPECT_EQ(Chosen(), "xdg");
}

TEST_F(RuntimeDirTest, PassesOverAnUnusableXdgRuntimeDirAndSaysWhy) {
  Make(RunUser(), 0700);
  Make("open", 0755);
  Make("real", 0700);
  ASSERT_EQ(symlink("real", dir_.Entry("link").c_str()), 0);
  const struct {
    std::string value;
    std::string reason;
  } kRows[] = {
      {"", "absolute"},
      {"relative/dir", "absolute"},
      {dir_.Entry("missing"), "open"},
      {dir_.Entry("open"), "0755"},
      {dir_.Entry("link"), "symbolic link"},
      {"/dev/null", "no directory"},
  };
  for (const auto& row : kRows) {
    inputs_.xdg_runtime_dir = row.value;
    const auto found = RuntimeDir::OpenOrCreate(inputs_);
    ASSERT_TRUE(found.ok()) << row.value << found.status();
    EXPECT_EQ(found->base(), dir_.Entry(RunUser())) << row.value;
    ASSERT_EQ(found->passed_over().size(), 1U);
    EXPECT_TRUE(absl::StrContains(found->passed_over()[0], row.reason))
        << found->passed_over()[0];
  }
}

TEST_F(RuntimeDirTest, FallsBackToRunUserThenTmp) {
  EXPECT_EQ(Chosen(), Tmp());
  EXPECT_THAT(RuntimeDir::Find(inputs_)->passed_over(), IsEmpty());
  Make(RunUser(), 0750);
  EXPECT_EQ(Chosen(), Tmp());
  EXPECT_THAT(RuntimeDir::Find(inputs_)->passed_over(),
              ElementsAre(HasSubstr("0750")));
  ASSERT_EQ(chmod(dir_.Entry(RunUser()).c_str(), 0700), 0);
  EXPECT_EQ(Chosen(), RunUser());
}

TEST_F(RuntimeDirTest, ADirectoryOfSomebodyElseIsNotUsed) {
  // Every directory here is ours; as another user, none is.
  inputs_.xdg_runtime_dir = Make("xdg", 0700);
  inputs_.euid = geteuid() + 1;
  Make(RunUser(), 0700);
  Make(Tmp(), 0700);
  const absl::Status status = RuntimeDir::OpenOrCreate(inputs_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  // All three are named.
  for (const std::string& path : {std::string("/xdg"), RunUser(), Tmp()}) {
    EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
  }
}

TEST_F(RuntimeDirTest, ATmpThatIsALinkOrOpenIsRefused) {
  Make("elsewhere", 0700);
  ASSERT_EQ(symlink("../elsewhere", dir_.Entry(Tmp()).c_str()), 0);
  EXPECT_EQ(RuntimeDir::OpenOrCreate(inputs_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(unlink(dir_.Entry(Tmp()).c_str()), 0);
  Make(Tmp(), 0777);
  EXPECT_EQ(RuntimeDir::OpenOrCreate(inputs_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(RuntimeDirTest, ABadSubdirectoryIsAnErrorNotAReasonToMoveOn) {
  inputs_.xdg_runtime_dir = Make("xdg", 0700);
  Make("elsewhere", 0700);
  ASSERT_EQ(symlink("../elsewhere", dir_.Entry("xdg/zcbroker").c_str()), 0);
  EXPECT_EQ(RuntimeDir::OpenOrCreate(inputs_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(RuntimeDir::Find(inputs_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(unlink(dir_.Entry("xdg/zcbroker").c_str()), 0);
  Make("xdg/zcbroker", 0755);
  const absl::Status status = RuntimeDir::OpenOrCreate(inputs_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "chmod 700")) << status;
}

TEST_F(RuntimeDirTest, FindMakesNothing) {
  EXPECT_EQ(RuntimeDir::Find(inputs_).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_NE(access(dir_.Entry(Tmp()).c_str(), F_OK), 0);
  inputs_.xdg_runtime_dir = Make("xdg", 0755);
  const absl::Status open_to_others = RuntimeDir::Find(inputs_).status();
  EXPECT_EQ(open_to_others.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(open_to_others.message(), "chmod 700"))
      << open_to_others;
  ASSERT_EQ(chmod(dir_.Entry("xdg").c_str(), 0700), 0);
  EXPECT_EQ(RuntimeDir::Find(inputs_).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_NE(access(dir_.Entry("xdg/zcbroker").c_str(), F_OK), 0);
  ASSERT_TRUE(RuntimeDir::OpenOrCreate(inputs_).ok());
  const auto found = RuntimeDir::Find(inputs_);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->path(), dir_.Entry("xdg/zcbroker"));
}

TEST_F(RuntimeDirTest, HoldsTheDirectoryThatWasChecked) {
  inputs_.xdg_runtime_dir = Make("xdg", 0700);
  const auto found = RuntimeDir::OpenOrCreate(inputs_);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(rename(dir_.Entry("xdg").c_str(), dir_.Entry("moved").c_str()), 0);
  EXPECT_EQ(mkdirat(found->fd(), "probe", 0700), 0);
  EXPECT_EQ(access(dir_.Entry("moved/zcbroker/probe").c_str(), F_OK), 0);
}

TEST_F(RuntimeDirTest, ReopensTheSamePathOnly) {
  inputs_.xdg_runtime_dir = Make("xdg", 0700);
  const auto found = RuntimeDir::OpenOrCreate(inputs_);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(rmdir(dir_.Entry("xdg/zcbroker").c_str()), 0);
  const auto again = found->Reopen();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->path(), found->path());
  EXPECT_EQ(mkdirat(again->fd(), "probe", 0700), 0);
  EXPECT_EQ(access(dir_.Entry("xdg/zcbroker/probe").c_str(), F_OK), 0);
  ASSERT_EQ(rename(dir_.Entry("xdg").c_str(), dir_.Entry("moved").c_str()), 0);
  EXPECT_EQ(found->Reopen().status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(access(dir_.Entry("xdg").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace zcbroker::ipc
