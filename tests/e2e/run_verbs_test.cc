// exec, env and explain, as a person or a script uses them, and the keeper that
// `up` starts.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

class RunVerbsTest : public BrokerTest {
 protected:
  RunVerbsTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "2.0.0"}));
  }
  ~RunVerbsTest() override {
    // A broker that `exec` or `up` started is nobody's object.
    Cli({"down", "--stop-backends"});
  }

  Finished Cli(std::vector<std::string> arguments,
               const Environment& more = {}) const {
    Environment environment = home_.environment();
    for (const auto& [name, value] : more) environment[name] = value;
    arguments.insert(arguments.begin(), CommandLineProgram());
    return RunToEnd(std::move(arguments), environment, home_.Entry("work"));
  }
  // exec of the demo service, then `words`.
  Finished Exec(std::vector<std::string> options,
                const std::vector<std::string>& words,
                const Environment& more = {}) const {
    options.insert(options.begin(), {"exec", "--allow-root"});
    options.emplace_back("--");
    options.insert(options.end(), words.begin(), words.end());
    return Cli(std::move(options), more);
  }
  Struct Json(std::vector<std::string> arguments,
              const Environment& more = {}) const {
    arguments.emplace_back("--json");
    const Finished finished = Cli(std::move(arguments), more);
    EXPECT_EQ(finished.status, 0) << finished.out << finished.err;
    Struct object;
    EXPECT_TRUE(
        google::protobuf::util::JsonStringToMessage(finished.out, &object).ok())
        << finished.out;
    return object;
  }
  static std::string Text(const Struct& object, const std::string& field) {
    const auto found = object.fields().find(field);
    return found == object.fields().end() ? "(none)"
                                          : found->second.string_value();
  }
  // "outcome: evidence" of a step of `explain`.
  static std::string Step(const Struct& report, const std::string& name) {
    for (const Value& value :
         report.fields().at("steps").list_value().values()) {
      const Struct& step = value.struct_value();
      if (Text(step, "name") == name) {
        return absl::StrCat(Text(step, "outcome"), ": ",
                            Text(step, "evidence"));
      }
    }
    return "(not looked at)";
  }
  std::string Route(const std::string& version) const {
    return home_.Entry(
        absl::StrCat("run/zcbroker/routes/demo/", version, ".sock"));
  }

  const std::vector<std::string> kDemo = {"--service", "demo"};
  const std::string kPrint =
      "echo $ZCCACHE_ENDPOINT; echo $ZCCACHE_STATUS_PROBE_TIMEOUT_SECS";
};

// --- exec

TEST_F(RunVerbsTest, ExecStartsABrokerAndNamesTheNewestVersionsRoute) {
  const Finished run = Exec(kDemo, {"sh", "-c", kPrint});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, absl::StrCat(Route("2.0.0"), "\n30\n"));
  EXPECT_TRUE(absl::StrContains(run.err, "started a broker")) << run.err;
  // The second time one runs, and nothing is said.
  const Finished again =
      Exec({"--service", "demo", "--wanted", "1.0.0"}, {"sh", "-c", kPrint});
  EXPECT_EQ(again.out, absl::StrCat(Route("1.0.0"), "\n30\n"));
  EXPECT_EQ(again.err, "");
  EXPECT_EQ(Client().Backends().size(), 2U);
}

TEST_F(RunVerbsTest, ExecWaitsForDefinitionsThatANewBrokerIsStillReading) {
  // It is asked for its version, and takes its time to tell.
  const std::string slow = home_.Script(
      "slow", absl::StrCat("if [ \"$1\" = --version ]; then sleep 0.5; echo "
                           "slow 3.0.0; exit; fi\nexec ",
                           BackendProgram(), " --report-version 3.0.0 \"$@\""));
  home_.Define("slow", absl::StrCat("name: \"slow\"\nbinaries { path: \"", slow,
                                    "\" }\nargs: \"--endpoint\" args: "
                                    "\"{endpoint}\"\n"
                                    "lanes: WIRE_LANE_FRAME_V1\n"));
  const Finished run =
      Exec({"--service", "slow"}, {"sh", "-c", "echo $ZCCACHE_ENDPOINT"});
  EXPECT_TRUE(absl::StrContains(run.out, "routes/slow/3.0.0.sock"))
      << run.out << run.err;
}

TEST_F(RunVerbsTest, ExecKeepsAPatienceThatIsSet) {
  const Finished run = Exec(kDemo, {"sh", "-c", kPrint},
                            {{"ZCCACHE_STATUS_PROBE_TIMEOUT_SECS", "7"}});
  EXPECT_EQ(run.out, absl::StrCat(Route("2.0.0"), "\n7\n"));
}

