// Faults, planted one at a time: `zcbroker doctor` finds each and says what to
// do about it. What it looks at stays as it was.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "ipc/testing/wait_for.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class DoctorTest : public BrokerTest {
 protected:
  DoctorTest() { home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"})); }

  Finished Cli(std::vector<std::string> arguments,
               const Environment& more = {}) const {
    Environment environment = home_.environment();
    for (const auto& [name, value] : more) environment[name] = value;
    arguments.insert(arguments.begin(), CommandLineProgram());
    return RunToEnd(std::move(arguments), environment, home_.Entry("work"));
  }

  // "FAIL breaker: the broker was mute ...", a check each. The text says the
  // same and ends with the same status.
  std::vector<std::string> Checks(std::vector<std::string> arguments = {},
                                  const Environment& more = {}) const {
    arguments.insert(arguments.begin(), {"doctor", "--service", "demo"});
    const Finished text = Cli(arguments, more);
    arguments.push_back("--json");
    const Finished json = Cli(std::move(arguments), more);
    google::protobuf::Struct report;
    EXPECT_TRUE(
        google::protobuf::util::JsonStringToMessage(json.out, &report).ok())
        << json.out;
    std::vector<std::string> checks;
    bool failed = false;
    for (const auto& value :
         report.fields().at("checks").list_value().values()) {
      const auto& check = value.struct_value().fields();
      const std::string status = check.at("status").string_value();
      failed = failed || status == "FAIL";
      checks.push_back(absl::StrCat(status, " ",
                                    check.at("name").string_value(), ": ",
                                    check.at("detail").string_value()));
      EXPECT_THAT(text.out,
                  HasSubstr(absl::StrCat(status, "  ",
                                         check.at("name").string_value())));
    }
    EXPECT_EQ(json.status, failed ? 1 : 0);
    EXPECT_EQ(text.status, json.status);
    EXPECT_EQ(text.err, "");
    return checks;
  }
};

TEST_F(DoctorTest, AHealthyHomeHasNothingToMend) {
  StartBroker();
  ASSERT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  const std::vector<std::string> checks = Checks();
  // Where clients without XDG_RUNTIME_DIR look there is one broker a machine,
  // and other tests have theirs.
  EXPECT_THAT(checks, Each(AnyOf(StartsWith("PASS "),
                                 HasSubstr("/tmp/running-process-"))));
  EXPECT_THAT(checks, Contains(AllOf(StartsWith("PASS negotiation: demo 1.0.0"),
                                     HasSubstr("process "))));
}

TEST_F(DoctorTest, StartsNothing) {
  StartBroker();
  EXPECT_THAT(Checks(), Contains("PASS negotiation: demo 1.0.0: a client has "
                                 "it started"));
  EXPECT_TRUE(Client().Backends().empty());
}

TEST_F(DoctorTest, NoBroker) {
  EXPECT_THAT(Checks(), Contains(AllOf(StartsWith("WARN broker: none runs"),
                                       HasSubstr("zcbroker up"))));
  // Not even a place for one.
  const std::string empty = home_.Entry("empty");
  ASSERT_EQ(mkdir(empty.c_str(), 0700), 0);
  EXPECT_THAT(Checks({}, {{"XDG_RUNTIME_DIR", empty}}),
              Contains(AllOf(StartsWith("WARN runtime directory: "),
                             HasSubstr("zcbroker up"))));
  EXPECT_EQ(rmdir(empty.c_str()), 0);
}

TEST_F(DoctorTest, ARuntimeDirectoryOthersMayEnter) {
  ASSERT_EQ(chmod(home_.runtime_dir().c_str(), 0755), 0);
  EXPECT_THAT(Checks(), Contains(AllOf(HasSubstr("runtime directory: "),
                                       HasSubstr(home_.runtime_dir()),
                                       HasSubstr("0700"))));
  ASSERT_EQ(chmod(home_.runtime_dir().c_str(), 0700), 0);
}

