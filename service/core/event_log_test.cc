#include "service/core/event_log.h"

#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class EventLogTest : public ::testing::Test {
 protected:
  void Add(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      log_.Add(v1::Event(), absl::FromUnixMillis(1500));
    }
  }
  EventLog::ReadId Read(uint64_t after, bool wait = false) {
    log_.Read(++last_id_, after, wait,
              [this](const v1::StreamEventsResponse& response) {
                ++answers_;
                got_.clear();
                for (const v1::Event& event : response.events()) {
                  got_.push_back(event.sequence());
                }
              });
    return last_id_;
  }

  EventLog log_;
  EventLog::ReadId last_id_ = 0;
  int answers_ = 0;
  std::vector<uint64_t> got_;
};

TEST_F(EventLogTest, TellsWhatCameAfter) {
  Read(0);
  EXPECT_EQ(answers_, 1);
  EXPECT_THAT(got_, IsEmpty());
  Add(3);
  Read(0);
  EXPECT_THAT(got_, ElementsAre(1, 2, 3));
  Read(2);
  EXPECT_THAT(got_, ElementsAre(3));
  Read(3);
  EXPECT_THAT(got_, IsEmpty());
  EXPECT_EQ(answers_, 4);
}

TEST_F(EventLogTest, EachHasItsTime) {
  Add(1);
  log_.Read(1, 0, false, [](const v1::StreamEventsResponse& response) {
    EXPECT_EQ(response.events(0).time().seconds(), 1);
    EXPECT_EQ(response.events(0).time().nanos(), 500'000'000);
  });
}

TEST_F(EventLogTest, WhoWaitsGetsTheNextOne) {
  Add(1);
  Read(1, /*wait=*/true);
  EXPECT_EQ(answers_, 0);
  Add(2);
  EXPECT_EQ(answers_, 1);
  EXPECT_THAT(got_, ElementsAre(2));
}

TEST_F(EventLogTest, WhoIsForgottenGetsNothing) {
  log_.Forget(Read(0, /*wait=*/true));
  Add(1);
  EXPECT_EQ(answers_, 0);
}

TEST_F(EventLogTest, TheEndAnswersAllWhoWait) {
  Read(0, /*wait=*/true);
  Read(0, /*wait=*/true);
  log_.End();
  EXPECT_EQ(answers_, 2);
  EXPECT_THAT(got_, IsEmpty());
}

// Somebody who goes on after the broker was restarted.
TEST_F(EventLogTest, ANumberThatIsYetToComeIsOfAnEarlierBroker) {
  Add(2);
  Read(1000, /*wait=*/true);
  EXPECT_THAT(got_, ElementsAre(1, 2));
}

TEST_F(EventLogTest, SoManyAreKeptAndSoManyToldAtOnce) {
  for (const size_t count :
       {EventLog::kKept - 1, EventLog::kKept, EventLog::kKept + 1}) {
    EventLog log;
    for (size_t i = 0; i < count; ++i) log.Add(v1::Event(), absl::UnixEpoch());
    size_t kept = 0;
    uint64_t first = 0;
    uint64_t after = 0;
    for (bool more = true; more;) {
      log.Read(1, after, false, [&](const v1::StreamEventsResponse& response) {
        EXPECT_LE(response.events_size(), EventLog::kPerResponse);
        more = response.events_size() > 0;
        if (!more) return;
        if (first == 0) first = response.events(0).sequence();
        after = response.events(response.events_size() - 1).sequence();
        kept += response.events_size();
      });
    }
    EXPECT_EQ(kept, std::min(count, EventLog::kKept)) << count;
    EXPECT_EQ(first, count > EventLog::kKept ? 2u : 1u) << count;
    EXPECT_EQ(after, count);
  }
}

}  // namespace
}  // namespace zcbroker::service
