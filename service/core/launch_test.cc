#include "service/core/launch.h"

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/core/definition.h"

namespace zcbroker::service {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

const Placeholders kValues{"/run/x.sock", "1.2.3", "/log/x.log"};

TEST(TemplateTest, ReplacesPlaceholders) {
  EXPECT_EQ(*ExpandTemplate("--at={endpoint}", kValues), "--at=/run/x.sock");
  EXPECT_EQ(*ExpandTemplate("{version}{log_file}", kValues), "1.2.3/log/x.log");
  EXPECT_EQ(*ExpandTemplate("plain", kValues), "plain");
  EXPECT_EQ(*ExpandTemplate("", kValues), "");
  EXPECT_EQ(*ExpandTemplate("{{endpoint}}", kValues), "{endpoint}");
}

TEST(TemplateTest, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"{", "}", "{}", "{Endpoint}", "a{version", "}}}"}) {
    EXPECT_EQ(ExpandTemplate(text, kValues).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

StartPlan ZccachePlan() {
  StartPlan plan;
  plan.definition = BuiltInZccache();
  plan.version = {"1.11.22", "/opt/zccache-daemon", "id", {}};
  return plan;
}

TEST(LaunchTest, ZccacheIsStartedAsItsOwnClientsDo) {
  const LaunchSpec spec = MakeLaunchSpec(ZccachePlan(), kValues, {});
  EXPECT_EQ(spec.binary, "/opt/zccache-daemon");
  EXPECT_THAT(spec.argv,
              ElementsAre("/opt/zccache-daemon", "--foreground", "--endpoint",
                          "/run/x.sock", "--log-file", "/log/x.log"));
  EXPECT_THAT(spec.env, ElementsAre("ZCCACHE_IDLE_TIMEOUT_SECS=14400"));
}

TEST(LaunchTest, OnlyWhatIsAllowedReachesTheBackend) {
  const std::map<std::string, std::string> env = {
      {"AWS_SECRET_ACCESS_KEY", "secret"},
      {"HOME", "/home/u"},
      {"LC_CTYPE", "C.UTF-8"},
      {"LD_PRELOAD", "evil.so"},
      {"LISTEN_FDS", "1"},
      {"NOTIFY_SOCKET", "/run/n"},
      {"ZCCACHE_CACHE_DIR", "/cache"},
      {"ZCCACHE_ENDPOINT", "/x"}};
  EXPECT_THAT(MakeLaunchSpec(ZccachePlan(), kValues, env).env,
              ElementsAre("HOME=/home/u", "LC_CTYPE=C.UTF-8",
                          "ZCCACHE_CACHE_DIR=/cache",
                          "ZCCACHE_IDLE_TIMEOUT_SECS=14400"));
  StartPlan other = ZccachePlan();
  other.definition.set_endpoint_rule(v1::ENDPOINT_RULE_NONE);
  EXPECT_THAT(MakeLaunchSpec(other, kValues, env).env,
              Not(Contains("ZCCACHE_CACHE_DIR=/cache")));
}

TEST(LaunchTest, TheDefinitionWinsOverTheBrokersEnvironment) {
  StartPlan plan = ZccachePlan();
  v1::EnvironmentVariable* variable = plan.definition.add_env();
  variable->set_name("HOME");
  variable->set_value("/for/{version}");
  EXPECT_THAT(
      MakeLaunchSpec(plan, kValues, {{"HOME", "/home/u"}}).env,
      ElementsAre("HOME=/for/1.2.3", "ZCCACHE_IDLE_TIMEOUT_SECS=14400"));
}

TEST(LaunchTest, UpstreamsContractIsArgumentsNoneAndVariables) {
  StartPlan plan;
  plan.definition.set_name("demo");
  plan.definition.set_start_contract(v1::START_CONTRACT_RUNNING_PROCESS);
  plan.version = {"1.2.3", "/opt/demo", "id", {}};
  const LaunchSpec spec = MakeLaunchSpec(plan, kValues, {});
  EXPECT_THAT(spec.argv, ElementsAre("/opt/demo"));
  EXPECT_THAT(spec.env,
              ElementsAre("RUNNING_PROCESS_BROKER_V1_BACKEND_NAMESPACE=shared",
                          "RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE=/run/x.sock",
                          "RUNNING_PROCESS_BROKER_V1_INSTANCE=shared",
                          "RUNNING_PROCESS_BROKER_V1_SERVICE_NAME=demo",
                          "RUNNING_PROCESS_BROKER_V1_SERVICE_VERSION=1.2.3",
                          "RUNNING_PROCESS_IS_DAEMON=1"));
}

}  // namespace
}  // namespace zcbroker::service