TEST_F(DoctorTest, ARuntimeDirectoryOfSomebodyElse) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  ASSERT_EQ(chown(home_.runtime_dir().c_str(), 65534, 65534), 0);
  EXPECT_THAT(Checks(), Contains(AllOf(HasSubstr("runtime directory: "),
                                       HasSubstr(home_.runtime_dir()),
                                       HasSubstr("65534"))));
  ASSERT_EQ(chown(home_.runtime_dir().c_str(), 0, 0), 0);
}

TEST_F(DoctorTest, ARuntimeDirectoryWithALongName) {
  const std::string deep = home_.Entry(std::string(80, 'd'));
  ASSERT_EQ(mkdir(deep.c_str(), 0700), 0);
  ASSERT_EQ(mkdir((deep + "/zcbroker").c_str(), 0700), 0);
  EXPECT_THAT(Checks({}, {{"XDG_RUNTIME_DIR", deep}}),
              Contains(AllOf(StartsWith("FAIL path lengths: "),
                             HasSubstr("of 107 bytes"),
                             HasSubstr("set XDG_RUNTIME_DIR"))));
}

TEST_F(DoctorTest, ADeadSocket) {
  StartBroker();
  broker().process().Signal(SIGKILL);
  AwaitBrokersEnd();
  EXPECT_THAT(Checks(), Contains(AllOf(StartsWith("FAIL broker: "),
                                       HasSubstr("left its socket"),
                                       HasSubstr("zcbroker up"))));
}

TEST_F(DoctorTest, AMuteBrokerAndAnOpenBreaker) {
  StartBroker();
  broker().process().StopWhole();
  const std::vector<std::string> mute = Checks();
  EXPECT_THAT(mute, Contains(AllOf(StartsWith("FAIL broker: "),
                                   HasSubstr("stopped or hangs"))));
  EXPECT_THAT(mute, Contains(StartsWith("PASS breaker: ")));
  // A client of ours waits once, and tells the others.
  Cli({"compile", "--service", "demo", "--wanted", "1.0.0", "--", "gcc"});
  EXPECT_THAT(Checks(), Contains(AllOf(StartsWith("FAIL breaker: "),
                                       HasSubstr("nobody asks it for"))));
  broker().process().Signal(SIGCONT);
}

TEST_F(DoctorTest, AVersionThatIsNotThere) {
  StartBroker();
  for (const bool by_variable : {false, true}) {
    const std::vector<std::string> checks =
        by_variable ? Checks({}, {{"ZCBROKER_VERSION", "9.9.9"}})
                    : Checks({"--wanted", "9.9.9"});
    EXPECT_THAT(checks, Contains(AllOf(StartsWith("FAIL versions: demo 9.9.9"),
                                       HasSubstr("there is demo 1.0.0"))));
    EXPECT_THAT(checks, Contains(StartsWith("FAIL negotiation: demo 9.9.9: "
                                            "VERSION_NOT_INSTALLED: ")));
  }
  EXPECT_THAT(Checks({"--wanted", "latest"}),
              Contains(AllOf(StartsWith("FAIL environment: 'latest' is no "
                                        "version"))));
}

TEST_F(DoctorTest, APolicyThatBlocksIt) {
  home_.SetPolicy("services { name: \"demo\" blocked_versions: \"1.0.0\" }\n");
  StartBroker();
  const std::vector<std::string> checks = Checks();
  EXPECT_THAT(checks,
              Contains(AllOf(StartsWith("PASS policy: "),
                             HasSubstr(home_.policy_file()),
                             HasSubstr("demo.blocked_versions 1.0.0"))));
  EXPECT_THAT(checks,
              Contains(AllOf(
                  StartsWith("FAIL negotiation: demo 1.0.0: VERSION_BLOCKED"),
                  HasSubstr(home_.policy_file()))));
}

