#include "client/wire_lane_proto.h"

namespace zcbroker::client {

v1::WireLane WireLaneToProto(ipc::WireLane lane) {
  switch (lane) {
    case ipc::WireLane::kBincodeV15:
      return v1::WIRE_LANE_BINCODE_V15;
    case ipc::WireLane::kProstV16:
      return v1::WIRE_LANE_PROST_V16;
    case ipc::WireLane::kFrameV1:
      return v1::WIRE_LANE_FRAME_V1;
    case ipc::WireLane::kOpaque:
      return v1::WIRE_LANE_OPAQUE;
  }
  return v1::WIRE_LANE_UNSPECIFIED;
}

absl::optional<ipc::WireLane> WireLaneFromProto(int lane) {
  switch (lane) {
    case v1::WIRE_LANE_BINCODE_V15:
      return ipc::WireLane::kBincodeV15;
    case v1::WIRE_LANE_PROST_V16:
      return ipc::WireLane::kProstV16;
    case v1::WIRE_LANE_FRAME_V1:
      return ipc::WireLane::kFrameV1;
    case v1::WIRE_LANE_OPAQUE:
      return ipc::WireLane::kOpaque;
    default:
      return absl::nullopt;
  }
}

}  // namespace zcbroker::client
