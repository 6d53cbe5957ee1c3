// The command line as a person or a script uses it: what it prints, in text
// and in JSON, and how it exits.
#include <dirent.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/process.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/version.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

using google::protobuf::Struct;

class CliTest : public BrokerTest {
 protected:
  ~CliTest() override {
    // A broker that `up` started is nobody's object.
    Cli({"down", "--stop-backends"});
  }

  Finished Cli(std::vector<std::string> arguments,
               const Environment& more = {}) const {
    Environment environment = home_.environment();
    for (const auto& [name, value] : more) environment[name] = value;
    arguments.insert(arguments.begin(), CommandLineProgram());
    return RunToEnd(std::move(arguments), environment, home_.Entry("work"));
  }

  // A verb that goes on, with its standard output in the file `out`.
  std::unique_ptr<Process> StartInto(const std::string& out,
                                     std::vector<std::string> arguments) const {
    const ipc::UniqueFd file(
        open(out.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_TRUE(file) << out;
    ProcessOptions options;
    options.stdout_fd = file.get();
    arguments.insert(arguments.begin(), CommandLineProgram());
    return std::make_unique<Process>(std::move(arguments), home_.environment(),
                                     options);
  }

  // Adds --json, and expects one object with the given status.
  Struct Json(std::vector<std::string> arguments, int status = 0) const {
    arguments.push_back("--json");
    const Finished finished = Cli(std::move(arguments));
    EXPECT_EQ(finished.status, status) << finished.out << finished.err;
    return Parse(finished.out);
  }
  // Adds --json, and expects one object a line.
  std::vector<Struct> JsonLines(std::vector<std::string> arguments) const {
    arguments.push_back("--json");
    const Finished finished = Cli(std::move(arguments));
    EXPECT_EQ(finished.status, 0) << finished.out << finished.err;
    std::vector<Struct> objects;
    for (const absl::string_view line :
         absl::StrSplit(finished.out, '\n', absl::SkipEmpty())) {
      objects.push_back(Parse(std::string(line)));
    }
    return objects;
  }
  static Struct Parse(const std::string& json) {
    Struct object;
    const auto parsed =
        google::protobuf::util::JsonStringToMessage(json, &object);
    EXPECT_TRUE(parsed.ok()) << parsed.ToString() << "\n" << json;
    EXPECT_TRUE(absl::StartsWith(json, "{\"schema\":\"zcbroker.")) << json;
    EXPECT_TRUE(absl::EndsWith(Text(object, "schema"), "/1")) << json;
    return object;
  }

  static const google::protobuf::Value& At(const Struct& object,
                                           const std::string& field) {
    static const google::protobuf::Value kNone;
    const auto found = object.fields().find(field);
    EXPECT_NE(found, object.fields().end())
        << "no " << field << " in " << object.DebugString();
    return found == object.fields().end() ? kNone : found->second;
  }
  static std::string Text(const Struct& object, const std::string& field) {
    return At(object, field).string_value();
  }

  // An ErrorReport of that reason, and the same status in text.
  void ExpectFails(const std::vector<std::string>& arguments, int status,
                   const std::string& reason) const {
    SCOPED_TRACE(absl::StrCat(arguments[0], " -> ", reason));
    const Struct report = Json(arguments, status);
    EXPECT_EQ(Text(report, "reason"), reason);
    EXPECT_EQ(At(report, "exit_status").number_value(), status);
    EXPECT_NE(Text(report, "message"), "");
    const Finished text = Cli(arguments);
    EXPECT_EQ(text.status, status);
    EXPECT_TRUE(absl::StartsWith(text.err, "zcbroker: ")) << text.err;
    EXPECT_EQ(text.out, "");
  }

  void DefineDemo() const {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  }

  std::vector<std::string> ServiceFiles() const {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(
        opendir(home_.services_dir().c_str()), closedir);
    while (const dirent* entry = readdir(dir.get())) {
      if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
    return names;
  }
};

TEST_F(CliTest, RouteTellsWhereAndHow) {
  DefineDemo();
  StartBroker();
  const Struct first = Json({"route", "demo", "1.0.0"});
  EXPECT_EQ(Text(first, "broker"), socket());
  const Struct& negotiation = At(first, "negotiation").struct_value();
  EXPECT_EQ(Text(negotiation, "origin"), "ROUTE_ORIGIN_STARTED");
  const Struct& route = At(negotiation, "route").struct_value();
  const std::string endpoint = Text(route, "endpoint");
  EXPECT_EQ(Text(route, "version"), "1.0.0");
  EXPECT_EQ(At(negotiation, "steps").list_value().values_size(), 4);

  const Finished text = Cli({"route", "demo", "1.0.0"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_TRUE(absl::StrContains(text.out, endpoint)) << text.out;
  EXPECT_TRUE(absl::StrContains(text.out, "reused")) << text.out;
  EXPECT_EQ(Cli({"route", "demo", "1.0.0", "--only-if-running"}).status, 0);
}

TEST_F(CliTest, PingCountsItsAnswersOnEveryLane) {
  DefineDemo();
  StartBroker();
  for (const char* lane : {"bincode-v15", "prost-v16", "frame-v1"}) {
    const Struct report =
        Json({"ping", "demo", "1.0.0", "--count", "3", "--lane", lane});
    EXPECT_EQ(Text(report, "lane"), lane);
    EXPECT_EQ(At(report, "milliseconds").list_value().values_size(), 3);
    EXPECT_GT(At(report, "median_milliseconds").number_value(), 0);
  }
  const Finished text = Cli({"ping", "demo", "1.0.0", "-n", "2"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_TRUE(absl::StrContains(text.out, "2 of 2 answered")) << text.out;
}

TEST_F(CliTest, CompileIsTheCompiler) {
  DefineDemo();
  StartBroker();
  WriteFile(home_.Entry("work/x.c"), "int x;\n");
  const Finished good =
      Cli({"compile", "--service", "demo", "--", "gcc", "-c", "x.c"});
  EXPECT_EQ(good.status, 0) << good.err;
  EXPECT_NE(ReadFile(home_.Entry("work/x.o")), "");
  EXPECT_EQ(good.err, "") << "it came through the broker";

  WriteFile(home_.Entry("work/bad.c"), "int x\n");
  const Finished bad = Cli({"compile", "--service", "demo", "--wanted", "1.0.0",
                            "--", "gcc", "-c", "bad.c"});
  EXPECT_EQ(bad.status, 1);
  EXPECT_TRUE(absl::StrContains(bad.err, "bad.c:1")) << bad.err;
}

TEST_F(CliTest, StatusShowsBackendsCountersAndProblems) {
  DefineDemo();
  home_.Define("typo", "nam: \"typo\"\n");
  StartBroker();
  ASSERT_EQ(Cli({"route", "demo", "1.0.0"}).status, 0);
  const Struct report = Json({"status"});
  const Struct& status = At(report, "broker").struct_value();
  EXPECT_EQ(Text(status, "version"), kVersion);
  EXPECT_EQ(At(status, "pid").number_value(), broker().process().pid());
  EXPECT_GE(At(status, "problems").list_value().values_size(), 1);
  EXPECT_EQ(Text(At(status, "counters").struct_value(), "backends_started"),
            "1");
  ASSERT_EQ(At(report, "backends").list_value().values_size(), 1);
  EXPECT_EQ(Text(At(report, "backends").list_value().values(0).struct_value(),
                 "state"),
            "BACKEND_STATE_READY");

  const Finished text = Cli({"status"});
  EXPECT_EQ(text.status, 0) << text.err;
  for (const char* part : {"demo 1.0.0  ready", "backends_started 1",
                           "typo.textproto:1:", "connections"}) {
    EXPECT_TRUE(absl::StrContains(text.out, part)) << part << "\n" << text.out;
  }
}

TEST_F(CliTest, AStoppedBrokerIsSaidToBeMuteAndByNumber) {
  StartBroker();
  broker().process().StopWhole();
  const Finished status = Cli({"status"});
  broker().process().Signal(SIGCONT);
  EXPECT_EQ(status.status, 3);
  EXPECT_TRUE(absl::StrContains(status.err, "gives no sign of life"))
      << status.err;
  EXPECT_TRUE(absl::StrContains(
      status.err, absl::StrCat("process ", broker().process().pid())))
      << status.err;
  EXPECT_FALSE(absl::StrContains(status.err, "start one with")) << status.err;
}

TEST_F(CliTest, ServiceAddMakesAServiceAndThenAddsABinary) {
  StartBroker();
  const std::vector<std::string> add = {
      "service",          "add",       "tool",         "--binary",
      BackendProgram(),   "--version", "1.0.0",        "--arg",
      "--endpoint",       "--arg",     "{endpoint}",   "--arg",
      "--report-version", "--arg",     "{version}",    "--env",
      "GREETING=hello",   "--probe",   "zccache-ping", "--lane",
      "frame-v1"};
  const Struct first = Json(add);
  const std::string file = home_.services_dir() + "/tool.textproto";
  EXPECT_EQ(Text(first, "file"), file);
  EXPECT_TRUE(At(first, "reloaded").bool_value());
  EXPECT_EQ(Cli({"route", "tool", "1.0.0"}).status, 0);

  const std::string copy = home_.Entry("work/copy");
  WriteFile(copy, ReadFile(BackendProgram()), true);
  const Finished second =
      Cli({"service", "add", "tool", "--binary", copy, "--version", "2.0.0"});
  EXPECT_EQ(second.status, 0) << second.out << second.err;
  EXPECT_TRUE(absl::StrContains(second.out, file)) << second.out;
  EXPECT_EQ(Cli({"route", "tool", "1.0.0"}).status, 0);
  EXPECT_EQ(Cli({"route", "tool", "2.0.0"}).status, 0);
  EXPECT_TRUE(absl::StrContains(ReadFile(file), "GREETING"));

  // Written beside it and renamed: nothing is left, and it is private.
  EXPECT_EQ(ServiceFiles(), std::vector<std::string>{"tool.textproto"});
  struct stat status;
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);

  const Struct list = Json({"service", "list"});
  const auto& services = At(list, "services").list_value();
  ASSERT_EQ(services.values_size(), 1);
  EXPECT_EQ(At(services.values(0).struct_value(), "versions")
                .list_value()
                .values_size(),
            2);
  EXPECT_TRUE(absl::StrContains(Cli({"service", "list"}).out, "2.0.0, 1.0.0"));
  EXPECT_EQ(Cli({"service", "check"}).status, 0);
  Json({"service", "check"});
}

TEST_F(CliTest, ServiceAddWorksWithoutABroker) {
  const std::string config = home_.Entry("work/config");
  const Struct report = Json({"service", "add", "tool", "--binary",
                              BackendProgram(), "--config-dir", config});
  EXPECT_FALSE(At(report, "reloaded").bool_value());
  // The version is what the binary says.
  EXPECT_TRUE(absl::StrContains(
      Cli({"service", "list", "--config-dir", config}).out, "1.0.0"));
}

TEST_F(CliTest, ServiceAddKeepsWhatWorkedWhenTheChangeHasAMistake) {
  const std::string file = home_.services_dir() + "/tool.textproto";
  ASSERT_EQ(Cli({"service", "add", "tool", "--binary", BackendProgram(),
                 "--version", "1.0.0"})
                .status,
            0);
  const std::string before = ReadFile(file);
  const Finished bad = Cli({"service", "add", "tool", "--binary",
                            BackendProgram(), "--arg", "{bogus}"});
  EXPECT_EQ(bad.status, 1);
  EXPECT_TRUE(absl::StrContains(bad.out, "unknown placeholder {bogus}"))
      << bad.out;
  EXPECT_EQ(ReadFile(file), before);
  // A later word about the same binary keeps its version.
  ASSERT_EQ(Cli({"service", "add", "tool", "--binary", BackendProgram(),
                 "--env", "A=b"})
                .status,
            0);
  EXPECT_TRUE(absl::StrContains(ReadFile(file), "1.0.0"));
  // A service that never was is not left behind half made.
  EXPECT_EQ(Cli({"service", "add", "other", "--binary", BackendProgram(),
                 "--arg", "{bogus}"})
                .status,
            1);
  EXPECT_EQ(ServiceFiles(), std::vector<std::string>{"tool.textproto"});
}

TEST_F(CliTest, ServiceAddsAtOnceLoseNothing) {
  std::vector<std::thread> adding;
  for (int i = 0; i < 8; ++i) {
    const std::string binary = home_.Script(absl::StrCat("b", i), "exit 0");
    adding.emplace_back([this, binary, i] {
      EXPECT_EQ(Cli({"service", "add", "tool", "--binary", binary, "--version",
                     absl::StrCat("1.0.", i)})
                    .status,
                0);
    });
  }
  for (std::thread& one : adding) one.join();
  EXPECT_TRUE(absl::StrContains(
      Cli({"service", "list"}).out,
      "1.0.7, 1.0.6, 1.0.5, 1.0.4, 1.0.3, 1.0.2, 1.0.1, 1.0.0"));
}

TEST_F(CliTest, ServiceAddRefusesMistakes) {
  const auto add = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"service", "add"});
    return Cli(std::move(more)).status;
  };
  const std::string binary = BackendProgram();
  EXPECT_EQ(add({"Bad Name", "--binary", binary}), 2);
  EXPECT_EQ(add({"tool", "--binary", "/nonexistent"}), 2);
  EXPECT_EQ(add({"tool", "--binary", binary, "--version", "1"}), 2);
  EXPECT_EQ(add({"tool", "--binary", binary, "--probe", "hope"}), 2);
  EXPECT_EQ(add({"tool", "--binary", binary, "--lane", "fast"}), 2);
  EXPECT_EQ(add({"tool", "--binary", binary, "--env", "NOVALUE"}), 2);
  EXPECT_EQ(add({"tool"}), 2);
  EXPECT_TRUE(ServiceFiles().empty());
}

TEST_F(CliTest, ServiceAddLosesNothingAPersonWrote) {
  const std::string file = home_.services_dir() + "/tool.textproto";
  const std::string real = home_.Entry("work/tool.textproto");
  const std::string text =
      "# by hand\nname: \"tool\"\nidle_stop { seconds: 9 }\n";
  std::filesystem::create_directories(home_.services_dir());
  WriteFile(real, text);
  ASSERT_EQ(chmod(real.c_str(), 0644), 0);
  ASSERT_EQ(symlink(real.c_str(), file.c_str()), 0);
  // Without binaries, and with a change that has a mistake.
  EXPECT_EQ(Cli({"service", "add", "tool", "--binary", BackendProgram(),
                 "--version", "1.0.0", "--arg", "{bogus}"})
                .status,
            1);
  EXPECT_EQ(ReadFile(real), text);
  const std::string before = file + ".before";
  EXPECT_NE(access(before.c_str(), F_OK), 0);

  const Struct report = Json({"service", "add", "tool", "--binary",
                              BackendProgram(), "--version", "1.0.0"});
  EXPECT_EQ(Text(report, "kept"), before);
  EXPECT_EQ(ReadFile(before), text);
  EXPECT_TRUE(absl::StrContains(ReadFile(real), BackendProgram()));
  struct stat now;
  ASSERT_EQ(lstat(real.c_str(), &now), 0);
  EXPECT_EQ(now.st_mode & 0777, 0644U);
  ASSERT_EQ(lstat(file.c_str(), &now), 0);
  EXPECT_TRUE(S_ISLNK(now.st_mode));
  // Written by hand once more: one that was kept stays, a mistake or not.
  WriteFile(real, ReadFile(real) + "# more\n");
  EXPECT_EQ(Cli({"service", "add", "tool", "--binary", BackendProgram(),
                 "--version", "1.0.0", "--arg", "{bogus}"})
                .status,
            1);
  EXPECT_EQ(Text(Json({"service", "add", "tool", "--binary", BackendProgram(),
                       "--version", "1.0.0"}),
                 "kept"),
            before + "2");
  EXPECT_EQ(ReadFile(before), text);
  // Its own writing is not kept.
  EXPECT_EQ(Text(Json({"service", "add", "tool", "--binary", BackendProgram(),
                       "--version", "2.0.0"}),
                 "kept"),
            "");
}

TEST_F(CliTest, ServiceAddNeedsAHome) {
  const Finished none =
      Cli({"service", "add", "tool", "--binary", BackendProgram()},
          {{"HOME", ""}, {"XDG_CONFIG_HOME", ""}});
  EXPECT_EQ(none.status, 1);
  EXPECT_TRUE(absl::StrContains(none.err, "neither HOME nor XDG_CONFIG_HOME"))
      << none.err;
}

TEST_F(CliTest, WhatCannotBePrintedIsAFailure) {
  StartBroker();
  for (const char* verb : {"status", "metrics", "events"}) {
    const ipc::UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
    ProcessOptions options;
    options.stdout_fd = full.get();
    Process process({CommandLineProgram(), verb}, home_.environment(), options);
    EXPECT_EQ(process.Wait(), 1) << verb;
  }
  // A reader that has enough is none.
  EXPECT_EQ(RunToEnd({"sh", "-c",
                      absl::StrCat(CommandLineProgram(), " metrics | true")},
                     home_.environment())
                .err,
            "");
}

TEST_F(CliTest, ServiceCheckShowsMistakes) {
  home_.Define("typo", "name: \"typo\"\nbinary: 1\n");
  const Struct report = Json({"service", "check"}, 1);
  EXPECT_EQ(At(report, "problems").list_value().values_size(), 1);
  const Finished text = Cli({"service", "check"});
  EXPECT_EQ(text.status, 1);
  EXPECT_TRUE(absl::StrContains(text.out, "typo.textproto:2:")) << text.out;
}

TEST_F(CliTest, ABackendIsStartedDrainedAndStopped) {
  DefineDemo();
  StartBroker();
  const Struct started = Json({"start", "demo", "1.0.0"});
  EXPECT_EQ(Text(started, "state"), "BACKEND_STATE_READY");
  EXPECT_EQ(Text(started, "last_end"), "");
  const Struct drained = Json({"drain", "demo", "1.0.0"});
  EXPECT_EQ(Text(drained, "state"), "BACKEND_STATE_GONE");
  EXPECT_EQ(Text(drained, "last_end"), "drain asked for");
  ASSERT_EQ(Cli({"start", "demo", "1.0.0"}).status, 0);
  const Finished stopped = Cli({"stop", "demo", "1.0.0"});
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  for (const char* part :
       {"demo 1.0.0  gone", "the last one ended: stop asked for"}) {
    EXPECT_TRUE(absl::StrContains(stopped.out, part)) << stopped.out;
  }
  // What it had logged explains nothing here; where the log is, is told.
  EXPECT_FALSE(absl::StrContains(stopped.out, "serving ")) << stopped.out;
  EXPECT_TRUE(absl::StrContains(stopped.out, "      log: ")) << stopped.out;
  for (const char* verb : {"start", "drain", "stop"}) {
    ExpectFails({verb, "nobody", "1.0.0"}, 4, "SERVICE_UNKNOWN");
    ExpectFails({verb, "demo", "9.9.9"}, 5, "VERSION_NOT_INSTALLED");
  }
}

TEST_F(CliTest, UpStartsOneBrokerAndDownEndsIt) {
  DefineDemo();
  const Struct first = Json({"up", "--allow-root"});
  EXPECT_TRUE(At(first, "started").bool_value());
  EXPECT_EQ(Text(first, "endpoint"), socket());
  const auto pid = static_cast<pid_t>(At(first, "pid").number_value());
  EXPECT_TRUE(IsRunning(pid));
  const auto keeper =
      static_cast<pid_t>(At(first, "keeper_pid").number_value());
  EXPECT_TRUE(IsRunning(keeper));
  const Finished second = Cli({"up", "--allow-root"});
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_TRUE(absl::StrContains(second.out,
                                absl::StrCat("runs already, process ", pid)))
      << second.out;
  EXPECT_FALSE(At(Json({"up", "--allow-root"}), "started").bool_value());
  ExpectServesOthers();

  const Struct down = Json({"down"});
  EXPECT_TRUE(At(down, "stopped").bool_value());
  EXPECT_EQ(At(down, "pid").number_value(), pid);
  EXPECT_FALSE(IsRunning(pid));
  EXPECT_FALSE(IsRunning(keeper));
  EXPECT_NE(access(socket().c_str(), F_OK), 0);

  const Finished nobody = Cli({"down"});
  EXPECT_EQ(nobody.status, 0) << nobody.err;
  EXPECT_TRUE(absl::StrContains(nobody.out, "no broker runs"));
  EXPECT_FALSE(At(Json({"down"}), "stopped").bool_value());
}

TEST_F(CliTest, DownWaitsUntilAMuteBrokerIsReplacedAndEndsThatOne) {
  const Struct up = Json({"up", "--allow-root"});
  const auto mute = static_cast<pid_t>(At(up, "pid").number_value());
  const auto keeper = static_cast<pid_t>(At(up, "keeper_pid").number_value());
  StopWhole(mute);
  const Struct down = Json({"down"});
  EXPECT_TRUE(At(down, "stopped").bool_value());
  EXPECT_NE(At(down, "pid").number_value(), mute);
  EXPECT_FALSE(IsRunning(mute));
  EXPECT_FALSE(IsRunning(keeper));
}

// A broker that `up` started, with a backend that takes its time to end.
class SlowEndTest : public CliTest {
 protected:
  SlowEndTest() {
    home_.Define("slow", ReferenceDefinition("slow", {"1.0.0"}, {},
                                             "stop_grace { seconds: 8 }\n"));
    const Struct up = Json({"up", "--allow-root"});
    broker_ = static_cast<pid_t>(At(up, "pid").number_value());
    keeper_ = static_cast<pid_t>(At(up, "keeper_pid").number_value());
    const GrpcAnswer answer = Client().Negotiate("slow", "1.0.0");
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    backend_ = static_cast<pid_t>(answer.response.route().pid());
    // It does not even notice that it is asked to.
    StopWhole(backend_);
    ending_ = std::make_unique<Process>(
        std::vector<std::string>{CommandLineProgram(), "down",
                                 "--stop-backends"},
        home_.environment());
    EXPECT_TRUE(
        ipc::WaitFor([&] { return access(socket().c_str(), F_OK) != 0; },
                     "the broker to leave its names", kPatience));
  }

  pid_t broker_ = 0;
  pid_t keeper_ = 0;
  pid_t backend_ = 0;
  std::unique_ptr<Process> ending_;
};

TEST_F(SlowEndTest, DownWaitsForItToo) {
  const Finished second = Cli({"down"});
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_EQ(second.out, absl::StrCat("the broker was ending already, and has "
                                     "ended (process ",
                                     broker_, ")\n"));
  EXPECT_FALSE(IsRunning(broker_));
  EXPECT_EQ(ending_->Wait(), 0);
}

TEST_F(SlowEndTest, UpWaitsForThePlace) {
  const Struct up = Json({"up", "--allow-root"});
  EXPECT_TRUE(At(up, "started").bool_value());
  EXPECT_FALSE(IsRunning(broker_));
  EXPECT_EQ(ending_->Wait(), 0);
  // The next one answers, and no name leads to what has ended.
  EXPECT_TRUE(Client().Negotiate("slow", "1.0.0").ok());
}

TEST_F(SlowEndTest, ABrokerThatDiesMeanwhileIsNotLeftReplaced) {
  ASSERT_EQ(kill(broker_, SIGKILL), 0);
  EXPECT_EQ(ending_->Wait(), 0);
  EXPECT_FALSE(IsRunning(keeper_));
  EXPECT_NE(access(socket().c_str(), F_OK), 0);
  EXPECT_FALSE(IsRunning(backend_));
}

// Not even where a keeper comes that cannot have the place.
TEST_F(SlowEndTest, NoNameIsLedToABackendOnItsWayOut) {
  Process late({*ipc::ExecutablePath(keeper_), "--broker", BrokerProgram(),
                "--", "--allow-root"},
               home_.environment());
  EXPECT_EQ(late.Wait(), 14);
  EXPECT_EQ(ending_->Wait(), 0);
  EXPECT_NE(
      access(home_.Entry("run/zcbroker/routes/slow/1.0.0.sock").c_str(), F_OK),
      0);
}

TEST_F(CliTest, UpTellsOfADirectoryThatIsNotThereYet) {
  const Finished up = Cli({"up", "--allow-root", "--config-dir", "other"});
  EXPECT_EQ(up.status, 0) << up.err;
  EXPECT_TRUE(absl::StrContains(
      up.err, absl::StrCat("--config-dir: there is no directory ",
                           home_.Entry("work/other/services"))))
      << up.err;
  // They are read once they are there.
  ASSERT_EQ(Cli({"service", "add", "late", "--config-dir", "other", "--binary",
                 BackendProgram(), "--version", "1.0.0"})
                .status,
            0);
  EXPECT_EQ(Cli({"route", "late", "9.9.9"}).status, 5);
}

TEST_F(CliTest, UpSaysWhyABrokerDoesNotStart) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  for (int i = 0; i < 2; ++i) {
    const Finished up = Cli({"up"});
    EXPECT_EQ(up.status, 1);
    EXPECT_TRUE(absl::StrContains(up.err, "--allow-root")) << up.err;
    // What an earlier one said is in the same log.
    const std::vector<std::string> parts = absl::StrSplit(up.err, "as root");
    EXPECT_EQ(parts.size(), 2U) << up.err;
  }
}

// --- Exit statuses

TEST_F(CliTest, NoBrokerIsThree) {
  ExpectFails({"route", "demo", "1.0.0"}, 3, "broker_missing");
  ExpectFails({"ping", "demo", "1.0.0"}, 3, "broker_missing");
  ExpectFails({"status"}, 3, "broker_missing");
  const Finished status = Cli({"status"});
  EXPECT_TRUE(absl::StartsWith(status.err, "zcbroker: no broker runs: "))
      << status.err;
  EXPECT_TRUE(absl::StrContains(status.err, "zcbroker up")) << status.err;
}

TEST_F(CliTest, APlaceThatCannotBeUsedIsToBeMendedNotStartedIn) {
  StartBroker();
  const std::string place = socket().substr(0, socket().rfind('/'));
  ASSERT_EQ(chmod(place.c_str(), 0755), 0);
  const Finished status = Cli({"status"});
  ASSERT_EQ(chmod(place.c_str(), 0700), 0);
  EXPECT_EQ(status.status, 3);
  EXPECT_TRUE(absl::StrContains(status.err, "chmod 700")) << status.err;
  EXPECT_FALSE(absl::StrContains(status.err, "start one with")) << status.err;
}

TEST_F(CliTest, WrongUsageIsTwo) {
  EXPECT_EQ(Cli({}).status, 2);
  EXPECT_EQ(Cli({"nosuch"}).status, 2);
  EXPECT_EQ(Cli({"route", "demo"}).status, 2);
  EXPECT_EQ(Cli({"route", "demo", "1.0.0", "--nosuch"}).status, 2);
  EXPECT_EQ(Cli({"service"}).status, 2);
  EXPECT_EQ(Cli({"ping", "demo", "1.0.0", "--count", "0"}).status, 2);
  const Finished missing = Cli({"route", "demo"});
  EXPECT_TRUE(absl::StartsWith(missing.err, "zcbroker: ")) << missing.err;
  EXPECT_TRUE(absl::EndsWith(missing.err, "see zcbroker route --help\n"))
      << missing.err;
  EXPECT_EQ(Cli({"service", "nosuch"}).err,
            "zcbroker: there is no command 'nosuch'; see zcbroker service "
            "--help\n");
  for (const char* verb : {"compile", "exec"}) {
    const Finished unmarked = Cli({verb, "gcc", "-c", "x.c"});
    EXPECT_EQ(unmarked.status, 2);
    EXPECT_TRUE(absl::StrContains(unmarked.err, "-- gcc ...")) << unmarked.err;
  }
}

TEST_F(CliTest, ARefusalSaysNothingTwice) {
  home_.Define("opaque",
               PlainDefinition("opaque", BackendProgram(),
                               "args: \"--endpoint\" args: \"{endpoint}\"\n"));
  StartBroker();
  const Finished refused =
      Cli({"ping", "opaque", "1.0.0", "--lane", "frame-v1"});
  EXPECT_EQ(refused.status, 13);
  const size_t first = refused.err.find("WIRE_LANE_OPAQUE");
  ASSERT_NE(first, std::string::npos) << refused.err;
  EXPECT_EQ(refused.err.find("WIRE_LANE_OPAQUE", first + 1), std::string::npos)
      << refused.err;
}

TEST_F(CliTest, LongEvidenceOfARefusalArrives) {
  home_.Define("bad", PlainDefinition("bad", home_.Script("bad", R"(
for line in $(seq 40); do printf "line $line %0400d\n" 0; done
exit 3)")));
  StartBroker();
  const Finished refused = Cli({"route", "bad", "1.0.0"});
  EXPECT_EQ(refused.status, 8) << refused.err;
  EXPECT_TRUE(absl::StrContains(refused.err, "\n  line 40 000")) << refused.err;
  EXPECT_FALSE(absl::StrContains(refused.err, "\n  line 1 ")) << refused.err;
}

TEST_F(CliTest, OnlyWhatARefusalSaysIsLeftOutOfItsEvidence) {
  home_.Define("bad", PlainDefinition("bad", home_.Script("bad", R"(
printf "one\nready\ntwo\n"
exit 3)")));
  StartBroker();
  const Finished refused = Cli({"route", "bad", "1.0.0"});
  EXPECT_EQ(refused.status, 8);
  // Its sentence ends with that word.
  EXPECT_TRUE(absl::StrContains(refused.err, " before it was ready\n"))
      << refused.err;
  EXPECT_TRUE(absl::StrContains(refused.err, "  one\n  ready\n  two\n"))
      << refused.err;
}

TEST_F(CliTest, AWorldIsSaidOnce) {
  home_.Define("cache",
               ReferenceDefinition("cache", {"1.0.0"}, {},
                                   "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  StartBroker();
  const Finished refused =
      Cli({"route", "cache", "1.0.0"}, {{"ZCCACHE_CACHE_DIR", "/no\tplace"}});
  EXPECT_EQ(refused.status, 7) << refused.err;
  const size_t first = refused.err.find("cache directory: yours is");
  ASSERT_NE(first, std::string::npos) << refused.err;
  EXPECT_EQ(refused.err.find("cache directory: yours is", first + 1),
            std::string::npos)
      << refused.err;
}

TEST_F(CliTest, AnUpThatChangesNothingSaysSo) {
  StartBroker();
  const Finished plain = Cli({"up", "--allow-root"});
  EXPECT_EQ(plain.status, 0);
  EXPECT_EQ(plain.err, "");
  const Finished up =
      Cli({"up", "--allow-root", "--no-claim", "--metrics-port", "9"});
  EXPECT_EQ(up.status, 0);
  EXPECT_TRUE(absl::StrContains(
      up.err, "nothing is changed by --no-claim, --metrics-port"))
      << up.err;
}

TEST_F(CliTest, ALineOfProgressFitsTheTerminal) {
  home_.Define("slow", PlainDefinition("slow", home_.Script("slow", R"(
sleep 3
exit 3)")));
  StartBroker();
  const auto written = [&](const std::string& terminal) {
    int ends[2];
    const winsize size{24, 20, 0, 0};
    EXPECT_EQ(openpty(&ends[0], &ends[1], nullptr, nullptr, &size), 0);
    const ipc::UniqueFd master(ends[0]);
    ProcessOptions options;
    Environment environment = home_.environment();
    environment["TERM"] = terminal;
    options.stderr_fd = ends[1];
    Process exec({CommandLineProgram(), "exec", "--allow-root", "--service",
                  "slow", "--", "true"},
                 environment, options);
    EXPECT_EQ(exec.Wait(), 0);
    close(ends[1]);
    std::string text(16384, '\0');
    text.resize(std::max<ssize_t>(read(ends[0], &text[0], text.size()), 0));
    return text;
  };
  EXPECT_TRUE(absl::StrContains(written("xterm"),
                                "\r\x1b[Kzcbroker: waiting f\r\x1b[K"));
  EXPECT_FALSE(absl::StrContains(written("dumb"), "\x1b["));
}

TEST_F(CliTest, RefusalsHaveTheStatusesOfTheTable) {
  DefineDemo();
  home_.Define("bad", PlainDefinition("bad", home_.Script("bad", "exit 3")));
  home_.Define("opaque",
               PlainDefinition("opaque", BackendProgram(),
                               "args: \"--endpoint\" args: \"{endpoint}\"\n"));
  home_.Define("cache",
               ReferenceDefinition("cache", {"1.0.0"}, {},
                                   "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  home_.DefineUpstream("legacy", BackendProgram(), "3.2.1");
  StartBroker();
  ExpectFails({"route", "Demo", "1.0.0"}, 2, "SERVICE_NAME_INVALID");
  ExpectFails({"route", "demo", "one"}, 2, "VERSION_INVALID");
  ExpectFails({"route", "nosuch", "1.0.0"}, 4, "SERVICE_UNKNOWN");
  ExpectFails({"route", "demo", "9.9.9"}, 5, "VERSION_NOT_INSTALLED");
  ExpectFails({"route", "legacy", "3.0.0"}, 6, "VERSION_BLOCKED");
  ExpectFails({"route", "bad", "1.0.0"}, 8, "BACKEND_START_FAILED");
  ExpectFails({"ping", "opaque", "1.0.0", "--lane", "frame-v1"}, 13,
              "LANE_UNSUPPORTED");
  const Finished elsewhere =
      Cli({"route", "cache", "1.0.0"}, {{"ZCCACHE_CACHE_DIR", "/no\tplace"}});
  EXPECT_EQ(elsewhere.status, 7) << elsewhere.err;
  EXPECT_TRUE(absl::StrContains(elsewhere.err, "cache directory: yours is"))
      << elsewhere.err;
  EXPECT_EQ(Cli({"route", "cache", "1.0.0"}).status, 0);

  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        return Client().Negotiate("bad", "1.0.0").reason == "BACKEND_BROKEN";
      },
      "five failures", kPatience));
  ExpectFails({"route", "bad", "1.0.0"}, 9, "BACKEND_BROKEN");
}

// --- Help

TEST_F(CliTest, EveryVerbsHelpMentionsItsOptions) {
  const std::vector<
      std::pair<std::vector<std::string>, std::vector<std::string>>>
      verbs = {
          {{"route"}, {"SERVICE", "VERSION", "--only-if-running", "--json"}},
          {{"ping"},
           {"SERVICE", "VERSION", "--count", "--lane", "--only-if-running",
            "--json"}},
          {{"compile"}, {"--service", "--wanted", "COMMAND"}},
          {{"status"}, {"--json"}},
          {{"service"}, {"add", "list", "check"}},
          {{"service", "add"},
           {"NAME", "--binary", "--version", "--arg", "--env", "--probe",
            "--lane", "--config-dir", "--json"}},
          {{"service", "list"}, {"--config-dir", "--json"}},
          {{"service", "check"}, {"--config-dir", "--json"}},
          {{"exec"},
           {"--service", "--wanted", "--config-dir", "--allow-root",
            "COMMAND"}},
          {{"env"},
           {"--service", "--wanted", "--config-dir", "--allow-root", "--shell",
            "--json"}},
          {{"explain"}, {"--service", "--wanted", "--all", "--json"}},
          {{"doctor"}, {"--service", "--wanted", "--config-dir", "--json"}},
          {{"events"}, {"--follow", "--after", "--json"}},
          {{"metrics"}, {"--json"}},
          {{"report"}, {"FILE", "--since", "--for", "--json"}},
          {{"restart"}, {"SERVICE", "VERSION", "--json"}},
          {{"logs"}, {"SERVICE", "VERSION", "--lines", "--follow", "--json"}},
          {{"top"}, {"--interval", "--rounds", "--json"}},
          {{"up"}, {"--config-dir", "--allow-root", "--json"}},
          {{"down"}, {"--stop-backends", "--json"}},
      };
  for (const auto& [verb, words] : verbs) {
    std::vector<std::string> arguments = verb;
    arguments.emplace_back("--help");
    const Finished help = Cli(arguments);
    EXPECT_EQ(help.status, 0) << verb.back();
    for (const std::string& word : words) {
      EXPECT_TRUE(absl::StrContains(help.out, word))
          << word << " in the help of " << verb.back() << "\n"
          << help.out;
    }
  }
  const Finished top = Cli({"--help"});
  EXPECT_EQ(top.status, 0);
  // Not by the path it was called by.
  EXPECT_TRUE(absl::StrContains(top.out, "\nUsage: zcbroker [")) << top.out;
  for (const char* word : {"route", "ping", "compile", "exec", "env", "explain",
                           "doctor", "status", "events", "metrics", "report",
                           "service", "up", "down", "Exit statuses"}) {
    EXPECT_TRUE(absl::StrContains(top.out, word)) << word;
  }
}

TEST_F(CliTest, ServiceRemoveTakesADefinitionAway) {
  DefineDemo();
  StartBroker();
  ASSERT_EQ(Cli({"route", "demo", "1.0.0"}).status, 0);
  const Struct report = Json({"service", "remove", "demo"});
  EXPECT_EQ(Text(report, "file"), home_.services_dir() + "/demo.textproto");
  EXPECT_TRUE(At(report, "reloaded").bool_value());
  EXPECT_EQ(Cli({"route", "demo", "1.0.0"}).status, 4);
  EXPECT_EQ(ServiceFiles(), std::vector<std::string>());
  const Finished again = Cli({"service", "remove", "demo"});
  EXPECT_EQ(again.status, 1);
  EXPECT_TRUE(absl::StartsWith(again.err, "zcbroker: there is no "))
      << again.err;
  EXPECT_EQ(Cli({"service", "remove", "../demo"}).status, 2);
}

TEST_F(CliTest, LogsAreThoseOfTheService) {
  home_.Define(
      "talker",
      PlainDefinition("talker", home_.Script("talker", "echo spoken; exit 3")));
  DefineDemo();
  StartBroker();
  EXPECT_EQ(Cli({"route", "talker", "1.0.0"}).status, 8);
  EXPECT_EQ(Cli({"route", "demo", "1.0.0"}).status, 0);
  const Finished logs = Cli({"logs", "talker"});
  EXPECT_EQ(logs.status, 0) << logs.err;
  EXPECT_TRUE(absl::StrContains(logs.out, "spoken\n")) << logs.out;
  EXPECT_EQ(Cli({"logs", "talker", "1.0.0", "-n", "0"}).out, "");
  // Also when nothing runs any more.
  StopBroker();
  EXPECT_TRUE(
      absl::StrContains(Cli({"logs", "talker", "1.0.0"}).out, "spoken"));
  for (const std::vector<std::string>& nobody :
       {std::vector<std::string>{"logs", "talk"},
        {"logs", "talker", "2.0.0"}}) {
    const Finished none = Cli(nobody);
    EXPECT_EQ(none.status, 1);
    EXPECT_TRUE(absl::StartsWith(none.err, "zcbroker: no log of ")) << none.err;
  }
}

class LogLinesTest : public CliTest {
 protected:
  std::string LogFile(const std::string& version) const {
    const std::string directory = home_.Entry("state/zcbroker/log");
    std::filesystem::create_directories(directory);
    return absl::StrCat(directory, "/talker-", version, ".log");
  }
};

TEST_F(LogLinesTest, EachIsAnObject) {
  const std::string wide(100'000, 'w');
  for (const auto& [version, text] :
       std::vector<std::pair<std::string, std::string>>{
           {"1.0.0", "gr\xc3\xbc\xc3\x9f\xc3\x9f\nb\xfcro\n\nlast"},
           {"2.0.0", wide + "\n"}}) {
    WriteFile(LogFile(version), text);
  }
  std::map<std::string, std::vector<std::string>> texts;
  for (const Struct& line : JsonLines({"logs", "talker"})) {
    EXPECT_EQ(Text(line, "schema"), "zcbroker.cli.LogLine/1");
    EXPECT_EQ(Text(line, "service"), "talker");
    EXPECT_EQ(Text(line, "log_file"), LogFile(Text(line, "version")));
    texts[Text(line, "version")].push_back(Text(line, "text"));
  }
  EXPECT_THAT(texts["1.0.0"],
              ::testing::ElementsAre("gr\xc3\xbc\xc3\x9f\xc3\x9f", "b\\xfcro",
                                     "", "last"));
  EXPECT_THAT(texts["2.0.0"], ::testing::ElementsAre(wide.substr(0, 65536),
                                                     wide.substr(65536)));
  EXPECT_THAT(JsonLines({"logs", "talker", "1.0.0", "-n", "1"}),
              ::testing::SizeIs(1));
  EXPECT_EQ(Text(Json({"logs", "talk"}, 1), "schema"),
            "zcbroker.cli.ErrorReport/1");
  ASSERT_EQ(symlink("nowhere", LogFile("3.0.0").c_str()), 0);
  const Finished dangling = Cli({"logs", "talker", "3.0.0", "--json"});
  EXPECT_EQ(dangling.status, 1);
  EXPECT_EQ(Text(Parse(dangling.out), "schema"), "zcbroker.cli.ErrorReport/1");
}

TEST_F(LogLinesTest, AnUnreadableDirectoryBesideThemIsPassedOver) {
  WriteFile(LogFile("1.0.0"), "here\n");
  const std::string closed = LogFile("1.0.0") + ".d";
  ASSERT_EQ(mkdir(closed.c_str(), 0), 0);
  std::vector<std::string> words = {CommandLineProgram(), "logs", "talker"};
  if (geteuid() == 0) {
    // Root may read it.
    words.insert(words.begin(),
                 {"setpriv", "--bounding-set=-all", "--inh-caps=-all"});
  }
  EXPECT_EQ(RunToEnd(words, home_.environment()).out, "here\n");
}

TEST_F(LogLinesTest, ANameThatIsNoneIsWrongUsage) {
  EXPECT_EQ(Cli({"logs", "Talker"}).status, 2);
}

TEST_F(LogLinesTest, NoTerminalObeysThem) {
  struct {
    std::string written;
    std::string shown;
  } const kRows[] = {
      {"\x1b[1;31mred\x1b[0m", "red"},
      {"\x1b]0;title\x07"
       "a\x1b]0;title\x1b\\b\x1b(B\x1b",
       "ab"},
      {"a\rb\tc\x7f", "a\\x0db\tc\\x7f"},
      {"\xc2\x9b"
       "2J\xc3\xa9",
       "\\xc2\\x9b2J\xc3\xa9"},
      {"\x1b[31", ""},
  };
  for (const auto& row : kRows) {
    WriteFile(LogFile("1.0.0"), row.written + "\n");
    EXPECT_EQ(Cli({"logs", "talker"}).out, row.shown + "\n");
    EXPECT_EQ(Text(JsonLines({"logs", "talker"})[0], "text"), row.shown);
  }
}

TEST_F(LogLinesTest, LongOnesAreCutBetweenCharacters) {
  const std::string most(65536, 'w');
  WriteFile(LogFile("1.0.0"), most + "\n");
  EXPECT_EQ(JsonLines({"logs", "talker"}).size(), 1U);
  std::string wide = "x";
  for (int i = 0; i < 40000; ++i) wide += "\xc3\xa9";
  WriteFile(LogFile("1.0.0"), wide + "\n");
  std::string together;
  for (const Struct& line : JsonLines({"logs", "talker"})) {
    together += Text(line, "text");
  }
  EXPECT_EQ(together, wide);
}

TEST_F(LogLinesTest, OfSeveralFilesHaveHeadings) {
  WriteFile(LogFile("1.0.0"), "one\n");
  EXPECT_EQ(Cli({"logs", "talker"}).out, "one\n");
  WriteFile(LogFile("2.0.0"), "two\n");
  const std::string both = Cli({"logs", "talker"}).out;
  for (const char* version : {"1.0.0", "2.0.0"}) {
    EXPECT_TRUE(absl::StrContains(
        both, absl::StrCat("==> ", LogFile(version), " <==\n",
                           version[0] == '1' ? "one\n" : "two\n")))
        << both;
  }
}

// And what the lines come from ends with who reads them.
TEST_F(LogLinesTest, AreFollowed) {
  const std::string log = LogFile("1.0.0");
  WriteFile(log, "first\n");
  const std::string out = home_.Entry("work/lines");
  const auto follower = StartInto(out, {"logs", "talker", "-f", "--json"});
  const auto await = [&](const std::string& text) {
    return ipc::WaitFor([&] { return absl::StrContains(ReadFile(out), text); },
                        text, kPatience);
  };
  ASSERT_TRUE(await("\"first\""));
  ASSERT_EQ(rename(log.c_str(), (log + ".1").c_str()), 0);
  WriteFile(log, "second\n");
  ASSERT_TRUE(await("\"second\""));
  pid_t tail = -1;
  ASSERT_TRUE(absl::SimpleAtoi(
      ReadFile(absl::StrCat("/proc/", follower->pid(), "/task/",
                            follower->pid(), "/children")),
      &tail));
  ASSERT_TRUE(IsRunning(tail));
  follower->Signal(SIGKILL);
  follower->Wait();
  EXPECT_TRUE(
      ipc::WaitFor([&] { return !IsRunning(tail); }, "its end", kPatience));
}

TEST_F(LogLinesTest, FollowingEndsWithTheReader) {
  WriteFile(LogFile("1.0.0"), "only\n");
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ipc::UniqueFd reader(ends[0]);
  ipc::UniqueFd writer(ends[1]);
  ProcessOptions options;
  options.stdout_fd = writer.get();
  Process follower({CommandLineProgram(), "logs", "talker", "-f"},
                   home_.environment(), options);
  writer.reset();
  char line[5];
  ASSERT_EQ(read(reader.get(), line, sizeof(line)), 5);
  // Nothing is written any more that would tell.
  reader.reset();
  EXPECT_EQ(follower.Wait(), 0);
}

TEST_F(CliTest, WithoutAHomeNothingIsStarted) {
  const Finished up =
      Cli({"up", "--allow-root"}, {{"HOME", ""}, {"XDG_STATE_HOME", ""}});
  EXPECT_EQ(up.status, 1);
  EXPECT_TRUE(absl::StrContains(up.err, "neither HOME nor XDG_STATE_HOME"))
      << up.err;
}

TEST_F(CliTest, RestartGivesAnotherProcess) {
  DefineDemo();
  StartBroker();
  const Struct first = Json({"start", "demo", "1.0.0"});
  const Struct second = Json({"restart", "demo", "1.0.0"});
  EXPECT_EQ(Text(second, "state"), "BACKEND_STATE_READY");
  EXPECT_NE(At(At(first, "route").struct_value(), "pid").number_value(),
            At(At(second, "route").struct_value(), "pid").number_value());
}

TEST_F(CliTest, TopShowsBackendsAndRates) {
  DefineDemo();
  StartBroker();
  ASSERT_EQ(Cli({"route", "demo", "1.0.0"}).status, 0);
  const Finished top = Cli({"top", "--rounds", "1"});
  EXPECT_EQ(top.status, 0) << top.err;
  for (const char* part :
       {"zcbrokerd ", "negotiations 0/s", "demo         1.0.0        ready"}) {
    EXPECT_TRUE(absl::StrContains(top.out, part)) << part << "\n" << top.out;
  }
  // No terminal: nothing is cleared.
  EXPECT_FALSE(absl::StrContains(top.out, "\x1b")) << top.out;

  const std::vector<Struct> looks = JsonLines({"top", "--rounds", "2"});
  ASSERT_EQ(looks.size(), 2U);
  for (const Struct& look : looks) {
    EXPECT_EQ(Text(look, "schema"), "zcbroker.cli.TopReport/1");
    EXPECT_EQ(Text(look, "version"), kVersion);
    EXPECT_EQ(At(look, "pid").number_value(), broker().process().pid());
    EXPECT_GT(At(look, "seconds").number_value(), 0.9);
    ASSERT_EQ(At(look, "backends").list_value().values_size(), 1);
    const Struct& row =
        At(look, "backends").list_value().values(0).struct_value();
    EXPECT_EQ(Text(row, "service"), "demo");
    EXPECT_EQ(Text(row, "state"), "BACKEND_STATE_READY");
    EXPECT_GE(At(row, "cpu_percent").number_value(), 0);
  }
  StopBroker();
  EXPECT_EQ(Text(Json({"top"}, 3), "schema"), "zcbroker.cli.ErrorReport/1");
}

TEST_F(CliTest, EventsAreOneALine) {
  DefineDemo();
  StartBroker();
  ASSERT_EQ(Cli({"route", "demo", "1.0.0"}).status, 0);
  const Finished text = Cli({"events"});
  EXPECT_EQ(text.status, 0) << text.err;
  for (const char* part :
       {"  broker started  process ", "  backend starting  demo 1.0.0  ",
        "  backend ready  demo 1.0.0  process ", "spawn "}) {
    EXPECT_TRUE(absl::StrContains(text.out, part)) << part << text.out;
  }
  int sequence = 1;
  for (const Struct& event : JsonLines({"events", "--after", "1"})) {
    EXPECT_EQ(Text(event, "sequence"), absl::StrCat(++sequence));
  }
  EXPECT_EQ(sequence, 4);
  EXPECT_TRUE(absl::EndsWith(Cli({"metrics"}).out, "\n# EOF\n"));
}

// Whoever follows is told that the broker ended, by words and status.
TEST_F(CliTest, WhoFollowsEventsIsToldOfTheEnd) {
  DefineDemo();
  StartBroker();
  const std::string out = home_.Entry("work/events");
  const auto follower = StartInto(out, {"events", "--follow"});
  ASSERT_TRUE(ipc::WaitFor(
      [&] { return absl::StrContains(ReadFile(out), "broker started"); },
      "the first event", kPatience));
  StopBroker();
  EXPECT_EQ(follower->Wait(), 11);
  EXPECT_TRUE(absl::StrContains(ReadFile(out), "broker stopping"));
}

// However long nothing has happened before.
TEST_F(CliTest, WhoWatchesGoesOnWithTheNextBroker) {
  DefineDemo();
  const Struct up = Json({"up", "--allow-root"});
  const auto broker = static_cast<pid_t>(At(up, "pid").number_value());
  const std::string last = Text(JsonLines({"events"}).back(), "sequence");
  const std::string events_out = home_.Entry("work/events");
  const std::string looks_out = home_.Entry("work/looks");
  const auto events = StartInto(events_out, {"events", "-f", "--after", last});
  const auto top = StartInto(looks_out, {"top", "--json", "--rounds", "6"});
  const auto looks = [&] {
    const std::string text = ReadFile(looks_out);
    return std::count(text.begin(), text.end(), '\n');
  };
  ASSERT_TRUE(ipc::WaitFor([&] { return looks() >= 4; }, "looks", kPatience));
  ASSERT_EQ(ReadFile(events_out), "");
  ASSERT_EQ(kill(broker, SIGKILL), 0);
  EXPECT_EQ(top->Wait(), 0);
  EXPECT_EQ(looks(), 6);
  EXPECT_TRUE(ipc::WaitFor(
      [&] { return absl::StrContains(ReadFile(events_out), "broker started"); },
      "the next broker's events", kPatience));
  events->Signal(SIGTERM);
  events->Wait();
}

// A broker that takes nobody is not asked without end.
TEST_F(CliTest, WhoFollowsEventsGivesUpOnABrokerThatTakesNobody) {
  DefineDemo();
  StartBroker();
  const std::string out = home_.Entry("work/events");
  const std::string err = home_.Entry("work/errors");
  const ipc::UniqueFd file(
      open(out.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const ipc::UniqueFd errors(
      open(err.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ProcessOptions options;
  options.stdout_fd = file.get();
  options.stderr_fd = errors.get();
  Process follower({CommandLineProgram(), "events", "--follow"},
                   home_.environment(), options);
  ASSERT_TRUE(ipc::WaitFor(
      [&] { return absl::StrContains(ReadFile(out), "broker started"); },
      "the first event", kPatience));
  broker().process().Signal(SIGKILL);
  EXPECT_EQ(AwaitBrokersEnd(), 128 + SIGKILL);
  // Whoever is there now accepts and closes.
  ASSERT_EQ(unlink(socket().c_str()), 0);
  auto closing = ipc::Listener::Bind(*ipc::Endpoint::Parse(socket()));
  ASSERT_TRUE(closing.ok()) << closing.status();
  int closed = 0;
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        const auto peer = closing->Accept();
        closed += peer.ok() && peer->has_value() ? 1 : 0;
        return !IsRunning(follower.pid());
      },
      "its end", kPatience));
  EXPECT_NE(follower.Wait(), 0);
  EXPECT_LT(closed, 500);
  EXPECT_FALSE(absl::StrContains(ReadFile(err), "another broker"))
      << ReadFile(err);
}

TEST_F(CliTest, VersionIsPrinted) {
  EXPECT_EQ(Cli({"--version"}).out, absl::StrCat("zcbroker ", kVersion, "\n"));
  const Finished broker =
      RunToEnd({BrokerProgram(), "--version"}, home_.environment());
  EXPECT_EQ(broker.out, absl::StrCat("zcbrokerd ", kVersion, "\n"));
}

}  // namespace
}  // namespace zcbroker::testing
