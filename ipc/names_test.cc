#include "ipc/names.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

TEST(NamesTest, ServiceNamesFollowTheGrammar) {
  for (const std::string& good :
       {std::string("a"), std::string("zccache"), std::string("0-9"),
        std::string("-"), std::string(64, 'a')}) {
    EXPECT_TRUE(IsServiceName(good)) << good;
    EXPECT_TRUE(CheckServiceName(good).ok()) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string(65, 'a'), std::string("Zccache"),
        std::string("a b"), std::string("a_b"), std::string("a/b"),
        std::string("a.b"), std::string("a\0b", 3), std::string("\xc3\xa4")}) {
    EXPECT_FALSE(IsServiceName(bad)) << bad;
    EXPECT_EQ(CheckServiceName(bad).code(), absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST(NamesTest, VersionsFollowTheGrammar) {
  for (const std::string& good :
       {std::string("1.11.22"), std::string("0.0.0"), std::string("1.0.0-a..b"),
        std::string("1.0.0-rc.1"), std::string("001.2.3"),
        std::string("1.2.") + std::string(60, '9')}) {
    EXPECT_TRUE(IsVersion(good)) << good;
    EXPECT_TRUE(CheckVersion(good).ok()) << good;
  }
  for (const char* bad :
       {"", "1", "1.2", "1.2.3.4", "1..3", ".2.3", "1.2.", "v1.2.3", "1.2.3-",
        "1.2.3-A", "1.2.3-a-b", "1.2.3+build", "1.2.3 ", "-1.2.3", "1.2.x"}) {
    EXPECT_FALSE(IsVersion(bad)) << bad;
    EXPECT_EQ(CheckVersion(bad).code(), absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST(NamesTest, AWantedVersionHasAtMost64Bytes) {
  const std::string at_limit = "1.2." + std::string(60, '3');
  ASSERT_EQ(at_limit.size(), 64U);
  EXPECT_TRUE(CheckVersion(at_limit).ok());
  EXPECT_TRUE(CheckVersion(at_limit.substr(0, 63)).ok());
  EXPECT_FALSE(CheckVersion(at_limit + "3").ok());
  EXPECT_TRUE(IsVersion(at_limit + "3"));
}

// Each is older than the next.
TEST(NamesTest, VersionsAreOrdered) {
  const std::vector<std::string> ascending = {"junk",
                                              "junk2",
                                              "0.9.9",
                                              "1.0.0-1",
                                              "1.0.0-2",
                                              "1.0.0-10",
                                              "1.0.0-alpha",
                                              "1.0.0-alpha.1",
                                              "1.0.0-beta",
                                              "1.0.0",
                                              "1.9.0",
                                              "1.10.0",
                                              "1.11.22",
                                              "1.15.8",
                                              "2.0.0",
                                              "18446744073709551615.0.0",
                                              "18446744073709551616.0.0",
                                              "99999999999999999999999999.0.0"};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    for (std::size_t j = 0; j < ascending.size(); ++j) {
      const int order = CompareVersions(ascending[i], ascending[j]);
      EXPECT_EQ(order < 0, i < j) << ascending[i] << " " << ascending[j];
      EXPECT_EQ(order > 0, i > j) << ascending[i] << " " << ascending[j];
    }
  }
}

TEST(NamesTest, LeadingZerosDoNotCount) {
  EXPECT_EQ(CompareVersions("01.002.3", "1.2.003"), 0);
  EXPECT_EQ(CompareVersions("0.0.0", "00.0.000"), 0);
}

TEST(NamesTest, PrintableEscapesAndCuts) {
  EXPECT_EQ(Printable("plain"), "plain");
  EXPECT_EQ(Printable(absl::string_view("a\0\x1b", 3)), "a\\x00\\x1b");
  EXPECT_EQ(Printable("it's \"a\\x00\""), "it's \"a\\x00\"");
  const std::string cut = Printable(std::string(1000, 'x'), 10);
  EXPECT_EQ(cut, "xxxxxxx...");
  EXPECT_EQ(Printable("0123456789", 10), "0123456789");
}

}  // namespace
}  // namespace zcbroker::ipc
