// Which daemon a launcher speaks to, from the route infos of the runtime
// directory alone: no broker is asked.
#ifndef ZCBROKER_CLIENT_LAUNCHER_ROUTE_CHOICE_H_
#define ZCBROKER_CLIENT_LAUNCHER_ROUTE_CHOICE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/process.h"
#include "ipc/runtime_dir.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::client {

inline constexpr absl::string_view kLauncherService = "zccache";

// The lanes a launcher speaks, the best first, and their numbers in
// zcbroker.v1.WireLane (broker.proto, which is no LITE message).
inline constexpr std::pair<ipc::WireLane, std::uint32_t> kLauncherLanes[] = {
    {ipc::WireLane::kFrameV1, ipc::WireLaneNumber(ipc::WireLane::kFrameV1)},
    {ipc::WireLane::kProstV16, ipc::WireLaneNumber(ipc::WireLane::kProstV16)},
    {ipc::WireLane::kBincodeV15,
     ipc::WireLaneNumber(ipc::WireLane::kBincodeV15)},
};

// What a client's daemon must share with it (ipc/zccache_rules.h).
struct LauncherWorld {
  std::string cache_root;
  std::string daemon_namespace;
  std::string mount_namespace;
};

struct LauncherRoute {
  zcbroker::v1::RouteInfo info;
  ipc::WireLane lane = ipc::WireLane::kFrameV1;
};

// Whether a launcher of `world` may use `info`, and how. Errors:
// kUnimplemented (no lane in common, or a generation of zccache that compiles
// otherwise than asked), kFailedPrecondition (another world, or a daemon that
// leads no process group).
absl::StatusOr<LauncherRoute> Fit(zcbroker::v1::RouteInfo info,
                                  const LauncherWorld& world);

// The newest version that fits, or exactly `version` where it is not empty.
// An info of a process in `dead` is stale and passed over. Errors: kNotFound
// (none), those of Fit where only such were found, and those of ReadRouteInfo
// where a directory or file is not to be trusted.
absl::StatusOr<LauncherRoute> ChooseRoute(
    const ipc::RuntimeDir& dir, absl::string_view version,
    const LauncherWorld& world, const std::vector<ipc::ProcessIdentity>& dead);

// Who listens behind a route.
ipc::ProcessIdentity IdentityOf(const zcbroker::v1::RouteInfo& info);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_ROUTE_CHOICE_H_
