// What the broker writes to standard error, by what is at its other end.
#include <fcntl.h>
#include <pty.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "ipc/unique_fd.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

using google::protobuf::Struct;

class LogTest : public BrokerTest {
 protected:
  LogTest() { home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"})); }

  // A broker that starts a backend, refuses somebody and ends, its log here.
  void RunWithLog(int fd, const std::string& format = "") {
    Broker::Options options;
    if (!format.empty()) {
      options.arguments.insert(options.arguments.end(),
                               {"--log-format", format});
    }
    options.log_fd = fd;
    StartBroker(options);
    EXPECT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
    EXPECT_FALSE(Client().Negotiate("demo\n\x1b[31m", "1.0.0").ok());
    StopBroker();
  }
  std::string RunWithLogFile(const std::string& format = "") {
    const std::string path = home_.Entry("work/log");
    const ipc::UniqueFd fd(
        open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    RunWithLog(fd.get(), format);
    return ReadFile(path);
  }
  static std::vector<Struct> Objects(const std::string& log) {
    std::vector<Struct> objects;
    for (const auto line : absl::StrSplit(log, '\n', absl::SkipEmpty())) {
      objects.emplace_back();
      EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(std::string(line),
                                                              &objects.back())
                      .ok())
          << line;
    }
    return objects;
  }
  static std::string Text(const Struct& object, const std::string& field) {
    const auto found = object.fields().find(field);
    return found != object.fields().end() ? found->second.string_value() : "";
  }
};

TEST_F(LogTest, IntoAFileItIsObjects) {
  const std::vector<Struct> lines = Objects(RunWithLogFile());
  bool served = false;
  for (const Struct& line : lines) {
    EXPECT_EQ(Text(line, "time").size(), 27u);
    EXPECT_NE(Text(line, "level"), "");
    EXPECT_NE(Text(line, "message"), "");
    served |= absl::StrContains(Text(line, "message"), " serves ") &&
              Text(line, "event").empty();
  }
  EXPECT_TRUE(served) << "lines that are no events are there, too";
}

TEST_F(LogTest, EventsHaveTheirFields) {
  Struct ready;
  Struct refused;
  for (const Struct& line : Objects(RunWithLogFile())) {
    if (Text(line, "event") == "BACKEND_READY") ready = line;
    if (Text(line, "event") == "REFUSED") refused = line;
  }
  EXPECT_EQ(Text(ready, "service"), "demo");
  EXPECT_EQ(Text(ready, "version"), "1.0.0");
  EXPECT_EQ(Text(ready, "level"), "info");
  EXPECT_NE(Text(ready, "process"), "");
  EXPECT_EQ(Text(refused, "refusal"), "SERVICE_NAME_INVALID");
  EXPECT_EQ(Text(refused, "level"), "warning");
  EXPECT_FALSE(absl::StrContains(Text(refused, "service"), "\x1b"));
  EXPECT_FALSE(absl::StrContains(Text(refused, "service"), "\n"));
}

// A line is one write, and what is long gives way within it.
TEST_F(LogTest, WhatABackendPrintedBreaksNoLine) {
  home_.Define("loud", PlainDefinition("loud", home_.Script("loud", R"(
i=0
while [ $i -lt 30 ]; do printf '%0500d\n' 0 | tr 0 '"'; i=$((i + 1)); done
exit 3)")));
  const std::string path = home_.Entry("work/log");
  const ipc::UniqueFd fd(
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  Broker::Options options;
  options.log_fd = fd.get();
  StartBroker(options);
  EXPECT_FALSE(Client().Negotiate("loud", "1.0.0").ok());
  StopBroker();
  bool told = false;
  for (const Struct& line : Objects(ReadFile(path))) {
    told |= Text(line, "event") == "BACKEND_START_FAILED" &&
            absl::StrContains(Text(line, "evidence"), "\"\"");
  }
  EXPECT_TRUE(told);
}

TEST_F(LogTest, OnATerminalItIsText) {
  int ends[2];
  ASSERT_EQ(openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr), 0);
  const ipc::UniqueFd master(ends[0]);
  const ipc::UniqueFd slave(ends[1]);
  RunWithLog(slave.get());
  char buffer[16384];
  const ssize_t n = read(master.get(), buffer, sizeof(buffer));
  ASSERT_GT(n, 0);
  const std::string text(buffer, static_cast<size_t>(n));
  EXPECT_TRUE(absl::StrContains(text, " info zcbrokerd ")) << text;
  EXPECT_FALSE(absl::StrContains(text, "{")) << text;
}

TEST_F(LogTest, TextIsToBeHadInAFileToo) {
  const std::string log = RunWithLogFile("text");
  EXPECT_TRUE(absl::StrContains(log, " warning refused demo")) << log;
  EXPECT_TRUE(absl::StrContains(log, " info zcbrokerd ")) << log;
  EXPECT_FALSE(absl::StrContains(log, "{")) << log;
}

}  // namespace
}  // namespace zcbroker::testing
