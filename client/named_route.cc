#include "client/named_route.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/names.h"
#include "ipc/peer_identity.h"
#include "ipc/route_info.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"

namespace zcbroker::client {
namespace {

// A field that either side leaves empty is not compared.
absl::Status CheckSame(absl::string_view what, const std::string& theirs,
                       const std::string& ours) {
  if (theirs.empty() || ours.empty() || theirs == ours) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("another world: ", what, " there is ",
                   ipc::Printable(theirs), ", here ", ipc::Printable(ours)));
}

}  // namespace

absl::StatusOr<UsableRoute> UseRouteInfo(const zcbroker::v1::RouteInfo& info,
                                         const NamedRouteRequest& request) {
  const World& world = request.world;
  ZCB_RETURN_IF_ERROR(CheckSame("the mount namespace", info.mount_namespace(),
                                world.mount_namespace));
  ZCB_RETURN_IF_ERROR(
      CheckSame("the cache directory", info.cache_root(), world.cache_root));
  ZCB_RETURN_IF_ERROR(CheckSame("the daemon namespace", info.daemon_namespace(),
                                world.daemon_namespace));
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(info.endpoint());
  if (!endpoint.ok()) {
    return absl::DataLossError(
        absl::StrCat("the route info: ", endpoint.status().message()));
  }
  BackendRoute backend(*endpoint, info.version());
  for (const std::uint32_t number : info.lanes()) {
    const absl::optional<ipc::WireLane> lane = ipc::WireLaneFromNumber(number);
    if (lane.has_value()) backend.lanes.push_back(*lane);
  }
  const auto lane = std::find_first_of(
      request.accepted_lanes.begin(), request.accepted_lanes.end(),
      backend.lanes.begin(), backend.lanes.end());
  if (lane == request.accepted_lanes.end()) {
    return absl::UnimplementedError(
        absl::StrCat(endpoint->path(), " speaks no wire lane of ours"));
  }
  backend.pid = static_cast<int>(info.pid());
  backend.start_time = info.start_time();
  backend.boot_id = info.boot_id();
  backend.generation = info.generation();
  backend.origin = RouteOrigin::kNamed;
  return UsableRoute{std::move(backend), *lane};
}

std::string RouteInfoPath(const ipc::RuntimeDir& dir,
                          const NamedRouteRequest& request) {
  return dir.Entry(absl::StrCat("routes/", request.service, "/",
                                ipc::RouteStem(request.version), ".info"));
}

absl::StatusOr<NamedConnection> ConnectNamedRoute(
    const ipc::RuntimeDir& dir, const NamedRouteRequest& request,
    absl::Duration connect_timeout) {
  ZCB_ASSIGN_OR_RETURN(
      const zcbroker::v1::RouteInfo info,
      ipc::ReadRouteInfo(dir, request.service, request.version));
  ZCB_ASSIGN_OR_RETURN(UsableRoute route, UseRouteInfo(info, request));
  ZCB_ASSIGN_OR_RETURN(ipc::UniqueFd fd,
                       ipc::Connect(route.backend.endpoint,
                                    ipc::Deadline::After(connect_timeout)));
  // What listens there now may be another version's: an info outlives a
  // backend whose broker was killed.
  ZCB_RETURN_IF_ERROR(ipc::CheckPeerIsOurProcess(fd, route.backend.pid));
  return NamedConnection{std::move(route), std::move(fd)};
}

}  // namespace zcbroker::client
