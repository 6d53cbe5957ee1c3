// The managed policy over a real broker: what it forbids is not started and not
// routed, and a policy that is none stops nothing that runs.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/daemon_connection.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/testing/wait_for.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

constexpr char kBroken[] = "# ours\nallowed_services: 'demo'\nallow: 'all'\n";

class PolicyTest : public BrokerTest {
 protected:
  PolicyTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "2.0.0"}));
    home_.Define("other", ReferenceDefinition("other", {"1.0.0"}));
  }

  void ExpectServed(const std::string& service, const std::string& version) {
    const GrpcAnswer answer = Client().Negotiate(service, version);
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
  }
  // On both protocols, with `why` in the text.
  void ExpectBlocked(const std::string& service, const std::string& version,
                     const std::string& why) {
    const GrpcAnswer grpc = Client().Negotiate(service, version);
    EXPECT_EQ(grpc.reason, "VERSION_BLOCKED");
    EXPECT_TRUE(absl::StrContains(grpc.status.error_message(), why))
        << grpc.status.error_message();
    const FramedAnswer framed = NegotiateFramed(socket(), service, version);
    ASSERT_TRUE(framed.refused.has_value());
    EXPECT_EQ(framed.refused->details().at("refusal"), "VERSION_BLOCKED");
  }
  void AwaitBlocked(const std::string& service, const std::string& version) {
    EXPECT_TRUE(ipc::WaitFor(
        [&] {
          return Client().Negotiate(service, version).reason ==
                 "VERSION_BLOCKED";
        },
        absl::StrCat(service, " ", version, " to be blocked"), kPatience));
  }
  void AwaitServed(const std::string& service, const std::string& version) {
    EXPECT_TRUE(ipc::WaitFor(
        [&] { return Client().Negotiate(service, version).ok(); },
        absl::StrCat(service, " ", version, " to be served"), kPatience));
  }
  // What `status` says about the policy's file; empty: nothing.
  std::string ProblemWith(const std::string& where) {
    const v1::GetStatusResponse status = Client().Status();
    for (const v1::Problem& problem : status.problems()) {
      if (absl::StartsWith(problem.where(), where)) {
        return absl::StrCat(problem.where(), ": ", problem.what());
      }
    }
    return "";
  }
  void AwaitProblem() {
    EXPECT_TRUE(
        ipc::WaitFor([&] { return !ProblemWith(home_.policy_file()).empty(); },
                     "the policy's mistake to be seen", kPatience));
  }
  Finished Cli(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), CommandLineProgram());
    return RunToEnd(std::move(arguments), home_.environment(),
                    home_.Entry("work"));
  }
};

TEST_F(PolicyTest, ABlockedVersionIsRefusedAndTheOthersAreNot) {
  home_.SetPolicy("services { name: 'demo' blocked_versions: '2.0.0' }");
  StartBroker();
  ExpectBlocked("demo", "2.0.0", home_.policy_file());
  ExpectServed("demo", "1.0.0");
  EXPECT_NE(
      access(home_.Entry("run/zcbroker/routes/demo/2.0.0.sock").c_str(), F_OK),
      0)
      << "a name that leads nowhere";
}

TEST_F(PolicyTest, AVersionBelowTheFloorIsRefusedInstalledOrNot) {
  home_.SetPolicy("services { name: 'demo' version_floor: '1.10.0' }");
  StartBroker();
  ExpectBlocked("demo", "1.0.0", "older than 1.10.0");
  ExpectBlocked("demo", "1.9.9", "older than 1.10.0");
  ExpectServed("demo", "2.0.0");
}

TEST_F(PolicyTest, AServiceThatIsNotAllowedIsRefused) {
  home_.SetPolicy("allowed_services: 'demo'");
  StartBroker();
  ExpectBlocked("other", "1.0.0", "allows only the services demo");
  ExpectServed("demo", "1.0.0");
}

