#include "ipc/private_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

class PrivateDirTest : public testing::Test {
 protected:
  PrivateDirTest() : root_(*OpenDirectory(dir_.path())) {}

  absl::StatusOr<UniqueFd> Create(const std::string& leaf) {
    return OpenOrCreatePrivateDirAt(root_.get(), dir_.path(), leaf, geteuid());
  }

  ScopedRuntimeDir dir_;
  UniqueFd root_;
};

TEST_F(PrivateDirTest, CreatesWithMode0700WhateverTheUmask) {
  const mode_t old = umask(0277);
  const auto made = Create("d");
  umask(old);
  ASSERT_TRUE(made.ok()) << made.status();
  struct stat info;
  ASSERT_EQ(stat(dir_.Entry("d").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  EXPECT_TRUE(Create("d").ok());
  EXPECT_TRUE(OpenPrivateDir(dir_.Entry("d"), geteuid()).ok());
}

TEST_F(PrivateDirTest, NeverRepairsWhatItFinds) {
  ASSERT_EQ(mkdir(dir_.Entry("open").c_str(), 0755), 0);
  const absl::Status status = Create("open").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "chmod 700")) << status;
}

TEST_F(PrivateDirTest, RefusesLinksFilesAndStrangers) {
  ASSERT_EQ(mkdir(dir_.Entry("real").c_str(), 0700), 0);
  ASSERT_EQ(symlink("real", dir_.Entry("link").c_str()), 0);
  std::ofstream(dir_.Entry("file")) << "x";
  EXPECT_EQ(Create("link").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Create("file").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OpenPrivateDir(dir_.Entry("real"), geteuid() + 1).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(OpenPrivateDir(dir_.Entry("none"), geteuid()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace zcbroker::ipc
