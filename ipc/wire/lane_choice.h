// Which wire lane a client of zccache speaks, and how it labels its requests.
// No I/O; thread-safe. Source: spec zccache-ipc 3.5 and 3.6.
#ifndef ZCBROKER_IPC_WIRE_LANE_CHOICE_H_
#define ZCBROKER_IPC_WIRE_LANE_CHOICE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {

// Ping, Status, Shutdown and Clear: the requests that go over the control
// lane and need no cache.
bool IsControlRequest(const zccache::v1::Request& request);

struct LaneChoice {
  WireLane lane;
  // A failed attempt may be repeated once as bincode v15 on a new connection.
  bool bincode_retry = false;
};

// The lane for `request`, given the value of ZCCACHE_DAEMON_WIRE ("" when it
// is unset). Unset means v16 with retry for control requests and v15 for the
// rest; a value nobody knows is an error for a control request and v15 for the
// rest, as upstream has it.
// Error: kInvalidArgument, in upstream's words.
absl::StatusOr<LaneChoice> ChooseLane(const zccache::v1::Request& request,
                                      absl::string_view daemon_wire);

// What a zccache client writes as Request.request_id on the prost lanes, such
// as "control-ping" or "compile-ephemeral"; "" for a request without a body.
absl::string_view CanonicalRequestId(const zccache::v1::Request& request);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_LANE_CHOICE_H_