TEST_F(PolicyTest, AVersionThatRunsIsDrainedWhenItIsBlocked) {
  StartBroker();
  ExpectServed("demo", "1.0.0");
  home_.SetPolicy("services { name: 'demo' blocked_versions: '1.0.0' }");
  AwaitBlocked("demo", "1.0.0");
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const auto backends = Client().Backends();
        return backends.size() == 1 &&
               backends[0].state() == v1::BACKEND_STATE_GONE &&
               absl::StrContains(backends[0].last_end(), home_.policy_file());
      },
      "it to be gone, for the policy's sake", kPatience));
}

TEST_F(PolicyTest, UsersMayBeKeptFromDefiningServices) {
  home_.SetPolicy("user_definitions: PERMISSION_FORBIDDEN");
  home_.DefineUpstream("legacy", BackendProgram(), "3.2.1");
  StartBroker();
  for (const char* service : {"demo", "legacy"}) {
    const GrpcAnswer answer = Client().Negotiate(service, "1.0.0");
    EXPECT_EQ(answer.reason, "SERVICE_UNKNOWN");
    ASSERT_TRUE(answer.refusal.has_value());
    EXPECT_TRUE(absl::StrContains(answer.refusal->DebugString(),
                                  "lets users define no services"))
        << answer.refusal->DebugString();
  }
  EXPECT_TRUE(
      absl::StrContains(ProblemWith(home_.services_dir() + "/demo.textproto"),
                        home_.policy_file()));
  home_.SetPolicy("");
  AwaitServed("demo", "1.0.0");
}

TEST_F(PolicyTest, AnInvalidPolicyStartsNothingAndStopsNothing) {
  StartBroker();
  const GrpcAnswer before = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(before.ok()) << before.status.error_message();
  home_.SetPolicy(kBroken);
  AwaitProblem();
  EXPECT_TRUE(absl::StartsWith(ProblemWith(home_.policy_file()),
                               home_.policy_file() + ":3:6: "))
      << ProblemWith(home_.policy_file());

  ExpectBlocked("demo", "2.0.0", home_.policy_file() + ":3:6: ");
  const GrpcAnswer after = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(after.ok()) << after.status.error_message();
  EXPECT_EQ(after.response.route().pid(), before.response.route().pid());
  client::DaemonConnection connection(
      ConnectTo(after.response.route().endpoint()), ipc::WireLane::kFrameV1);
  EXPECT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  EXPECT_EQ(Counter("start_failures"), 0u) << "it is nobody's failure";

  home_.SetPolicy("# mended");
  AwaitServed("demo", "2.0.0");
  EXPECT_EQ(ProblemWith(home_.policy_file()), "");
}

TEST_F(PolicyTest, AnInvalidPolicyKeepsTheLastGoodOneInForce) {
  home_.SetPolicy("services { name: 'demo' blocked_versions: '2.0.0' }");
  StartBroker();
  ExpectBlocked("demo", "2.0.0", "is blocked by policy");
  home_.SetPolicy(kBroken);
  AwaitProblem();
  ExpectBlocked("demo", "2.0.0", "is blocked by policy");
  ExpectBlocked("demo", "1.0.0", "nothing new is started");
}

TEST_F(PolicyTest, UnderAnInvalidPolicyANewBrokerAdoptsWhatRuns) {
  StartBroker();
  const GrpcAnswer before = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(before.ok()) << before.status.error_message();
  StopBroker();
  home_.SetPolicy(kBroken);
  StartBroker();
  const GrpcAnswer after = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(after.ok()) << after.status.error_message();
  EXPECT_EQ(after.response.route().pid(), before.response.route().pid());
  ExpectBlocked("demo", "2.0.0", "nothing new is started");
}

// Each is refused with its reason, and mended by what the test then does.
TEST_F(PolicyTest, APolicyThatOthersMayWriteIsNotTrusted) {
  home_.SetPolicy("");
  chmod(home_.policy_file().c_str(), 0666);
  StartBroker();
  ExpectBlocked("demo", "1.0.0", "may be written by others");
  chmod(home_.policy_file().c_str(), 0600);
  EXPECT_EQ(Client().Reload().problems_size(), 0);
  ExpectServed("demo", "1.0.0");
}

