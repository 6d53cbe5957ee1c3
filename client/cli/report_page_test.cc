#include "client/cli/report_page.h"

#include <regex>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/cli/report_pictures.h"
#include "client/cli/report_story.h"
#include "client/fallback_records.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kVersion[] = "1.0.0";

absl::Time At(double seconds) {
  return absl::FromUnixSeconds(1'800'000'000) + absl::Seconds(seconds);
}

// Events as a broker would have noted them, each at its time.
class History {
 public:
  explicit History(uint64_t first = 1) : next_(first) {}

  v1::Event& Add(double seconds, v1::EventKind kind, uint32_t pid = 0) {
    v1::Event& event = events_.emplace_back();
    event.set_sequence(next_++);
    const absl::Time time = At(seconds);
    event.mutable_time()->set_seconds(absl::ToUnixSeconds(time));
    event.mutable_time()->set_nanos(static_cast<int>(absl::ToInt64Nanoseconds(
        time - absl::FromUnixSeconds(absl::ToUnixSeconds(time)))));
    event.set_kind(kind);
    event.set_service("demo");
    event.set_version(kVersion);
    event.set_pid(pid);
    return event;
  }
  void AddStart(double seconds, uint32_t pid, double step_seconds) {
    Add(seconds, v1::EVENT_KIND_BACKEND_STARTING);
    v1::Event& ready =
        Add(seconds + step_seconds, v1::EVENT_KIND_BACKEND_READY, pid);
    v1::NegotiationStep& step = *ready.add_steps();
    step.set_name("bind");
    step.mutable_duration()->set_seconds(static_cast<int>(step_seconds));
  }
  Story Tell(double to, absl::optional<double> from = absl::nullopt) const {
    return cli::Tell(
        events_, backends_, fallbacks_,
        from.has_value() ? absl::make_optional(At(*from)) : absl::nullopt,
        At(to));
  }

  std::vector<v1::Event> events_;
  std::vector<v1::Backend> backends_;
  std::vector<client::FallbackRecord> fallbacks_;

 private:
  uint64_t next_;
};

std::vector<Phase::Kind> Phases(const Life& life) {
  std::vector<Phase::Kind> kinds;
  for (const Phase& phase : life.phases) kinds.push_back(phase.kind);
  return kinds;
}

TEST(ReportStoryTest, ALifeIsToldFromStartToEnd) {
  History history;
  history.AddStart(0, 7, 2);
  history.Add(10, v1::EVENT_KIND_BACKEND_DRAINING, 7);
  history.Add(12, v1::EVENT_KIND_BACKEND_ENDED, 7).set_text("it has ended");
  const Story story = history.Tell(20);
  ASSERT_THAT(story.starts, SizeIs(1));
  EXPECT_EQ(story.starts[0].outcome, Start::Outcome::kReady);
  EXPECT_EQ(story.starts[0].took, absl::Seconds(2));
  ASSERT_THAT(story.lanes, SizeIs(1));
  ASSERT_THAT(story.lanes[0].rows, SizeIs(1));
  ASSERT_THAT(story.lanes[0].rows[0], SizeIs(1));
  const Life& life = story.lanes[0].rows[0][0];
  EXPECT_THAT(Phases(life),
              ElementsAre(Phase::Kind::kStarting, Phase::Kind::kReady,
                          Phase::Kind::kDraining));
  EXPECT_EQ(life.phases[1].to, At(10));
  EXPECT_EQ(life.phases[2].to, At(12));
  EXPECT_EQ(life.end, "it has ended");
}

TEST(ReportStoryTest, BackendsOfSeveralWorldsHaveRowsOfTheirOwn) {
  History history;
  history.AddStart(0, 7, 1);
  history.AddStart(5, 8, 1);
  const Story story = history.Tell(20);
  ASSERT_THAT(story.lanes, SizeIs(1));
  EXPECT_THAT(story.lanes[0].rows, SizeIs(2));
}

TEST(ReportStoryTest, OneAfterTheOtherShareARow) {
  History history;
  history.AddStart(0, 7, 1);
  history.Add(4, v1::EVENT_KIND_BACKEND_ENDED, 7);
  history.AddStart(5, 8, 1);
  const Story story = history.Tell(20);
  ASSERT_THAT(story.lanes[0].rows, SizeIs(1));
  EXPECT_THAT(story.lanes[0].rows[0], SizeIs(2));
}

TEST(ReportStoryTest, AWindowCutsWhatIsAcrossItsEdge) {
  History history;
  history.AddStart(0, 7, 1);
  history.Add(2, v1::EVENT_KIND_REFUSED);
  history.Add(30, v1::EVENT_KIND_BACKEND_ENDED, 7);
  const Story story = history.Tell(40, 10);
  EXPECT_THAT(story.starts, IsEmpty());
  EXPECT_THAT(story.refusals, IsEmpty());
  EXPECT_THAT(story.events, SizeIs(1));
  const Life& life = story.lanes[0].rows[0][0];
  EXPECT_THAT(Phases(life), ElementsAre(Phase::Kind::kReady));
  EXPECT_EQ(life.phases[0].from, At(10));
  EXPECT_EQ(life.phases[0].to, At(30));
}

TEST(ReportStoryTest, WhatWasForgottenIsSaidAndWhatRunsIsShown) {
  History history(101);
  history.Add(50, v1::EVENT_KIND_REFUSED);
  v1::Backend& backend = history.backends_.emplace_back();
  backend.set_service("demo");
  backend.set_version(kVersion);
  backend.set_state(v1::BACKEND_STATE_READY);
  backend.mutable_route()->set_pid(7);
  backend.mutable_since()->set_seconds(absl::ToUnixSeconds(At(0)));
  const Story story = history.Tell(60);
  EXPECT_EQ(story.forgotten, 100u);
  EXPECT_EQ(story.remembered, At(50));
  const Life& life = story.lanes[0].rows[0][0];
  EXPECT_EQ(life.pid, 7u);
  EXPECT_EQ(life.phases[0].from, At(50));
  EXPECT_EQ(life.phases[0].to, At(60));
}

TEST(ReportStoryTest, AStartWithoutAnEndIsUnfinished) {
  History history;
  history.Add(0, v1::EVENT_KIND_BACKEND_STARTING);
  const Story story = history.Tell(3);
  ASSERT_THAT(story.starts, SizeIs(1));
  EXPECT_EQ(story.starts[0].outcome, Start::Outcome::kUnfinished);
  EXPECT_EQ(story.starts[0].took, absl::Seconds(3));
}

TEST(ReportStoryTest, TheSameRefusalIsToldOnceWithItsNumber) {
  History history;
  for (int i = 0; i < 3; ++i) {
    history.Add(i, v1::EVENT_KIND_REFUSED)
        .set_refusal(v1::REFUSAL_VERSION_NOT_INSTALLED);
  }
  const Story story = history.Tell(5);
  ASSERT_THAT(story.refusals, SizeIs(1));
  EXPECT_EQ(story.refusals[0].what, "VERSION_NOT_INSTALLED");
  EXPECT_EQ(story.refusals[0].count, 3u);
  EXPECT_EQ(story.refusals[0].first, At(0));
  EXPECT_EQ(story.refusals[0].last, At(2));
  EXPECT_THAT(story.refused, SizeIs(3));
}

constexpr char kMetrics[] =
    "a_seconds_bucket{le=\"0.1\"} 2\n"
    "a_seconds_bucket{le=\"1\"} 5\n"
    "a_seconds_bucket{le=\"+Inf\"} 6\n"
    "a_seconds_count 6\n"
    "a_seconds_sum 12.5\n"
    "b_seconds_bucket{step=\"bind\",le=\"0.1\"} 4\n"
    "b_seconds_bucket{step=\"bind\",le=\"+Inf\"} 4\n"
    "b_seconds_count{step=\"bind\"} 4\n"
    "b_seconds_sum{step=\"bind\"} 0.2\n"
    "# EOF\n";

TEST(ReportDistributionTest, BucketsAreThoseOfOpenMetricsLessTheOnesBelow) {
  const Distribution all = ReadDistribution(kMetrics, "a_seconds", "");
  EXPECT_THAT(all.buckets, ElementsAre(std::pair<double, uint64_t>(0.1, 2),
                                       std::pair<double, uint64_t>(1, 3)));
  EXPECT_EQ(all.beyond, 1u);
  EXPECT_EQ(all.count, 6u);
  EXPECT_EQ(all.sum, 12.5);
  EXPECT_EQ(ReadDistribution(kMetrics, "b_seconds", "step=\"bind\"").count, 4u);
  EXPECT_EQ(ReadDistribution(kMetrics, "b_seconds", "step=\"look\"").count, 0u);
}

TEST(ReportDistributionTest, OnlyWhatWasAddedCounts) {
  const Distribution after = ReadDistribution(kMetrics, "a_seconds", "");
  Distribution before = after;
  before.buckets[1].second = 1;
  before.count = 4;
  before.sum = 2;
  const Distribution between = Since(before, after);
  EXPECT_EQ(between.buckets[0].second, 0u);
  EXPECT_EQ(between.buckets[1].second, 2u);
  EXPECT_EQ(between.beyond, 0u);
  EXPECT_EQ(between.count, 2u);
  EXPECT_EQ(between.sum, 10.5);
  // A broker that was started since counts from nothing.
  EXPECT_EQ(Since(after, before).count, before.count);
}

TEST(ReportPageTest, ALimitThatWasReachedIsAFault) {
  History history;
  Observations seen;
  seen.story = history.Tell(5);
  EXPECT_THAT(Page(seen), HasSubstr("Nothing failed in this window"));
  history.Add(1, v1::EVENT_KIND_LIMIT_REACHED)
      .set_text("closed a connection: too many are open");
  seen.story = history.Tell(5);
  const std::string page = Page(seen);
  EXPECT_THAT(page, HasSubstr("1 limit reached"));
  EXPECT_THAT(page, HasSubstr("too many are open"));
}

TEST(ReportPageTest, WhatPeersSayIsTextAndNothingElse) {
  constexpr char kHostile[] = "<script>alert(\"'1&\")</script>";
  History history;
  for (const v1::EventKind kind :
       {v1::EVENT_KIND_BROKER_STARTED, v1::EVENT_KIND_BACKEND_STARTING,
        v1::EVENT_KIND_BACKEND_START_FAILED, v1::EVENT_KIND_REFUSED,
        v1::EVENT_KIND_REQUEST_REPLAYED, v1::EVENT_KIND_BACKEND_READY,
        v1::EVENT_KIND_BACKEND_DRAINING, v1::EVENT_KIND_BACKEND_WEDGED,
        v1::EVENT_KIND_BACKEND_ENDED, v1::EVENT_KIND_LIMIT_REACHED}) {
    v1::Event& event = history.Add(1, kind, 7);
    event.set_service(kHostile);
    event.set_version(kHostile);
    event.set_text(kHostile);
    event.add_evidence(absl::StrCat(kHostile, " again"));
    event.add_steps()->set_name(kHostile);
  }
  client::FallbackRecord& record = history.fallbacks_.emplace_back();
  record.wall = At(1);
  record.service = record.version = record.program = kHostile;
  Observations seen;
  seen.story = history.Tell(5);
  v1::Problem& problem = *seen.status.add_problems();
  problem.set_where(kHostile);
  problem.set_what(kHostile);
  v1::Setting& setting = *seen.status.add_settings();
  setting.set_name(kHostile);
  setting.set_value(kHostile);
  setting.set_source(kHostile);
  v1::ServiceSummary& service = *seen.status.add_services();
  service.set_name(kHostile);
  service.add_versions(kHostile);
  service.set_source(kHostile);
  (*seen.status.mutable_counters())[kHostile] = 1;
  seen.status.set_version(kHostile);
  seen.status.set_endpoint(kHostile);
  v1::Backend& backend = seen.backends.emplace_back();
  backend.set_service(kHostile);
  backend.set_version(kHostile);
  backend.set_last_end(kHostile);
  backend.add_evidence(kHostile);
  backend.mutable_world()->set_cache_root(kHostile);
  backend.mutable_route()->set_endpoint(kHostile);
  seen.cut_short = seen.host = seen.system = seen.version = kHostile;
  const std::string page = Page(seen);
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("\"'1")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(&quot;&#39;1&amp;&quot;)"));
}

// A time below the picture's upper edge, as far as its letters reach on a
// narrow screen, in pixels.
struct Tick {
  double left;
  double right;
};

std::vector<Tick> TicksOf(const std::string& picture) {
  constexpr double kScreen = 353;
  constexpr double kLetter = 7;
  static const std::regex kTick(
      "<line class=\"grid\"[^>]*>\n<text x=\"([0-9.]+)%\"[^>]* "
      "text-anchor=\"([a-z]+)\">([^<]*)<");
  std::vector<Tick> ticks;
  for (std::sregex_iterator match(picture.begin(), picture.end(), kTick), end;
       match != end; ++match) {
    const double x = kScreen * std::stod(match->str(1)) / 100;
    const double width = kLetter * static_cast<double>(match->length(3));
    const double left = match->str(2) == "start" ? x
                        : match->str(2) == "end" ? x - width
                                                 : x - width / 2;
    EXPECT_GE(left, 0);
    EXPECT_LE(left + width, kScreen + 1e-9);
    ticks.push_back({left, left + width});
  }
  return ticks;
}

TEST(ReportPicturesTest, TimesNeverTouchWhateverTheWindow) {
  for (double seconds = 0.005; seconds < 60 * 86400; seconds *= 1.07) {
    // Wherever between two ticks it begins, and across midnight.
    for (double begin = 0; begin < 1; begin += 0.07) {
      Story story;
      story.window.from = At(-seconds * begin);
      story.window.to = story.window.from + absl::Seconds(seconds);
      const std::vector<Tick> ticks = TicksOf(TimelinePicture(story));
      SCOPED_TRACE(absl::StrCat(seconds, " s from ",
                                absl::FormatTime(story.window.from)));
      ASSERT_GE(ticks.size(), 2u);
      ASSERT_LE(ticks.size(), 5u);
      for (size_t i = 1; i < ticks.size(); ++i) {
        ASSERT_LT(ticks[i - 1].right, ticks[i].left);
      }
    }
  }
}

TEST(ReportPageTest, ItNamesNothingOutside) {
  Observations seen;
  seen.story = History().Tell(0);
  const std::string page = Page(seen);
  EXPECT_TRUE(absl::StartsWith(page, kPageBegins));
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import"}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
  EXPECT_THAT(page, HasSubstr("Nothing failed in this window."));
}

}  // namespace
}  // namespace zcbroker::cli
