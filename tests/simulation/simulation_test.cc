// Thousands of histories of the rules as they are shipped.
#include "tests/simulation/simulation.h"

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ZCBROKER_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ZCBROKER_SANITIZED 1
#endif

namespace zcbroker::simulation {
namespace {

// A sanitized history costs some ten times as much.
#ifdef ZCBROKER_SANITIZED
constexpr uint64_t kHistories = 1'000;
#else
constexpr uint64_t kHistories = 20'000;
#endif

uint64_t only_seed = 0;

TEST(SimulationTest, EveryHistoryKeepsWhatMustHold) {
  if (only_seed != 0) GTEST_SKIP() << "one seed was asked for";
  for (uint64_t seed = 1; seed <= kHistories; ++seed) {
    const History history = MakeHistory(seed);
    ASSERT_EQ(Violation(history), "") << Explain(history);
  }
}

// --seed=N: that history alone, step by step.
TEST(SimulationTest, OneHistory) {
  if (only_seed == 0) GTEST_SKIP() << "--seed=N was not given";
  const History history = MakeHistory(only_seed);
  std::vector<std::string> steps;
  const std::string violation = Violation(history, &steps);
  for (const std::string& step : steps) std::cout << step << "\n";
  EXPECT_EQ(violation, "") << Explain(history);
}

TEST(SimulationTest, ASeedReplaysExactly) {
  for (const uint64_t seed : {7, 77, 777}) {
    std::vector<std::string> once;
    std::vector<std::string> again;
    Violation(MakeHistory(seed), &once);
    Violation(MakeHistory(seed), &again);
    EXPECT_EQ(once, again);
    EXPECT_GT(once.size(), 20u);
  }
}

}  // namespace
}  // namespace zcbroker::simulation

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!absl::ConsumePrefix(&argument, "--seed=") ||
        !absl::SimpleAtoi(argument, &zcbroker::simulation::only_seed)) {
      std::cerr << "unknown argument " << argv[i] << "\n";
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
