#include "client/fallback.h"

#include <set>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace zcbroker::client {
namespace {

TEST(FallbackTest, EveryReasonHasANameOfItsOwnAndRidesAlong) {
  std::set<std::string> names;
  for (const FallbackReason reason : kAllFallbackReasons) {
    names.emplace(FallbackReasonName(reason));
    const absl::Status status =
        WithFallbackReason(absl::AbortedError("why"), reason);
    EXPECT_EQ(FallbackReasonOf(status), reason);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_EQ(status.message(), "why");
  }
  EXPECT_EQ(names.size(), kAllFallbackReasons.size());
}

TEST(FallbackTest, AFailureWithoutAReasonIsUnreachable) {
  EXPECT_EQ(FallbackReasonOf(absl::InternalError("?")),
            FallbackReason::kBrokerUnreachable);
}

TEST(FallbackTest, RefusalNamesRideAlong) {
  EXPECT_FALSE(RefusalNameOf(absl::NotFoundError("?")).has_value());
  EXPECT_EQ(*RefusalNameOf(
                WithRefusalName(absl::NotFoundError("?"), "SERVICE_UNKNOWN")),
            "SERVICE_UNKNOWN");
}

TEST(FallbackTest, EachReasonIsCountedAlone) {
  const auto before = FallbackCount(FallbackReason::kBrokerMute);
  const auto other = FallbackCount(FallbackReason::kBrokerSlow);
  CountFallback(FallbackReason::kBrokerMute);
  EXPECT_EQ(FallbackCount(FallbackReason::kBrokerMute), before + 1);
  EXPECT_EQ(FallbackCount(FallbackReason::kBrokerSlow), other);
}

}  // namespace
}  // namespace zcbroker::client
