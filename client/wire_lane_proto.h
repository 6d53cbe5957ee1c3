// Wire lanes as the API spells them.
#ifndef ZCBROKER_CLIENT_WIRE_LANE_PROTO_H_
#define ZCBROKER_CLIENT_WIRE_LANE_PROTO_H_

#include "absl/types/optional.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/broker.pb.h"

namespace zcbroker::client {

v1::WireLane WireLaneToProto(ipc::WireLane lane);

// Nothing for a lane of a broker newer than we are.
absl::optional<ipc::WireLane> WireLaneFromProto(int lane);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_WIRE_LANE_PROTO_H_
