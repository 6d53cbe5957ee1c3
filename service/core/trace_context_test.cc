#include "service/core/trace_context.h"

#include <string>

#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

struct Case {
  const char* name;
  std::string text;
  bool is_one;
};

class IsTraceparentTest : public testing::TestWithParam<Case> {};

TEST_P(IsTraceparentTest, Decides) {
  EXPECT_EQ(IsTraceparent(GetParam().text), GetParam().is_one)
      << GetParam().text;
}

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c";
const std::string kParent = "b7ad6b7169203331";

INSTANTIATE_TEST_SUITE_P(
    All, IsTraceparentTest,
    testing::Values(
        Case{"Sampled", "00-" + kTrace + "-" + kParent + "-01", true},
        Case{"NotSampled", "00-" + kTrace + "-" + kParent + "-00", true},
        Case{"ALaterVersion", "cc-" + kTrace + "-" + kParent + "-01", true},
        Case{"Empty", "", false},
        Case{"TheVersionThatIsNone", "ff-" + kTrace + "-" + kParent + "-01",
             false},
        Case{"UpperCase", "00-" + kTrace + "-B7AD6B7169203331-01", false},
        Case{"NoTrace", "00-" + std::string(32, '0') + "-" + kParent + "-01",
             false},
        Case{"NoParent", "00-" + kTrace + "-" + std::string(16, '0') + "-01",
             false},
        Case{"ShortTrace", "00-" + kTrace.substr(1) + "-" + kParent + "-01",
             false},
        Case{"LongParent", "00-" + kTrace + "-" + kParent + "0-01", false},
        Case{"NoFlags", "00-" + kTrace + "-" + kParent, false},
        Case{"More", "cc-" + kTrace + "-" + kParent + "-01-what", false},
        Case{"AnotherVariable",
             "00-" + kTrace + "-" + kParent + "-01\nLD_PRELOAD=x", false},
        Case{"NotHex", "00-" + kTrace + "-" + "g7ad6b7169203331-01", false}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace zcbroker::service
