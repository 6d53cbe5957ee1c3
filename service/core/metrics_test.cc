#include "service/core/metrics.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

using ::testing::HasSubstr;

TEST(MetricsTest, ABrokerThatHasDoneNothing) {
  v1::GetStatusResponse status;
  status.set_version("0.1.0");
  status.mutable_uptime()->set_seconds(7);
  status.set_connections(2);
  const std::string text = Metrics().Render(status, {});
  EXPECT_THAT(text, HasSubstr("# TYPE zcbroker_build info\n"));
  EXPECT_THAT(text, HasSubstr("zcbroker_build_info{version=\"0.1.0\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nzcbroker_uptime_seconds 7\n"));
  EXPECT_THAT(text, HasSubstr("\nzcbroker_open_connections 2\n"));
  EXPECT_THAT(text, HasSubstr("\nzcbroker_answer_seconds_count 0\n"));
  EXPECT_TRUE(absl::EndsWith(text, "\n# EOF\n"));
}

TEST(MetricsTest, CountersOfAFamilyStandTogether) {
  v1::GetStatusResponse status;
  (*status.mutable_counters())["negotiations"] = 5;
  (*status.mutable_counters())["refused.RATE_LIMITED"] = 2;
  (*status.mutable_counters())["refused.SERVICE_UNKNOWN"] = 3;
  const std::string text = Metrics().Render(status, {});
  EXPECT_THAT(text, HasSubstr("\nzcbroker_negotiations_total 5\n"));
  EXPECT_THAT(
      text, HasSubstr("# TYPE zcbroker_refused counter\n"
                      "# HELP zcbroker_refused See docs/operations.md, "
                      "Counters.\n"
                      "zcbroker_refused_total{what=\"RATE_LIMITED\"} 2\n"
                      "zcbroker_refused_total{what=\"SERVICE_UNKNOWN\"} 3\n"));
}

TEST(MetricsTest, BackendsAreCountedByState) {
  v1::ListBackendsResponse backends;
  for (int i = 0; i < 2; ++i) {
    v1::Backend& backend = *backends.add_backends();
    backend.set_service("zccache");
    backend.set_version("1.11.22");
    backend.set_state(v1::BACKEND_STATE_READY);
  }
  EXPECT_THAT(Metrics().Render({}, backends),
              HasSubstr("zcbroker_backends{service=\"zccache\",version=\"1.11."
                        "22\",state=\"ready\"} 2\n"));
}

TEST(MetricsTest, StepsAndAnswersAreHistograms) {
  Metrics metrics;
  v1::NegotiationStep step;
  step.set_name("bind");
  step.mutable_duration()->set_nanos(16'000'000);
  metrics.Observe(step);
  metrics.ObserveAnswer(absl::Milliseconds(250));
  metrics.ObserveAnswer(absl::Seconds(20));
  const std::string text = metrics.Render({}, {});
  EXPECT_THAT(text, HasSubstr("zcbroker_start_step_seconds_bucket{step=\"bind\""
                              ",le=\"0.01\"} 0\n"
                              "zcbroker_start_step_seconds_bucket{step=\"bind\""
                              ",le=\"0.05\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("zcbroker_start_step_seconds_sum{step=\"bind\"} "
                              "0.016\n"));
  EXPECT_THAT(text,
              HasSubstr("zcbroker_answer_seconds_bucket{le=\"0.1\"} 0\n"
                        "zcbroker_answer_seconds_bucket{le=\"0.5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("zcbroker_answer_seconds_bucket{le=\"10\"} 1\n"
                              "zcbroker_answer_seconds_bucket{le=\"+Inf\"} 2\n"
                              "zcbroker_answer_seconds_count 2\n"
                              "zcbroker_answer_seconds_sum 20.25\n"));
}

TEST(MetricsTest, LabelsAreQuoted) {
  v1::GetStatusResponse status;
  status.set_version("a\"b\\c\nd");
  EXPECT_THAT(Metrics().Render(status, {}),
              HasSubstr(R"({version="a\"b\\c\nd"})"));
}

}  // namespace
}  // namespace zcbroker::service
