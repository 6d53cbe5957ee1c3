#include "service/core/definition.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/running_process/broker_v1.pb.h"
#include "service/core/mistakes.h"

namespace zcbroker::service {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kFile[] = "/c/services/demo.textproto";

TEST(DefinitionTest, FillsInDefaults) {
  const ParsedDefinition parsed = ParseDefinition(
      "name: 'demo'\nbinaries { path: '/opt/demo' version: '1.2.3' }\n", kFile,
      "demo");
  ASSERT_TRUE(parsed.definition.has_value());
  EXPECT_THAT(parsed.problems, IsEmpty());
  const v1::ServiceDefinition& definition = *parsed.definition;
  EXPECT_EQ(definition.probe(), v1::PROBE_CONNECT);
  EXPECT_EQ(definition.endpoint_rule(), v1::ENDPOINT_RULE_NONE);
  EXPECT_EQ(definition.start_timeout().seconds(), 9);
  EXPECT_EQ(definition.stop_grace().seconds(), 5);
  EXPECT_EQ(definition.idle_stop().seconds(), 3600);
  EXPECT_THAT(definition.args(), IsEmpty());
  EXPECT_THAT(LanesOf(definition, definition.binaries(0), "1.2.3"),
              ElementsAre(v1::WIRE_LANE_OPAQUE));
}

TEST(DefinitionTest, ZccacheTakesTheRestFromTheBuiltInDefinition) {
  const ParsedDefinition parsed = ParseDefinition(
      "name: 'zccache' binaries { path: '/opt/zccache-daemon' } "
      "start_timeout { seconds: 20 }",
      "/c/zccache.textproto", "zccache");
  ASSERT_TRUE(parsed.definition.has_value());
  EXPECT_THAT(parsed.definition->args(),
              ElementsAre("--foreground", "--endpoint", "{endpoint}",
                          "--log-file", "{log_file}"));
  EXPECT_EQ(parsed.definition->probe(), v1::PROBE_ZCCACHE_PING);
  EXPECT_EQ(parsed.definition->endpoint_rule(), v1::ENDPOINT_RULE_ZCCACHE);
  EXPECT_EQ(parsed.definition->start_timeout().seconds(), 20);
  EXPECT_EQ(parsed.definition->env(0).value(), "14400");
}

TEST(DefinitionTest, HasSoManyBinariesAndArgumentsAndNoMore) {
  const auto problems = [](int binaries, int arguments) {
    std::string text = "name: 'demo'\n";
    for (int i = 0; i < binaries; ++i) {
      absl::StrAppend(&text, "binaries { path: '/opt/", i, "' version: '1.0.",
                      i, "' }\n");
    }
    for (int i = 0; i < arguments; ++i) absl::StrAppend(&text, "args: 'a'\n");
    return ParseDefinition(text, kFile, "demo").problems;
  };
  EXPECT_THAT(problems(kMaxBinaries - 1, kMaxArguments - 1), IsEmpty());
  EXPECT_THAT(problems(kMaxBinaries, kMaxArguments), IsEmpty());
  EXPECT_THAT(problems(kMaxBinaries + 1, 0), SizeIs(1));
  EXPECT_THAT(problems(1, kMaxArguments + 1), SizeIs(1));
}

TEST(DefinitionTest, IsSoLongAndNoLonger) {
  const auto problems = [](size_t bytes) {
    std::string text =
        "name: 'demo' binaries { path: '/x' version: '1.0.0' }\n#";
    text.resize(bytes, 'x');
    return ParseDefinition(text, kFile, "demo").problems;
  };
  EXPECT_THAT(problems(kMaxTextBytes - 1), IsEmpty());
  EXPECT_THAT(problems(kMaxTextBytes), IsEmpty());
  EXPECT_THAT(problems(kMaxTextBytes + 1), SizeIs(1));
}

TEST(DefinitionTest, BytesThatAreNoTextAreToldInText) {
  for (const char* text :
       {"name: 'demo' \xff", "name: 'demo' binaries { path: '/\\377' }",
        "name: 'demo' binaries { path: '/x' } args: '\\377'",
        "name: 'demo' binaries { path: '/x' } env { name: 'A' value: '\\377' }",
        "name: '\xff'"}) {
    const ParsedDefinition parsed =
        ParseDefinition(text, "/c/\xff.textproto", "demo");
    EXPECT_FALSE(parsed.definition.has_value()) << text;
    ASSERT_THAT(parsed.problems, ::testing::Not(IsEmpty()));
    for (const v1::Problem& problem : parsed.problems) {
      EXPECT_THAT(problem.where(), HasSubstr("/c/\\xff.textproto:1:"));
      EXPECT_TRUE(v1::Problem().ParseFromString(problem.SerializeAsString()))
          << text;
    }
  }
}

TEST(DefinitionTest, KnowsWhichLanesAZccacheSpeaks) {
  EXPECT_THAT(LanesOf(BuiltInZccache(), v1::Binary(), "1.11.22"),
              ElementsAre(v1::WIRE_LANE_FRAME_V1, v1::WIRE_LANE_PROST_V16,
                          v1::WIRE_LANE_BINCODE_V15));
  EXPECT_THAT(LanesOf(BuiltInZccache(), v1::Binary(), "1.15.8"),
              ElementsAre(v1::WIRE_LANE_FRAME_V1));
  v1::Binary binary;
  binary.add_lanes(v1::WIRE_LANE_PROST_V16);
  EXPECT_THAT(LanesOf(BuiltInZccache(), binary, "1.11.22"),
              ElementsAre(v1::WIRE_LANE_PROST_V16));
}

struct Mistake {
  const char* name;
  const char* text;
  const char* where;  // after the file's name
  const char* what;
};

class DefinitionMistakeTest : public ::testing::TestWithParam<Mistake> {};

TEST_P(DefinitionMistakeTest, IsReportedWithItsPlace) {
  const Mistake& row = GetParam();
  const ParsedDefinition parsed = ParseDefinition(row.text, kFile, "demo");
  EXPECT_FALSE(parsed.definition.has_value());
  ASSERT_THAT(parsed.problems, SizeIs(1)) << parsed.problems[0].what();
  EXPECT_EQ(parsed.problems[0].where(), std::string(kFile) + row.where);
  EXPECT_THAT(parsed.problems[0].what(), HasSubstr(row.what));
}

constexpr char kGood[] = "name: 'demo'\nbinaries { path: '/opt/demo' }\n";

INSTANTIATE_TEST_SUITE_P(
    All, DefinitionMistakeTest,
    ::testing::Values(
        Mistake{"Typo", "name: 'demo'\nbinary { path: '/x' }\n", ":2:8",
                "binary"},
        Mistake{"NoText", "name: 'demo'\nbinaries { path: \n", ":3:1", ""},
        Mistake{"OtherName", "name: 'else'\nbinaries { path: '/x' }", ":1:1",
                "the file defines demo, not else"},
        Mistake{"BadName", "name: 'DEMO'\nbinaries { path: '/x' }", ":1:1",
                "a-z"},
        Mistake{"NoBinary", "name: 'demo'\n", ":1:1", "needs at least one"},
        Mistake{"RelativeBinary", "name: 'demo'\nbinaries {\n  path: 'demo'\n}",
                ":3:3", "must be absolute"},
        Mistake{"BadVersion",
                "name: 'demo'\nbinaries { path: '/x' version: '1' }", ":2:23",
                "version"},
        Mistake{"VersionTwice",
                "name: 'demo'\nbinaries { path: '/x' version: '1.0.0' }\n"
                "binaries { path: '/y' version: '1.0.0' }",
                ":3:23", "already another binary's"},
        Mistake{"Placeholder",
                "name: 'demo'\nbinaries { path: '/x' }\nargs: '{port}'", ":3:1",
                "unknown placeholder {port}"},
        Mistake{"LoneBrace",
                "name: 'demo'\nbinaries { path: '/x' }\nargs: 'a}b'", ":3:1",
                "a lone brace"},
        Mistake{"EnvironmentName",
                "name: 'demo'\nbinaries { path: '/x' }\n"
                "env { name: 'A=B' value: '' }",
                ":3:7", "holds no '='"},
        Mistake{"LongStart",
                "name: 'demo'\nbinaries { path: '/x' }\n"
                "start_timeout { seconds: 61 }",
                ":3:1", "at most 60 s"},
        Mistake{"NoGrace",
                "name: 'demo'\nbinaries { path: '/x' }\nstop_grace { }", ":3:1",
                "over 0 s"},
        Mistake{"IdleForLessThanASecond",
                "name: 'demo'\nbinaries { path: '/x' }\n"
                "idle_stop { nanos: 999999999 }",
                ":3:1", "from 1 s to 30 days"},
        Mistake{"IdleForEver",
                "name: 'demo'\nbinaries { path: '/x' }\n"
                "idle_stop { seconds: 2592001 }",
                ":3:1", "from 1 s to 30 days"}),
    [](const auto& info) { return info.param.name; });

TEST(DefinitionTest, IdleStopAtItsLimits) {
  for (const int seconds : {0, 1, 2592000}) {
    const ParsedDefinition parsed =
        ParseDefinition(absl::StrCat("name: 'demo' binaries { path: '/x' } ",
                                     "idle_stop { seconds: ", seconds, " }"),
                        "/c/demo.textproto", "demo");
    ASSERT_TRUE(parsed.definition.has_value()) << seconds;
    EXPECT_EQ(parsed.definition->idle_stop().seconds(), seconds);
  }
}

TEST(DefinitionTest, BinariesAtTheLimit) {
  std::string text = "name: 'demo'\n";
  for (int i = 0; i < 64; ++i) text += "binaries { path: '/x' }\n";
  EXPECT_TRUE(ParseDefinition(text, kFile, "demo").definition.has_value());
  text += "binaries { path: '/x' }\n";
  EXPECT_THAT(ParseDefinition(text, kFile, "demo").problems[0].what(),
              HasSubstr("more than 64"));
}

TEST(DefinitionTest, ArgumentsAtTheLimit) {
  std::string text = kGood;
  for (int i = 0; i < 256; ++i) text += "args: 'a'\n";
  EXPECT_TRUE(ParseDefinition(text, kFile, "demo").definition.has_value());
  text += "args: 'a'\n";
  EXPECT_THAT(ParseDefinition(text, kFile, "demo").problems[0].what(),
              HasSubstr("more than 256"));
}

running_process::broker::v1::ServiceDefinition Upstream() {
  running_process::broker::v1::ServiceDefinition upstream;
  upstream.set_service_name("demo");
  upstream.set_binary_path("/opt/demo");
  upstream.add_version_allow_list("1.2.3");
  return upstream;
}

TEST(UpstreamDefinitionTest, BringsItsStartContractAndVersion) {
  const ParsedDefinition parsed = ParseUpstreamDefinition(
      Upstream().SerializeAsString(), "/u/demo.servicedef", "demo");
  ASSERT_TRUE(parsed.definition.has_value());
  EXPECT_EQ(parsed.definition->start_contract(),
            v1::START_CONTRACT_RUNNING_PROCESS);
  EXPECT_EQ(parsed.definition->probe(), v1::PROBE_RUNNING_PROCESS_IDENTITY);
  EXPECT_EQ(parsed.definition->binaries(0).version(), "1.2.3");
  EXPECT_THAT(parsed.definition->args(), IsEmpty());
  EXPECT_THAT(parsed.allowed_versions, ElementsAre("1.2.3"));
}

TEST(UpstreamDefinitionTest, RefusesWhatDoesNotSayOneVersion) {
  auto several = Upstream();
  several.add_version_allow_list("1.2.4");
  auto none = Upstream();
  none.clear_version_allow_list();
  for (const auto& upstream : {several, none}) {
    const ParsedDefinition parsed = ParseUpstreamDefinition(
        upstream.SerializeAsString(), "/u/demo.servicedef", "demo");
    EXPECT_FALSE(parsed.definition.has_value());
    ASSERT_THAT(parsed.problems, SizeIs(1));
    EXPECT_THAT(parsed.problems[0].what(), HasSubstr("exactly one"));
  }
}

TEST(UpstreamDefinitionTest, RefusesWhatMakesNoSense) {
  auto relative = Upstream();
  relative.set_binary_path("demo");
  auto other = Upstream();
  other.set_service_name("else");
  auto version = Upstream();
  version.set_version_allow_list(0, "latest");
  for (const std::string& bytes :
       {relative.SerializeAsString(), other.SerializeAsString(),
        version.SerializeAsString(), std::string("\xff\xff\xff")}) {
    const ParsedDefinition parsed =
        ParseUpstreamDefinition(bytes, "/u/demo.servicedef", "demo");
    EXPECT_FALSE(parsed.definition.has_value());
    EXPECT_THAT(parsed.problems, SizeIs(1));
  }
}

}  // namespace
}  // namespace zcbroker::service