TEST_F(RunVerbsTest, ExecIsTheCommand) {
  StartBroker();
  EXPECT_EQ(Exec(kDemo, {"sh", "-c", "exit 42"}).status, 42);
  EXPECT_EQ(Exec(kDemo, {"sh", "-c", "kill -9 $$"}).status, 128 + SIGKILL);
  EXPECT_EQ(Exec(kDemo, {"printf", "%s|", "a b", "--json", "-x", ""}).out,
            "a b|--json|-x||");
  EXPECT_EQ(Exec(kDemo, {"no-such-command"}).status, 127);
  EXPECT_EQ(Exec(kDemo, {home_.path()}).status, 126);
  // What we ignore is not ignored there.
  EXPECT_EQ(Exec(kDemo, {"sh", "-c", "kill -s PIPE $$"}).status, 128 + SIGPIPE);
}

TEST_F(RunVerbsTest, ExecPassesDescriptorsOnAndAddsNone) {
  StartBroker();
  // As make hands its jobserver down; found by number.
  const std::string list =
      "for n in /proc/self/fd/*; do printf '%s ' ${n##*/}; done";
  const Finished plain =
      RunToEnd({"sh", "-c", list}, home_.environment(), home_.path());
  EXPECT_EQ(Exec(kDemo, {"sh", "-c", list}).out, plain.out);
  const Finished nested = RunToEnd(
      {"sh", "-c",
       absl::StrCat("exec 7</dev/zero; exec ", CommandLineProgram(),
                    " exec --service demo -- head -c 3 /proc/self/fd/7")},
      home_.environment(), home_.path());
  EXPECT_EQ(nested.out, std::string(3, '\0')) << nested.err;
}

TEST_F(RunVerbsTest, NothingWeDoFailsTheCommand) {
  const auto expect_plain = [&](const Finished& run, const char* why) {
    EXPECT_EQ(run.status, 5) << why;
    EXPECT_EQ(run.out, "none\n") << why;
    EXPECT_TRUE(absl::StrContains(run.err, "without the broker"))
        << why << ": " << run.err;
  };
  const std::vector<std::string> command = {
      "sh", "-c", "echo ${ZCCACHE_ENDPOINT-none}; exit 5"};
  home_.Define("bad", PlainDefinition("bad", home_.Script("bad", "exit 3")));
  expect_plain(Exec({"--service", "nosuch"}, command), "unknown service");
  expect_plain(Exec({"--service", "demo", "--wanted", "9.9.9"}, command),
               "not installed");
  expect_plain(Exec({"--service", "bad", "--wanted", "1.0.0"}, command),
               "does not start");
  Cli({"down", "--stop-backends"});
  expect_plain(Exec(kDemo, command, {{"XDG_STATE_HOME", "/proc/nowhere"}}),
               "no broker can be started");
  if (geteuid() != 0) return;
  Finished refused = Cli({"exec", "--service", "demo", "--", "sh", "-c",
                          "echo ${ZCCACHE_ENDPOINT-none}; exit 5"});
  expect_plain(refused, "root");
}

TEST_F(RunVerbsTest, TheCommandsWordsAreItsOwn) {
  StartBroker();
  EXPECT_EQ(Exec(kDemo, {"printf", "<%s>", "[]", "[1,2]", "[a b]", "", "--",
                         "--json", "-h", "*", "%s"})
                .out,
            "<[]><[1,2]><[a b]><><--><--json><-h><*><%s>");
  EXPECT_EQ(Exec(kDemo, {"[", "-d", "/", "]"}).status, 0);
  EXPECT_EQ(Exec(kDemo, {"[]"}).status, 127);
  EXPECT_EQ(Cli({"exec", "git", "checkout", "--", "file"}).err,
            "zcbroker: unexpected argument '--'; write -- before the "
            "command: -- git ...; see zcbroker exec --help\n");
}

TEST_F(RunVerbsTest, ExecNeedsACommand) {
  EXPECT_EQ(Cli({"exec"}).status, 2);
  EXPECT_EQ(Cli({"exec", "--"}).status, 2);
  EXPECT_EQ(Cli({"exec", "--nosuch", "--", "true"}).status, 2);
}

// --- env

TEST_F(RunVerbsTest, EnvIsEvaluatedByShells) {
  StartBroker();
  const std::string ask =
      absl::StrCat("eval \"$(", CommandLineProgram(),
                   " env --service demo --wanted 1.0.0)\"; ", kPrint);
  const Finished shell =
      RunToEnd({"sh", "-c", ask}, home_.environment(), home_.path());
  EXPECT_EQ(shell.out, absl::StrCat(Route("1.0.0"), "\n30\n")) << shell.err;
  EXPECT_EQ(Cli({"env", "--service", "demo", "--shell", "fish"}).out,
            absl::StrCat("set -gx ZCCACHE_ENDPOINT '", Route("2.0.0"),
                         "';\nset -gx ZCCACHE_STATUS_PROBE_TIMEOUT_SECS "
                         "'30';\n"));
  EXPECT_EQ(Cli({"env", "--service", "demo", "--shell", "csh"}).status, 2);
}

