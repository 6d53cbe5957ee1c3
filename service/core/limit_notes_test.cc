#include "service/core/limit_notes.h"

#include <chrono>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr Time kStart = Time(std::chrono::hours(1));

TEST(LimitNotesTest, TheFirstIsToldAtOnce) {
  LimitNotes notes;
  const auto event = notes.Note("connections.too_many", 1, kStart);
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->kind(), v1::EVENT_KIND_LIMIT_REACHED);
  EXPECT_EQ(event->refusal(), v1::REFUSAL_RATE_LIMITED);
  EXPECT_EQ(event->text(),
            "closed a connection: too many are open (connections.too_many, 1 "
            "since the start)");
}

TEST(LimitNotesTest, AFloodIsToldOnceASecondWithItsNumber) {
  LimitNotes notes;
  ASSERT_TRUE(notes.Note("silent_peers", 1, kStart).has_value());
  EXPECT_FALSE(
      notes.Note("silent_peers", 2, kStart + milliseconds(999)).has_value());
  const auto next =
      notes.Note("silent_peers", 700, kStart + milliseconds(1000));
  ASSERT_TRUE(next.has_value());
  EXPECT_THAT(next->text(), HasSubstr("700 since the start"));
}

TEST(LimitNotesTest, TheEndOfAFloodIsToldWithItsNumber) {
  LimitNotes notes;
  ASSERT_TRUE(notes.Note("silent_peers", 1, kStart).has_value());
  EXPECT_EQ(notes.NextDue(), absl::nullopt);
  for (uint64_t count = 2; count <= 200; ++count) {
    ASSERT_FALSE(notes.Note("silent_peers", count, kStart).has_value());
  }
  ASSERT_EQ(notes.NextDue(), kStart + milliseconds(1000));
  EXPECT_TRUE(notes.Overdue(kStart + milliseconds(999)).empty());
  const auto told = notes.Overdue(kStart + milliseconds(1000));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_THAT(told[0].text(), HasSubstr("200 since the start"));
  EXPECT_EQ(notes.NextDue(), absl::nullopt);
}

TEST(LimitNotesTest, OneFloodDoesNotHideAnother) {
  LimitNotes notes;
  ASSERT_TRUE(notes.Note("silent_peers", 1, kStart).has_value());
  EXPECT_TRUE(notes.Note("relay.limit", 1, kStart).has_value());
}

}  // namespace
}  // namespace zcbroker::service
