#include "service/host/version_command.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "gtest/gtest.h"
#include "ipc/process.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/testing/wait_for.h"
#include "service/host/reaper.h"

namespace zcbroker::service {
namespace {

TEST(FirstVersionInTest, IsTheFirstWordOfTheGrammar) {
  const struct {
    const char* output;
    const char* version;
  } kRows[] = {
      {"1.11.22\n", "1.11.22"},
      {"zccache 1.11.22\n", "1.11.22"},
      {"tool\tversion\r\n 2.0.0-rc.1 (abc)\n1.0.0", "2.0.0-rc.1"},
      {"v1.0.0 1.0 1.0.0", "1.0.0"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(FirstVersionIn(row.output).value_or("none"), row.version)
        << row.output;
  }
  for (const char* output : {"", "\n", "no version", "1.0", "v1.0.0"}) {
    EXPECT_TRUE(absl::IsNotFound(FirstVersionIn(output).status())) << output;
  }
}

class VersionCommandTest : public ::testing::Test {
 protected:
  std::string Script(const std::string& body) const {
    std::string path = dir_.Entry("tool");
    std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
    chmod(path.c_str(), 0700);
    return path;
  }

  absl::StatusOr<std::string> Ask(const std::string& binary) {
    absl::optional<absl::StatusOr<std::string>> told;
    asio::io_context loop;
    Reaper reaper(loop);
    RunVersionCommand(loop, reaper, binary, {"WORD=7.8.9"},
                      [&](absl::StatusOr<std::string> version) {
                        EXPECT_FALSE(told.has_value()) << "called twice";
                        told = std::move(version);
                        loop.stop();
                      });
    loop.run();
    return *told;
  }

  const ipc::ScopedRuntimeDir dir_;
};

TEST_F(VersionCommandTest, ReadsStandardOutputOfOneArgument) {
  const auto version =
      Ask(Script("echo 9.9.9 >&2\n"
                 "[ $# = 1 ] && [ $1 = --version ] && echo tool 1.2.3"));
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_EQ(*version, "1.2.3");
}

TEST_F(VersionCommandTest, RunsInTheGivenEnvironment) {
  EXPECT_EQ(Ask(Script("echo $WORD")).value_or("none"), "7.8.9");
}

TEST_F(VersionCommandTest, AFailureIsNoVersion) {
  const auto version = Ask(Script("echo 1.2.3; exit 4"));
  EXPECT_TRUE(absl::IsFailedPrecondition(version.status()));
  EXPECT_TRUE(
      absl::StrContains(version.status().message(), "exited with status 4"))
      << version.status();
}

TEST_F(VersionCommandTest, SaysWhatWasPrintedInstead) {
  const auto version = Ask(Script("echo hello"));
  EXPECT_TRUE(absl::IsNotFound(version.status()));
  EXPECT_TRUE(absl::StrContains(version.status().message(), "hello"))
      << version.status();
}

TEST_F(VersionCommandTest, AMissingBinaryIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(Ask("/nonexistent/tool").status()));
}

TEST_F(VersionCommandTest, WhoTakesTooLongIsEndedWithItsGroup) {
  const std::string pid_file = dir_.Entry("child");
  const auto version =
      Ask(Script(absl::StrCat("sleep 1000 &\necho $! > ", pid_file, "\nwait")));
  EXPECT_TRUE(absl::IsDeadlineExceeded(version.status())) << version.status();
  int child = 0;
  std::ifstream(pid_file) >> child;
  ASSERT_GT(child, 0);
  // The signal has been sent; dying of it takes a moment.
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const auto stat = ipc::ReadProcessStat(child);
        return !stat.ok() || stat->state == 'Z' || stat->state == 'X';
      },
      "the child to end"));
}

TEST_F(VersionCommandTest, OutputWithoutEndIsNotReadToTheEnd) {
  const auto version = Ask(Script("echo 1.2.3; exec yes"));
  EXPECT_FALSE(version.ok());
}

}  // namespace
}  // namespace zcbroker::service