TEST_F(RunVerbsTest, EnvAsJsonAndItsFailures) {
  StartBroker();
  const Struct report = Json({"env", "--service", "demo"});
  EXPECT_EQ(Text(report, "version"), "2.0.0");
  EXPECT_EQ(
      Text(report.fields().at("variables").struct_value(), "ZCCACHE_ENDPOINT"),
      Route("2.0.0"));
  const Finished unknown = Cli({"env", "--service", "nosuch"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_EQ(unknown.out, "");
  EXPECT_EQ(Cli({"env", "--service", "demo", "--wanted", "9.9.9"}).status, 5);
}

TEST_F(RunVerbsTest, EnvIsForClientsOfZccache) {
  home_.Define("opaque",
               PlainDefinition("opaque", BackendProgram(),
                               "args: \"--endpoint\" args: \"{endpoint}\"\n"));
  StartBroker();
  const Finished other = Cli({"env", "--service", "opaque"});
  EXPECT_EQ(other.status, 1);
  EXPECT_EQ(other.out, "");
  EXPECT_TRUE(absl::StrContains(other.err, "those of opaque are led by"))
      << other.err;
}

TEST_F(RunVerbsTest, AVersionIsMissedForItsReason) {
  home_.Define("gone", PlainDefinition("gone", home_.Entry("work/gone")));
  StartBroker();
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"env", "--service", "gone"},
        {"compile", "--service", "gone", "--", "true"}}) {
    const Finished gone = Cli(words);
    EXPECT_TRUE(absl::StrContains(gone.err, "gone: no usable binary"))
        << gone.err;
  }
}

// --- The keeper that up starts

TEST_F(RunVerbsTest, ABrokerThatUpStartedIsStartedAgainWhenItDies) {
  const Struct up = Json({"up", "--allow-root"});
  const auto first = static_cast<pid_t>(up.fields().at("pid").number_value());
  GrpcAnswer before = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(before.ok());
  ASSERT_EQ(kill(first, SIGKILL), 0);
  // Nobody is refused meanwhile, and the same backend answers.
  GrpcAnswer after = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(after.ok()) << after.status.error_message();
  EXPECT_EQ(after.response.route().pid(), before.response.route().pid());
  EXPECT_NE(Client().Status().pid(), static_cast<uint32_t>(first));
}

TEST_F(RunVerbsTest, UpAndDownInTurnLeaveNothing) {
  for (int i = 0; i < 3; ++i) {
    const Struct up = Json({"up", "--allow-root"});
    EXPECT_TRUE(up.fields().at("started").bool_value());
    EXPECT_EQ(Cli({"down"}).status, 0);
    EXPECT_FALSE(IsRunning(
        static_cast<pid_t>(up.fields().at("keeper_pid").number_value())));
  }
}

// --- explain

TEST_F(RunVerbsTest, ExplainWithoutAnything) {
  const std::string empty = home_.Entry("empty");
  ASSERT_EQ(mkdir(empty.c_str(), 0700), 0);
  const Struct report =
      Json({"explain", "--service", "demo"}, {{"XDG_RUNTIME_DIR", empty}});
  EXPECT_EQ(Text(report, "connection"), "direct");
  EXPECT_EQ(report.fields().at("row").number_value(), 4);
  EXPECT_TRUE(absl::StartsWith(Step(report, "runtime directory"), "failed: "));
  EXPECT_EQ(Step(report, "ZCCACHE_BROKER_CONNECT"),
            "no: is not set; 1 asks for the broker, and zcb always does");
  // It starts nothing and makes nothing.
  EXPECT_EQ(rmdir(empty.c_str()), 0);
}

