#include "ipc/wire/lane_choice.h"

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace {

using zccache::v1::Request;

TEST(ChooseLaneTest, EveryRowOfTheTable) {
  Request control, compile;
  control.mutable_status();
  compile.mutable_compile();
  const struct {
    absl::string_view value;
    WireLane control;
    bool retry;
    WireLane other;
  } kRows[] = {
      {"", WireLane::kProstV16, true, WireLane::kBincodeV15},
      {"auto", WireLane::kProstV16, true, WireLane::kBincodeV15},
      {" AUTO\n", WireLane::kProstV16, true, WireLane::kBincodeV15},
      {"bincode", WireLane::kBincodeV15, false, WireLane::kBincodeV15},
      {"bincode-v15", WireLane::kBincodeV15, false, WireLane::kBincodeV15},
      {"v15", WireLane::kBincodeV15, false, WireLane::kBincodeV15},
      {"prost", WireLane::kProstV16, false, WireLane::kProstV16},
      {"Prost-V16", WireLane::kProstV16, false, WireLane::kProstV16},
      {"v16", WireLane::kProstV16, false, WireLane::kProstV16},
      {"frame", WireLane::kFrameV1, false, WireLane::kFrameV1},
      {"frame-v1", WireLane::kFrameV1, false, WireLane::kFrameV1},
  };
  for (const auto& row : kRows) {
    const LaneChoice choice = ChooseLane(control, row.value).value();
    EXPECT_EQ(choice.lane, row.control) << row.value;
    EXPECT_EQ(choice.bincode_retry, row.retry) << row.value;
    const LaneChoice other = ChooseLane(compile, row.value).value();
    EXPECT_EQ(other.lane, row.other) << row.value;
    EXPECT_FALSE(other.bincode_retry) << row.value;
  }
}

TEST(ChooseLaneTest, MisspeltValueFailsControlRequestsOnly) {
  Request control, compile;
  control.mutable_ping();
  compile.mutable_compile_ephemeral();
  EXPECT_EQ(ChooseLane(control, "v17").status(),
            absl::InvalidArgumentError("invalid ZCCACHE_DAEMON_WIRE=v17; "
                                       "expected auto, bincode, prost, or "
                                       "frame"));
  EXPECT_EQ(ChooseLane(compile, "v17").value().lane, WireLane::kBincodeV15);
}

}  // namespace
}  // namespace zcbroker::ipc