TEST_F(DoctorTest, APolicyThatIsNone) {
  home_.SetPolicy("allow: \"demo\"\n");
  StartBroker();
  const std::vector<std::string> checks = Checks();
  EXPECT_THAT(checks, Contains(AllOf(StartsWith("FAIL broker's problems: "),
                                     HasSubstr(home_.policy_file()),
                                     HasSubstr("allow"))));
  EXPECT_THAT(checks,
              Contains(AllOf(StartsWith("FAIL policy: nothing new is started "),
                             HasSubstr(home_.policy_file()))));
}

TEST_F(DoctorTest, ADefinitionWithAMistake) {
  home_.Define("other", "name: \"other\"\nbinary: 1\n");
  EXPECT_THAT(Checks(), Contains(AllOf(StartsWith("FAIL definitions: "),
                                       HasSubstr("other.textproto:2"))));
}

TEST_F(DoctorTest, AServiceThatNobodyHasDefined) {
  std::filesystem::remove(home_.services_dir() + "/demo.textproto");
  EXPECT_THAT(Checks(),
              Contains(AllOf(StartsWith("FAIL versions: "),
                             HasSubstr("zcbroker service add demo"))));
}

TEST_F(DoctorTest, ABackendThatDoesNotStart) {
  home_.Define("demo",
               PlainDefinition("demo", home_.Script("failing", "exit 3")));
  StartBroker();
  ASSERT_FALSE(Client().Negotiate("demo", "1.0.0").ok());
  EXPECT_THAT(Checks(), Contains(AllOf(StartsWith("WARN backends: demo 1.0.0 "),
                                       HasSubstr("its log: "))));
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        return Client().Negotiate("demo", "1.0.0").reason == "BACKEND_BROKEN";
      },
      "it to be broken", kPatience));
  EXPECT_THAT(Checks(),
              Contains(AllOf(StartsWith("FAIL backends: demo 1.0.0 is broken"),
                             HasSubstr("zcbroker start demo 1.0.0"))));
}

TEST_F(DoctorTest, ARouteThatLeadsToNobody) {
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(answer.ok());
  broker().process().Signal(SIGKILL);
  AwaitBrokersEnd();
  ASSERT_EQ(kill(static_cast<pid_t>(answer.response.route().pid()), SIGKILL),
            0);
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        const std::vector<std::string> checks = Checks();
        return std::any_of(checks.begin(), checks.end(), [](const auto& c) {
          return absl::StartsWith(c, "WARN routes: demo 1.0.0 leads to nobody");
        });
      },
      "the dead route to be found", kPatience));
}

TEST_F(DoctorTest, ClientsThatAreToldToGoElsewhere) {
  EXPECT_THAT(Checks({}, {{"RUNNING_PROCESS_DISABLE", "1"}}),
              Contains(AllOf(StartsWith("WARN environment: "),
                             HasSubstr("RUNNING_PROCESS_DISABLE"))));
  EXPECT_THAT(Checks({}, {{"RUNNING_PROCESS_FAKE_BACKEND", "/x"}}),
              Contains(AllOf(StartsWith("WARN environment: "),
                             HasSubstr("RUNNING_PROCESS_FAKE_BACKEND"))));
  EXPECT_THAT(Checks({}, {{"ZCBROKER_STRICT", "1"}}),
              Contains(AllOf(StartsWith("WARN environment: "),
                             HasSubstr("ZCBROKER_STRICT"))));
}

TEST_F(DoctorTest, AUnitThatEndsBackendsWithTheBroker) {
  const std::string directory = home_.Entry("config/systemd/user");
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/zcbroker.service")
      << "[Service]\nExecStart=zcbroker-keeper\n";
  EXPECT_THAT(Checks(), Contains(AllOf(StartsWith("FAIL systemd: "),
                                       HasSubstr("KillMode=process"))));
}

}  // namespace
}  // namespace zcbroker::testing