TEST_F(RunVerbsTest, ExplainWalksTheRows) {
  StartBroker();
  const Environment kBroker = {{"ZCCACHE_BROKER_CONNECT", "1"}};
  const std::vector<std::string> explain = {"explain", "--service", "demo",
                                            "--wanted", "1.0.0"};
  Struct report = Json(explain, {{"RUNNING_PROCESS_DISABLE", "1"},
                                 {"ZCCACHE_BROKER_CONNECT", "1"}});
  EXPECT_EQ(report.fields().at("row").number_value(), 1);
  EXPECT_EQ(Text(report, "fallback"), "");
  report = Json(explain, {{"RUNNING_PROCESS_FAKE_BACKEND", "/nowhere"}});
  EXPECT_EQ(report.fields().at("row").number_value(), 2);
  EXPECT_EQ(Text(report, "fallback"), "fake_backend_dead");
  report = Json(explain, {{"RUNNING_PROCESS_FAKE_BACKEND", socket()}});
  EXPECT_EQ(Text(report, "connection"), "fake_backend");

  // No backend yet: the broker would be asked, and start one.
  report = Json(explain, kBroker);
  EXPECT_EQ(report.fields().at("row").number_value(), 3);
  EXPECT_EQ(Text(report, "connection"), "broker");
  EXPECT_EQ(Text(report, "endpoint"), "");
  EXPECT_TRUE(absl::StartsWith(Step(report, "broker"), "yes: "));
  EXPECT_EQ(Step(report, "negotiation"),
            "yes: it does not run; a client has it started");
  EXPECT_TRUE(Client().Backends().empty());

  ASSERT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  report = Json(explain, kBroker);
  EXPECT_EQ(Text(report, "connection"), "broker");
  EXPECT_EQ(Text(report, "endpoint"),
            Client().Backends().at(0).route().endpoint());
  EXPECT_TRUE(absl::StartsWith(Step(report, "route info"), "yes: "));
  EXPECT_EQ(Step(report, "broker"),
            "passed over: the route info leads past it");
  // Without a version: the one that has a route.
  EXPECT_EQ(Text(Json({"explain", "--service", "demo"}), "version"), "1.0.0");

  report = Json({"explain", "--service", "demo", "--wanted", "9.9.9"}, kBroker);
  EXPECT_EQ(Text(report, "fallback"), "broker_refusal");
  EXPECT_TRUE(absl::StartsWith(Step(report, "negotiation"),
                               "failed: VERSION_NOT_INSTALLED"))
      << Step(report, "negotiation");
}

TEST_F(RunVerbsTest, ExplainNamesTheRouteOfAnUnmodifiedClient) {
  StartBroker();
  const Finished text =
      Exec(kDemo, {CommandLineProgram(), "explain", "--service", "demo"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_TRUE(absl::StrContains(text.out, "by ZCCACHE_ENDPOINT")) << text.out;
  EXPECT_TRUE(absl::StrContains(text.out, "the broker's own name"));
  EXPECT_TRUE(
      absl::StrContains(text.out, absl::StrCat("somebody listens: zcbrokerd, "
                                               "process ",
                                               broker().process().pid())))
      << text.out;
  EXPECT_TRUE(absl::StrContains(text.out, "no fallbacks of this shell"));
}

TEST_F(RunVerbsTest, ExplainSeesAMuteBrokerAndItsFallbacks) {
  StartBroker();
  const Environment kBroker = {{"ZCCACHE_BROKER_CONNECT", "1"}};
  broker().process().StopWhole();
  // Falls back and finds no daemon either; what counts is its record.
  const Finished compile =
      Cli({"compile", "--service", "demo", "--wanted", "1.0.0", "--", "true"});
  EXPECT_NE(compile.status, 0);
  const Struct report =
      Json({"explain", "--service", "demo", "--wanted", "1.0.0"}, kBroker);
  broker().process().Signal(SIGCONT);
  EXPECT_EQ(Text(report, "connection"), "direct");
  EXPECT_EQ(Text(report, "fallback"), "breaker_open");
  EXPECT_TRUE(absl::StartsWith(Step(report, "breaker"), "yes: "))
      << Step(report, "breaker");
  EXPECT_TRUE(absl::StartsWith(Step(report, "broker"), "failed: "));
  const auto& counts = report.fields().at("fallback_counts").struct_value();
  ASSERT_EQ(counts.fields().count("broker_mute"), 1U);
  EXPECT_EQ(counts.fields().at("broker_mute").number_value(), 1);
  const auto& fallbacks = report.fields().at("fallbacks").list_value();
  ASSERT_EQ(fallbacks.values_size(), 1);
  EXPECT_EQ(Text(fallbacks.values(0).struct_value(), "program"), "zcbroker");
}

TEST_F(RunVerbsTest, ExplainTellsThisShellsFallbacksFromOthers) {
  StartBroker();
  StopBroker();
  const std::string compile = absl::StrCat(
      CommandLineProgram(), " compile --service demo --wanted 1.0.0 -- true");
  // setsid: another session, and its shell is no parent of ours.
  RunToEnd({"setsid", "--wait", "sh", "-c", compile + "; " + compile},
           home_.environment(), home_.path());
  EXPECT_TRUE(
      absl::StrContains(Cli({"explain"}).out, "no fallbacks of this shell"));
  const Finished all = Cli({"explain", "--all"});
  EXPECT_TRUE(absl::StrContains(all.out, "fallbacks of all processes"))
      << all.out;
  EXPECT_TRUE(absl::StrContains(all.out, "broker_missing 2")) << all.out;
}

}  // namespace
}  // namespace zcbroker::testing
