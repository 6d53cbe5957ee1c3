#include "service/keeper/restart_rules.h"

#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(999);
constexpr absl::Duration kLong = absl::Seconds(1);

BrokerEnd Exited(int status) { return {status, absl::nullopt}; }
BrokerEnd Killed(int signal) { return {absl::nullopt, signal}; }

RestartRules Served() {
  RestartRules rules;
  rules.OnReady();
  return rules;
}

TEST(RestartRulesTest, ABrokerThatWasNeverReadyPassesItsStatusOn) {
  for (const int status : {0, 1, 2, 14, 77}) {
    EXPECT_EQ(RestartRules().OnEnd(Exited(status), kLong).exit_status, status);
  }
  EXPECT_EQ(RestartRules().OnEnd(Killed(9), kShort).exit_status, 137);
}

TEST(RestartRulesTest, AnOrderlyEndIsTheKeepersToo) {
  EXPECT_EQ(Served().OnEnd(Exited(0), kShort).exit_status, 0);
}

TEST(RestartRulesTest, OtherEndsAfterReadyAreMendedAtOnce) {
  for (const BrokerEnd& end :
       {Exited(1), Exited(2), Exited(14), Exited(77), Killed(9), Killed(6)}) {
    const KeeperDecision decision = Served().OnEnd(end, kShort);
    EXPECT_EQ(decision.exit_status, absl::nullopt);
    EXPECT_EQ(decision.delay, absl::ZeroDuration());
  }
}

TEST(RestartRulesTest, WhoWasToldToEndDoesNotStartAnother) {
  RestartRules rules = Served();
  rules.OnStop();
  EXPECT_EQ(rules.OnEnd(Killed(9), kLong).exit_status, 137);
  EXPECT_EQ(rules.OnEnd(Exited(1), kLong).exit_status, 1);
  // It had begun to hand over.
  EXPECT_EQ(rules.OnEnd(Exited(15), kLong).exit_status, 0);
}

TEST(RestartRulesTest, WhatHangsLetsClientsGoAtOnce) {
  RestartRules rules = Served();
  ASSERT_FALSE(rules.OnEnd(Killed(9), kLong).let_clients_go);
  const absl::Duration almost =
      RestartRules::kReadyWithin - absl::Milliseconds(1);
  EXPECT_FALSE(rules.OnEnd(Killed(9), almost).let_clients_go);
  const KeeperDecision hung =
      rules.OnEnd(Killed(9), RestartRules::kReadyWithin);
  EXPECT_TRUE(hung.let_clients_go);
  EXPECT_EQ(hung.exit_status, absl::nullopt);
}

TEST(RestartRulesTest, WhatCannotGetReadyLetsClientsGo) {
  RestartRules rules = Served();
  // The one that was ready does not count.
  EXPECT_FALSE(rules.OnEnd(Killed(9), kShort).let_clients_go);
  for (const absl::Duration lived : {kShort, kLong}) {
    for (int failed = 1; failed <= 10; ++failed) {
      EXPECT_EQ(rules.OnEnd(Exited(1), lived).let_clients_go, failed >= 9)
          << failed;
    }
    rules.OnReady();
    EXPECT_FALSE(rules.OnEnd(Killed(9), lived).let_clients_go);
  }
}

TEST(RestartRulesTest, WhoDiesOftenButWasReadyKeepsItsClients) {
  RestartRules rules = Served();
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(rules.OnEnd(Killed(9), kShort).let_clients_go);
    rules.OnReady();
  }
}

// The delays of a hundred short lives, in milliseconds.
std::vector<int> DelaysOfShortLives(bool ready) {
  RestartRules rules = Served();
  // The first life, which was ready in any case.
  rules.OnEnd(Killed(9), kLong);
  std::vector<int> millis;
  for (int i = 0; i < 100; ++i) {
    if (ready) rules.OnReady();
    const KeeperDecision decision = rules.OnEnd(Killed(9), kShort);
    EXPECT_EQ(decision.exit_status, absl::nullopt);
    millis.push_back(
        static_cast<int>(absl::ToInt64Milliseconds(decision.delay)));
  }
  return millis;
}

TEST(RestartRulesTest, ShortLivesAreRestartedEverLaterAndWithoutEnd) {
  const std::vector<int> millis = DelaysOfShortLives(/*ready=*/false);
  EXPECT_EQ(std::vector<int>(millis.begin(), millis.begin() + 13),
            (std::vector<int>{0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560,
                              5000, 5000, 5000}));
  EXPECT_EQ(millis.back(), 5000);
}

TEST(RestartRulesTest, WhoGetsReadyEachTimeIsNotWaitedForLong) {
  const std::vector<int> millis = DelaysOfShortLives(/*ready=*/true);
  EXPECT_EQ(std::vector<int>(millis.begin(), millis.begin() + 7),
            (std::vector<int>{0, 10, 20, 40, 80, 100, 100}));
  EXPECT_EQ(millis.back(), 100);
}

TEST(RestartRulesTest, ALongLifeClearsTheDelay) {
  RestartRules rules = Served();
  for (int i = 0; i < 5; ++i) rules.OnEnd(Killed(9), kShort);
  EXPECT_EQ(rules.OnEnd(Killed(9), kLong).delay, absl::ZeroDuration());
  EXPECT_EQ(rules.OnEnd(Killed(9), kShort).delay, absl::ZeroDuration());
  EXPECT_EQ(rules.OnEnd(Killed(9), kShort).delay, absl::Milliseconds(10));
}

TEST(RestartRulesTest, WhoHandedOverIsSucceededAtOnce) {
  RestartRules rules = Served();
  for (int i = 0; i < 5; ++i) {
    const KeeperDecision decision = rules.OnEnd(Exited(15), kShort);
    EXPECT_EQ(decision.exit_status, absl::nullopt);
    EXPECT_EQ(decision.delay, absl::ZeroDuration());
    rules.OnReady();
  }
  // Nor is it counted against the next.
  EXPECT_EQ(rules.OnEnd(Killed(9), kShort).delay, absl::ZeroDuration());
  // Who was not ready had nothing to hand over.
  rules.OnEnd(Exited(15), kShort);
  EXPECT_GT(rules.OnEnd(Exited(15), kShort).delay, absl::ZeroDuration());
}

TEST(RestartRulesTest, SomebodyElseWhoStaysTheBrokerEndsTheKeeper) {
  RestartRules rules = Served();
  for (int i = 1; i < RestartRules::kMaxAlreadyRunning; ++i) {
    EXPECT_EQ(rules.OnEnd(Exited(14), kShort).exit_status, absl::nullopt) << i;
  }
  EXPECT_EQ(rules.OnEnd(Exited(14), kShort).exit_status, 14);
  // In a row only.
  RestartRules other = Served();
  for (int i = 1; i < RestartRules::kMaxAlreadyRunning; ++i) {
    other.OnEnd(Exited(14), kShort);
  }
  EXPECT_EQ(other.OnEnd(Killed(9), kShort).exit_status, absl::nullopt);
  EXPECT_EQ(other.OnEnd(Exited(14), kShort).exit_status, absl::nullopt);
}

}  // namespace
}  // namespace zcbroker::service
