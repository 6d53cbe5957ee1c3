#include "client/wire_lane_proto.h"

#include <cstdint>

namespace zcbroker::client {

using ipc::WireLane;
using ipc::WireLaneNumber;

static_assert(WireLaneNumber(WireLane::kBincodeV15) ==
              v1::WIRE_LANE_BINCODE_V15);
static_assert(WireLaneNumber(WireLane::kProstV16) == v1::WIRE_LANE_PROST_V16);
static_assert(WireLaneNumber(WireLane::kFrameV1) == v1::WIRE_LANE_FRAME_V1);
static_assert(WireLaneNumber(WireLane::kOpaque) == v1::WIRE_LANE_OPAQUE);

v1::WireLane WireLaneToProto(WireLane lane) {
  return static_cast<v1::WireLane>(WireLaneNumber(lane));
}

absl::optional<WireLane> WireLaneFromProto(int lane) {
  return ipc::WireLaneFromNumber(static_cast<std::uint32_t>(lane));
}

}  // namespace zcbroker::client
