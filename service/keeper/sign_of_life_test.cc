#include "service/keeper/sign_of_life.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/clock.h"

namespace zcbroker::service {
namespace {

using Next = SignOfLife::Next;

class SignOfLifeTest : public ::testing::Test {
 protected:
  // At the time that was asked for.
  Next Look(bool somebody_waits) {
    now_ = life_.next_look().value();
    return life_.OnTime(now_, somebody_waits);
  }
  absl::Duration UntilNextLook() const {
    return absl::FromChrono(life_.next_look().value() - now_);
  }

  SignOfLife life_;
  ipc::MonotonicTime now_ = ipc::MonotonicTime(std::chrono::hours(1));
};

TEST_F(SignOfLifeTest, WhileNobodyWaitsThereIsNothingToWakeFor) {
  EXPECT_TRUE(life_.quiet());
  EXPECT_FALSE(life_.next_look().has_value());
}

TEST_F(SignOfLifeTest, WhoeverComesMeansOneLookASecondLater) {
  life_.OnWaiting(now_);
  EXPECT_FALSE(life_.quiet());
  EXPECT_EQ(UntilNextLook(), SignOfLife::kAcceptsWithin);
  EXPECT_EQ(Look(false), Next::kNothing);
  EXPECT_TRUE(life_.quiet());
}

TEST_F(SignOfLifeTest, SilentTwiceIsTheEnd) {
  life_.OnWaiting(now_);
  for (int i = 0; i < SignOfLife::kMaxAsked; ++i) {
    EXPECT_EQ(Look(true), Next::kAsk);
    EXPECT_EQ(UntilNextLook(), SignOfLife::kAnswersWithin);
  }
  EXPECT_EQ(Look(true), Next::kEnd);
  // The one after it has the same time.
  EXPECT_TRUE(life_.quiet());
  life_.OnWaiting(now_);
  EXPECT_EQ(Look(true), Next::kAsk);
}

TEST_F(SignOfLifeTest, WhoeverAnswersOrAcceptsLives) {
  for (const bool answers : {true, false}) {
    for (int asked = 1; asked <= SignOfLife::kMaxAsked; ++asked) {
      life_.OnWaiting(now_);
      for (int i = 0; i < asked; ++i) ASSERT_EQ(Look(true), Next::kAsk);
      if (answers) {
        life_.OnAnswer();
      } else {
        EXPECT_EQ(Look(false), Next::kNothing);
      }
      EXPECT_TRUE(life_.quiet());
      // What was asked before counts no more.
      life_.OnWaiting(now_);
      for (int i = 0; i < SignOfLife::kMaxAsked; ++i) {
        ASSERT_EQ(Look(true), Next::kAsk);
      }
      life_.OnAnswer();
    }
  }
}

// A keeper that was stopped itself wakes up late; the broker may have been
// stopped with it.
TEST_F(SignOfLifeTest, AfterALateLookTheWaitBeginsAnew) {
  for (int asked = 1; asked <= SignOfLife::kMaxAsked; ++asked) {
    life_.OnWaiting(now_);
    for (int i = 0; i < asked; ++i) ASSERT_EQ(Look(true), Next::kAsk);
    for (int i = 0; i < 3; ++i) {
      now_ =
          life_.next_look().value() +
          absl::ToChronoMilliseconds(SignOfLife::kLate + absl::Milliseconds(1));
      EXPECT_EQ(life_.OnTime(now_, true), Next::kAsk);
      EXPECT_EQ(UntilNextLook(), SignOfLife::kAnswersWithin);
    }
    for (int i = asked; i < SignOfLife::kMaxAsked; ++i) {
      EXPECT_EQ(Look(true), Next::kAsk);
    }
    EXPECT_EQ(Look(true), Next::kEnd);
  }
}

}  // namespace
}  // namespace zcbroker::service