TEST_F(PolicyTest, APolicyInADirectoryThatOthersMayWriteIsNotTrusted) {
  home_.SetPolicy("");
  chmod(home_.Entry("policy").c_str(), 0777);
  StartBroker();
  ExpectBlocked("demo", "1.0.0", "its directory may be written by others");
  chmod(home_.Entry("policy").c_str(), 0700);
  EXPECT_EQ(Client().Reload().problems_size(), 0);
  ExpectServed("demo", "1.0.0");
}

TEST_F(PolicyTest, ALinkIsNotFollowed) {
  WriteFile(home_.Entry("work/elsewhere"), "");
  std::filesystem::create_symlink(home_.Entry("work/elsewhere"),
                                  home_.policy_file());
  StartBroker();
  ExpectBlocked("demo", "1.0.0", "is behind a symbolic link");
  home_.SetPolicy("");
  AwaitServed("demo", "1.0.0");
}

TEST_F(PolicyTest, ADirectoryThatIsALinkIsNotFollowed) {
  std::filesystem::rename(home_.Entry("policy"), home_.Entry("moved"));
  std::filesystem::create_symlink(home_.Entry("moved"), home_.Entry("policy"));
  StartBroker();
  ExpectBlocked("demo", "1.0.0", "is behind a symbolic link");
}

TEST_F(PolicyTest, ConfigSaysWhatIsInForceAndWhoSetIt) {
  home_.SetPolicy("idle_stop { seconds: 90 } limits { concurrent_starts: 2 }");
  StartBroker();
  const Finished text = Cli({"config", "--effective"});
  EXPECT_EQ(text.status, 0) << text.err;
  const auto has_line = [&](const std::string& name, const std::string& value,
                            const std::string& source) {
    for (size_t at = 0;
         (at = text.out.find("  " + name, at)) != std::string::npos; ++at) {
      const std::string line =
          text.out.substr(at, text.out.find('\n', at) - at);
      if (absl::StrContains(line, " " + value + " ") &&
          absl::EndsWith(line, " " + source)) {
        return true;
      }
    }
    return false;
  };
  EXPECT_TRUE(has_line("service.demo.idle_stop", "1m30s", home_.policy_file()))
      << text.out;
  EXPECT_TRUE(has_line("limits.concurrent_starts", "2", home_.policy_file()))
      << text.out;
  EXPECT_TRUE(has_line("limits.waiters_per_start", "4096", "default"))
      << text.out;
  EXPECT_TRUE(has_line("service.other.binaries", "1.0.0",
                       home_.services_dir() + "/other.textproto"))
      << text.out;
  const Finished json = Cli({"config", "--effective", "--json"});
  EXPECT_TRUE(absl::StrContains(json.out, "\"limits.concurrent_starts\""))
      << json.out;
  EXPECT_EQ(Cli({"config"}).status, 2);
  StopBroker();
  const Finished without = Cli({"config", "--effective"});
  EXPECT_EQ(without.status, 0) << without.err;
  EXPECT_TRUE(absl::StartsWith(without.out, "no broker runs")) << without.out;
}

TEST_F(PolicyTest, StartsAtOnceAreAsManyAsItSays) {
  home_.SetPolicy("limits { concurrent_starts: 1 }");
  for (const char* name : {"slow", "later"}) {
    home_.Define(name, ReferenceDefinition(name, {"1.0.0"},
                                           {"--start-delay-ms", "60000"},
                                           "start_timeout { seconds: 60 }"));
  }
  StartBroker();
  auto slow = std::async(std::launch::async, [this] {
    return Client().Negotiate("slow", "1.0.0");
  });
  EXPECT_TRUE(ipc::WaitFor([&] { return Client().Backends().size() == 1; },
                           "the one start", kPatience));
  EXPECT_EQ(Client().Negotiate("later", "1.0.0").reason, "RATE_LIMITED");
  StopBroker();
  slow.wait();
}

}  // namespace
}  // namespace zcbroker::testing
