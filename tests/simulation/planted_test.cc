// Does the simulation find what it is there to find? The rules are built with
// bugs in them (plant.py); each is switched on alone and has to be caught.
#include <cstdint>
#include <iostream>
#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "tests/simulation/planted_bugs.h"
#include "tests/simulation/simulation.h"

namespace zcbroker::simulation {
namespace {

// The rarest of them needs some hundred.
constexpr uint64_t kHistories = 2'000;

const char* planted = "";

class PlantedTest : public ::testing::TestWithParam<const char*> {
 protected:
  ~PlantedTest() override { planted = ""; }
};

TEST_P(PlantedTest, IsCaughtAndShrunk) {
  planted = GetParam();
  for (uint64_t seed = 1; seed <= kHistories; ++seed) {
    const History history = MakeHistory(seed);
    if (Violation(history).empty()) continue;
    const History shrunken = Shrink(history);
    EXPECT_NE(Violation(shrunken), "");
    // What is left is short enough to be read, and all of it is needed.
    EXPECT_LE(shrunken.events.size(), 40u);
    for (size_t i = 0; i < shrunken.events.size(); ++i) {
      History without = shrunken;
      without.events.erase(without.events.begin() + static_cast<int64_t>(i));
      EXPECT_EQ(Violation(without), "") << "event " << i << " is not needed";
    }
    RecordProperty("seed", static_cast<int>(seed));
    std::cout << planted << ": seed " << seed << ", " << history.events.size()
              << " events, " << shrunken.events.size()
              << " needed: " << Violation(shrunken) << "\n";
    planted = "";
    EXPECT_EQ(Violation(shrunken), "") << "without the bug nothing is wrong";
    return;
  }
  FAIL() << "nobody noticed in " << kHistories << " histories";
}

INSTANTIATE_TEST_SUITE_P(All, PlantedTest, ::testing::ValuesIn(kPlantedBugs),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

}  // namespace

// Called by the planted rules.
bool Planted(const char* name) { return absl::string_view(name) == planted; }

}  // namespace zcbroker::simulation
