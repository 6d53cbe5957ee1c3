// The way to a backend with no broker in it: the route info that the broker
// keeps beside each named route says where the backend itself listens
// (ipc/route_info.h). Links no gRPC and no full protobuf.
#ifndef ZCBROKER_CLIENT_NAMED_ROUTE_H_
#define ZCBROKER_CLIENT_NAMED_ROUTE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/broker_negotiator.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::client {

struct NamedRouteRequest {
  absl::string_view service;
  absl::string_view version;
  const std::vector<ipc::WireLane>& accepted_lanes;  // the best first, not none
  const World& world;
};

// What a route info means to a client.
struct UsableRoute {
  BackendRoute backend;  // its origin is kNamed
  ipc::WireLane lane;    // the first of the client's that the backend speaks
};

// Decides about an info that was read. Errors: kFailedPrecondition (it is of
// another world: the message names both values), kUnimplemented (no lane in
// common), kDataLoss (its endpoint is none).
absl::StatusOr<UsableRoute> UseRouteInfo(const zcbroker::v1::RouteInfo& info,
                                         const NamedRouteRequest& request);

// Where the info that `request` is about would be; for StampOf.
std::string RouteInfoPath(const ipc::RuntimeDir& dir,
                          const NamedRouteRequest& request);

struct NamedConnection {
  UsableRoute route;
  ipc::UniqueFd fd;
};

// Reads the info, decides, connects, and checks that the other end is this
// user's and the process that the info names. No error here is one for the
// caller of the library: the broker is asked next. Errors: those of
// ipc::ReadRouteInfo (kNotFound: there is none), of UseRouteInfo, of
// ipc::Connect (the info is stale), kPermissionDenied (the other end is another
// user), kFailedPrecondition (another process: stale, too). Thread-safe.
absl::StatusOr<NamedConnection> ConnectNamedRoute(
    const ipc::RuntimeDir& dir, const NamedRouteRequest& request,
    absl::Duration connect_timeout);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_NAMED_ROUTE_H_
