#include "ipc/deadline.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

TEST(DeadlineTest, ZeroAndLessHaveExpired) {
  for (const absl::Duration d :
       {absl::ZeroDuration(), absl::Seconds(-1), -absl::InfiniteDuration()}) {
    const Deadline deadline = Deadline::After(d);
    EXPECT_TRUE(deadline.Expired());
    EXPECT_EQ(deadline.Remaining(), absl::ZeroDuration());
    EXPECT_EQ(deadline.PollTimeoutMillis(), 0);
  }
}

TEST(DeadlineTest, InfiniteNeverExpires) {
  for (const Deadline deadline :
       {Deadline::Infinite(), Deadline::After(absl::InfiniteDuration()),
        Deadline::After(absl::Hours(24 * 366 * 200))}) {
    EXPECT_TRUE(deadline.IsInfinite());
    EXPECT_FALSE(deadline.Expired());
    EXPECT_EQ(deadline.Remaining(), absl::InfiniteDuration());
    EXPECT_EQ(deadline.PollTimeoutMillis(), -1);
  }
}

TEST(DeadlineTest, PollTimeoutIsRoundedUpAndCapped) {
  const Deadline soon = Deadline::After(absl::Microseconds(900));
  const int millis = soon.PollTimeoutMillis();
  if (!soon.Expired()) {
    EXPECT_EQ(millis, 1);
  }
  EXPECT_EQ(Deadline::After(absl::Hours(24 * 60)).PollTimeoutMillis(),
            24 * 60 * 60 * 1000);
}

TEST(DeadlineTest, RemainingGoesDownFromTheDuration) {
  const Deadline deadline = Deadline::After(absl::Minutes(1));
  EXPECT_FALSE(deadline.Expired());
  EXPECT_LE(deadline.Remaining(), absl::Minutes(1));
  EXPECT_GT(deadline.Remaining(), absl::Seconds(30));
}

TEST(DeadlineTest, SoonerPicksTheFirstToExpire) {
  const Deadline early = Deadline::After(absl::Seconds(1));
  const Deadline late = Deadline::After(absl::Seconds(2));
  EXPECT_EQ(Sooner(early, late), early);
  EXPECT_EQ(Sooner(late, early), early);
  EXPECT_EQ(Sooner(Deadline::Infinite(), late), late);
}

}  // namespace
}  // namespace zcbroker::ipc
