#include "client/launcher/compiler_path.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::client {
namespace {

class CompilerPathTest : public testing::Test {
 protected:
  std::string Dir(const std::string& leaf) {
    mkdir(dir_.Entry(leaf).c_str(), 0700);
    return dir_.Entry(leaf);
  }
  static void Script(const std::string& path, mode_t mode = 0755) {
    std::ofstream(path) << "#!/bin/sh\n";
    chmod(path.c_str(), mode);
  }

  ipc::ScopedRuntimeDir dir_;
};

TEST_F(CompilerPathTest, TakesTheFirstThatCanBeRun) {
  const std::string first = Dir("1");
  const std::string second = Dir("2");
  Script(absl::StrCat(first, "/gcc"), 0644);
  mkdir(absl::StrCat(first, "/cc").c_str(), 0755);
  Script(absl::StrCat(second, "/gcc"));
  Script(absl::StrCat(second, "/cc"));
  const std::string path = absl::StrCat("/nowhere:", first, ":", second);
  EXPECT_EQ(*FindCompiler("gcc", path), absl::StrCat(second, "/gcc"));
  EXPECT_EQ(*FindCompiler("cc", path), absl::StrCat(second, "/cc"));
  EXPECT_EQ(FindCompiler("g++", path).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(FindCompiler("", path).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(CompilerPathTest, PassesOverThisProgramByLinkAndByCopy) {
  const std::string links = Dir("links");
  const std::string copies = Dir("copies");
  const std::string real = Dir("real");
  ASSERT_EQ(symlink("/proc/self/exe", absl::StrCat(links, "/gcc").c_str()), 0);
  std::ofstream(absl::StrCat(copies, "/gcc"), std::ios::binary)
      << std::ifstream("/proc/self/exe", std::ios::binary).rdbuf();
  chmod(absl::StrCat(copies, "/gcc").c_str(), 0755);
  Script(absl::StrCat(real, "/gcc"));
  const std::string path = absl::StrCat(links, ":", copies, ":", real);
  EXPECT_EQ(*FindCompiler("gcc", path), absl::StrCat(real, "/gcc"));
  EXPECT_EQ(*FindCompiler(absl::StrCat(links, "/gcc"), path),
            absl::StrCat(real, "/gcc"));
  EXPECT_EQ(FindCompiler("gcc", links).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(CompilerPathTest, KeepsAPathAsItIsGiven) {
  EXPECT_EQ(*FindCompiler("/nowhere/gcc", ""), "/nowhere/gcc");
  EXPECT_EQ(*FindCompiler("./gcc", "/usr/bin"), "./gcc");
}

TEST_F(CompilerPathTest, TheSameProgramIsTheSameBytes) {
  Script(dir_.Entry("a"));
  Script(dir_.Entry("b"));
  std::ofstream(dir_.Entry("c")) << "#!/bin/ks\n";
  EXPECT_TRUE(SameProgram(dir_.Entry("a"), dir_.Entry("a")));
  EXPECT_TRUE(SameProgram(dir_.Entry("a"), dir_.Entry("b")));
  EXPECT_FALSE(SameProgram(dir_.Entry("a"), dir_.Entry("c")));
  EXPECT_FALSE(SameProgram(dir_.Entry("a"), dir_.Entry("none")));
}

}  // namespace
}  // namespace zcbroker::client
