#include "service/core/policy.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::service {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kFile[] = "/etc/zcbroker/policy.textproto";

// --- Mistakes

struct Mistake {
  const char* name;
  const char* text;
  const char* where;  // after the file's name
  const char* what;
};

class PolicyMistakeTest : public ::testing::TestWithParam<Mistake> {};

INSTANTIATE_TEST_SUITE_P(
    Table, PolicyMistakeTest,
    ::testing::Values(
        Mistake{"UnknownField", "keep_newest: 1\nallow: 'x'", ":2:6",
                "no field named \"allow\""},
        Mistake{"ServiceName", "allowed_services: 'A b'", ":1:1",
                "service name"},
        Mistake{"ServiceTwice", "allowed_services: 'x'\nallowed_services: 'x'",
                ":2:1", "service x is there twice"},
        Mistake{"RulesTwice", "services { name: 'x' }\nservices { name: 'x' }",
                ":2:12", "service x has rules already"},
        Mistake{"RulesOfNobody", "services { }", ":1:1", "service name"},
        Mistake{"AllowedVersion",
                "services { name: 'x' allowed_versions: '1' }", ":1:22",
                "version"},
        Mistake{"BlockedVersion",
                "services {\n  name: 'x'\n  blocked_versions: 'latest'\n}",
                ":3:3", "version"},
        Mistake{"BlockedTwice",
                "services { name: 'x'\nblocked_versions: '1.0.0'\n"
                "blocked_versions: '1.0.0' }",
                ":3:1", "version 1.0.0 is there twice"},
        Mistake{"Floor", "services { name: 'x' version_floor: '1.x' }", ":1:22",
                "version"},
        Mistake{"PinnedAndBlocked",
                "services { name: 'x'\npinned_versions: '1.0.0'\n"
                "blocked_versions: '1.0.0' }",
                ":2:1", "1.0.0 is pinned and blocked by policy"},
        Mistake{"PinnedAndTooOld",
                "services { name: 'x' version_floor: '1.10.0'\n"
                "pinned_versions: '1.9.0' }",
                ":2:1", "older than 1.10.0"},
        Mistake{"PinnedAndNotAllowed",
                "services { name: 'x' allowed_versions: '1.10.0'\n"
                "pinned_versions: '1.9.0' }",
                ":2:1", "allows only 1.10.0"},
        Mistake{"IdleStop", "idle_stop { nanos: 5 }", ":1:1", "from 1 s to"},
        Mistake{"IdleStopOfAService",
                "services { name: 'x' idle_stop { seconds: 2592001 } }",
                ":1:22", "30 days"},
        Mistake{"KeptWithoutNewest", "keep_used_for { seconds: 60 }", ":1:1",
                "without keep_newest"},
        Mistake{"KeptTooShort", "keep_newest: 1 keep_used_for { nanos: 9 }",
                ":1:16", "from 1 s to 365 days"},
        Mistake{"KeptTooLong",
                "keep_newest: 1 keep_used_for { seconds: 31536001 }", ":1:16",
                "from 1 s to 365 days"},
        Mistake{"NoStarts", "limits { concurrent_starts: 0 }", ":1:10",
                "from 1 to 4"},
        Mistake{"MoreStarts", "limits { concurrent_starts: 5 }", ":1:10",
                "only lower it: from 1 to 4"},
        Mistake{"NoWaiters", "limits { waiters_per_start: 0 }", ":1:10",
                "from 1 to 4096"},
        Mistake{"MoreWaiters", "limits { waiters_per_start: 4097 }", ":1:10",
                "from 1 to 4096"},
        Mistake{"NoConnections", "limits { connections: 0 }", ":1:10",
                "from 1 to 4096"},
        Mistake{"MoreConnections", "limits { connections: 4097 }", ":1:10",
                "from 1 to 4096"},
        Mistake{"NoneOfAProcess", "limits { connections_per_process: 0 }",
                ":1:10", "from 1 to 256"},
        Mistake{"MoreOfAProcess", "limits { connections_per_process: 257 }",
                ":1:10", "from 1 to 256"},
        Mistake{"NoneRelayed", "limits { relayed_connections: 0 }", ":1:10",
                "from 1 to 4096"},
        Mistake{"MoreRelayed", "limits { relayed_connections: 4097 }", ":1:10",
                "from 1 to 4096"},
        Mistake{"NoPermission", "\n claim: 7", ":2:2", "PERMISSION_ALLOWED"},
        Mistake{"NoPermissionOfUsers", "user_definitions: 9", ":1:1",
                "PERMISSION_FORBIDDEN"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(PolicyMistakeTest, IsToldWithItsPlace) {
  const ParsedPolicy parsed = ParsePolicy(GetParam().text, kFile);
  EXPECT_FALSE(parsed.policy.has_value());
  ASSERT_THAT(parsed.problems, SizeIs(1));
  EXPECT_EQ(parsed.problems[0].where(), absl::StrCat(kFile, GetParam().where));
  EXPECT_THAT(parsed.problems[0].what(), HasSubstr(GetParam().what));
}

TEST(PolicyTest, EveryMistakeIsTold) {
  EXPECT_THAT(
      ParsePolicy("claim: 7\nidle_stop { nanos: 5 }\nuser_definitions: 7",
                  kFile)
          .problems,
      SizeIs(3));
}

TEST(PolicyTest, TheEndsOfEachRangeArePartOfIt) {
  for (const char* text :
       {"", "limits { concurrent_starts: 1 waiters_per_start: 1 }",
        "limits { concurrent_starts: 4 waiters_per_start: 4096 }",
        "limits { connections: 1 relayed_connections: 1 }",
        "limits { connections_per_process: 1 }",
        "limits { connections: 4096 relayed_connections: 4096 }",
        "limits { connections_per_process: 256 }", "idle_stop { }",
        "idle_stop { seconds: 1 }", "idle_stop { seconds: 2592000 }",
        "keep_newest: 1 keep_used_for { seconds: 1 }",
        "keep_newest: 1 keep_used_for { seconds: 31536000 }",
        "services {name:'x' version_floor:'1.9.0' pinned_versions:'1.9.0'}"}) {
    EXPECT_TRUE(ParsePolicy(text, kFile).policy.has_value()) << text;
  }
}

// --- Rules

Catalog Apply(const std::string& text) {
  Catalog catalog;
  CatalogService& zccache = catalog.services["zccache"];
  zccache.definition.set_name("zccache");
  zccache.definition.set_claim(v1::CLAIM_ON);
  zccache.definition.mutable_idle_stop()->set_seconds(3600);
  zccache.source = "built-in";
  zccache.versions = {{"1.15.8", "/opt/z", "id", {}}};
  catalog.services["demo"] = zccache;
  catalog.services["demo"].definition.set_name("demo");
  catalog.services["demo"].source = "/c/demo.textproto";
  catalog.services["demo"].set_by = {{"idle_stop", "/c/demo.textproto"}};
  const ParsedPolicy parsed = ParsePolicy(text, kFile);
  EXPECT_THAT(parsed.problems, IsEmpty()) << text;
  if (parsed.policy.has_value()) {
    ApplyPolicy(*parsed.policy, kFile, &catalog);
    catalog.settings = EffectiveSettings(*parsed.policy, kFile, catalog);
  }
  return catalog;
}

struct Ruling {
  const char* name;
  const char* policy;
  const char* service;
  const char* version;
  const char* why;  // empty: it may run
};

class PolicyRulingTest : public ::testing::TestWithParam<Ruling> {};

constexpr char kRules[] =
    "services { name: 'zccache' version_floor: '1.9.0' "
    "blocked_versions: '1.12.0' }";

INSTANTIATE_TEST_SUITE_P(
    Table, PolicyRulingTest,
    ::testing::Values(
        Ruling{"NoPolicy", "", "zccache", "1.0.0", ""},
        Ruling{"AllowedService", "allowed_services: 'zccache'", "zccache",
               "1.0.0", ""},
        Ruling{"OtherService", "allowed_services: 'zccache'", "demo", "1.0.0",
               "allows only the services zccache"},
        Ruling{"Blocked", kRules, "zccache", "1.12.0", "blocked by policy"},
        Ruling{"BelowTheFloor", kRules, "zccache", "1.8.99",
               "older than 1.9.0"},
        Ruling{"AtTheFloor", kRules, "zccache", "1.9.0", ""},
        Ruling{"AboveTheFloorByNumber", kRules, "zccache", "1.10.0", ""},
        Ruling{"AnotherServicesRules", kRules, "demo", "1.12.0", ""},
        Ruling{"Allowed", "services { name: 'demo' allowed_versions: '2.0.0' }",
               "demo", "2.0.0", ""},
        Ruling{"NotAllowed",
               "services { name: 'demo' allowed_versions: '2.0.0' }", "demo",
               "2.0.1", "allows only 2.0.0"},
        Ruling{"AllowedAndBlocked",
               "services { name: 'demo' allowed_versions: '2.0.0' "
               "blocked_versions: '2.0.0' }",
               "demo", "2.0.0", "blocked by policy"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(PolicyRulingTest, SaysWhatMayRun) {
  const Ruling& row = GetParam();
  const std::string why =
      WhyBlocked(Apply(row.policy).versions, row.service, row.version);
  if (*row.why == '\0') {
    EXPECT_EQ(why, "");
  } else {
    EXPECT_THAT(why, HasSubstr(row.why));
    EXPECT_THAT(why, HasSubstr(kFile));
  }
}

TEST(PolicyTest, GoesOverWhatDefinitionsSay) {
  const Catalog catalog = Apply(
      "idle_stop { seconds: 60 } claim: PERMISSION_FORBIDDEN "
      "services { name: 'demo' idle_stop { seconds: 5 } }");
  const auto& zccache = catalog.services.at("zccache").definition;
  const auto& demo = catalog.services.at("demo").definition;
  EXPECT_EQ(zccache.idle_stop().seconds(), 60);
  EXPECT_EQ(demo.idle_stop().seconds(), 5);
  EXPECT_EQ(zccache.claim(), v1::CLAIM_OFF);
}

TEST(PolicyTest, LeavesAloneWhatItDoesNotName) {
  const Catalog catalog = Apply("claim: PERMISSION_ALLOWED");
  const auto& zccache = catalog.services.at("zccache").definition;
  EXPECT_EQ(zccache.idle_stop().seconds(), 3600);
  EXPECT_EQ(zccache.claim(), v1::CLAIM_ON);
  EXPECT_EQ(catalog.versions.keep_newest, 0u);
  EXPECT_FALSE(catalog.versions.concurrent_starts.has_value());
}

TEST(PolicyTest, SaysWhatIsKept) {
  const VersionPolicy rules =
      Apply(
          "keep_newest: 2 keep_used_for { seconds: 60 } "
          "limits { concurrent_starts: 2 waiters_per_start: 7 } "
          "services { name: 'demo' pinned_versions: '1.0.0' }")
          .versions;
  EXPECT_EQ(rules.keep_newest, 2u);
  EXPECT_EQ(rules.keep_used_for, absl::Seconds(60));
  EXPECT_EQ(rules.concurrent_starts, 2u);
  EXPECT_EQ(rules.waiters_per_start, 7u);
  EXPECT_EQ(rules.pinned.count({"demo", "1.0.0"}), 1u);
}

TEST(PolicyTest, LowersTheLimitsOfConnections) {
  const ConnectionLimits ours;
  const ConnectionLimits left = Apply("").connection_limits;
  EXPECT_EQ(left.connections, ours.connections);
  EXPECT_EQ(left.connections_per_process, ours.connections_per_process);
  EXPECT_EQ(left.relayed_connections, ours.relayed_connections);
  const ConnectionLimits lowered =
      Apply(
          "limits { connections: 30 connections_per_process: 20 "
          "relayed_connections: 10 }")
          .connection_limits;
  EXPECT_EQ(lowered.connections, 30u);
  EXPECT_EQ(lowered.connections_per_process, 20u);
  EXPECT_EQ(lowered.relayed_connections, 10u);
}

// --- What is in force

struct Shown {
  const char* name;
  const char* value;
  const char* source;
};

class PolicySettingTest : public ::testing::TestWithParam<Shown> {};

INSTANTIATE_TEST_SUITE_P(
    Table, PolicySettingTest,
    ::testing::Values(
        Shown{"allowed_services", "any", "default"},
        Shown{"claim", "forbidden", kFile}, Shown{"keep_newest", "3", kFile},
        Shown{"keep_used_for", "168h", "default"},
        Shown{"limits.concurrent_starts", "2", kFile},
        Shown{"limits.waiters_per_start", "4096", "default"},
        Shown{"limits.connections", "4096", "default"},
        Shown{"limits.connections_per_process", "9", kFile},
        Shown{"limits.relayed_connections", "4096", "default"},
        Shown{"user_definitions", "allowed", "default"},
        Shown{"service.zccache.version_floor", "1.9.0", kFile},
        Shown{"service.zccache.blocked_versions", "1.12.0, 1.13.0", kFile},
        Shown{"service.zccache.pinned_versions", "none", "default"},
        Shown{"service.zccache.binaries", "1.15.8", "built-in"},
        Shown{"service.zccache.idle_stop", "never", kFile},
        Shown{"service.zccache.claim", "off", kFile},
        Shown{"service.demo.idle_stop", "1h", "/c/demo.textproto"},
        Shown{"service.demo.claim", "off", kFile},
        Shown{"service.absent.allowed_versions", "1.0.0", kFile}),
    [](const auto& info) {
      std::string name = info.param.name;
      for (char& c : name) {
        if (c == '.' || c == '_') c = 'X';
      }
      return name;
    });

TEST_P(PolicySettingTest, NamesWhoSetIt) {
  const Catalog catalog = Apply(
      "claim: PERMISSION_FORBIDDEN keep_newest: 3 "
      "limits { concurrent_starts: 2 connections_per_process: 9 } "
      "services { name: 'zccache' version_floor: '1.9.0' idle_stop { } "
      "blocked_versions: '1.12.0' blocked_versions: '1.13.0' }"
      "services { name: 'absent' allowed_versions: '1.0.0' }");
  std::vector<std::string> found;
  for (const v1::Setting& setting : catalog.settings) {
    if (setting.name() != GetParam().name) continue;
    found.push_back(absl::StrCat(setting.value(), " by ", setting.source()));
  }
  EXPECT_THAT(found, ElementsAre(absl::StrCat(GetParam().value, " by ",
                                              GetParam().source)));
}

}  // namespace
}  // namespace zcbroker::service
