#include "client/launcher/route_choice.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/route_info.h"
#include "ipc/status_macros.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::client {

namespace {

using zcbroker::v1::RouteInfo;

// FrameV1 carries no number, so it leads to daemons of every generation. 1.15.8
// compiles over it, but not as asked: debug information and Rust's dependency
// files come back with other paths (seen). What we know speaks v15, too.
bool KnowsGeneration(const std::string& version) {
  const std::vector<ipc::WireLane> lanes = ipc::ZccacheLanes(version);
  return std::find(lanes.begin(), lanes.end(), ipc::WireLane::kBincodeV15) !=
         lanes.end();
}

}  // namespace

ipc::ProcessIdentity IdentityOf(const RouteInfo& info) {
  ipc::ProcessIdentity identity;
  identity.pid = static_cast<int>(info.pid());
  identity.start_time = info.start_time();
  identity.boot_id = info.boot_id();
  return identity;
}

absl::StatusOr<LauncherRoute> Fit(RouteInfo info, const LauncherWorld& world) {
  if (!KnowsGeneration(info.version())) {
    return absl::UnimplementedError(absl::StrCat(
        "zccache ", info.version(),
        " is of a generation whose results differ from the compiler's"));
  }
  if (info.cache_root() != world.cache_root ||
      info.daemon_namespace() != world.daemon_namespace ||
      info.mount_namespace() != world.mount_namespace) {
    return absl::FailedPreconditionError(
        absl::StrCat("the daemon of ", info.version(),
                     " serves another cache directory, "
                     "namespace or mount namespace"));
  }
  // What it leaves running could not be waited for.
  if (info.group() == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the daemon of ", info.version(), " leads no process group"));
  }
  for (const auto& [lane, number] : kLauncherLanes) {
    if (std::find(info.lanes().begin(), info.lanes().end(), number) !=
        info.lanes().end()) {
      return LauncherRoute{std::move(info), lane};
    }
  }
  return absl::UnimplementedError(
      absl::StrCat("the daemon of ", info.version(),
                   " speaks no protocol that this launcher knows"));
}

absl::StatusOr<LauncherRoute> ChooseRoute(
    const ipc::RuntimeDir& dir, absl::string_view version,
    const LauncherWorld& world, const std::vector<ipc::ProcessIdentity>& dead) {
  std::vector<std::string> versions;
  if (version.empty()) {
    ZCB_ASSIGN_OR_RETURN(versions,
                         ipc::ListRouteVersions(dir, kLauncherService));
  } else {
    versions.emplace_back(version);
  }
  absl::Status why = absl::NotFoundError("no daemon runs");
  for (const std::string& candidate : versions) {
    absl::StatusOr<RouteInfo> info =
        ipc::ReadRouteInfo(dir, kLauncherService, candidate);
    if (info.ok() &&
        std::find(dead.begin(), dead.end(), IdentityOf(*info)) != dead.end()) {
      continue;
    }
    absl::StatusOr<LauncherRoute> route =
        info.ok() ? Fit(*std::move(info), world)
                  : absl::StatusOr<LauncherRoute>(info.status());
    if (route.ok()) return route;
    // The newest one's reason is the one to tell.
    if (absl::IsNotFound(why) && !absl::IsNotFound(route.status())) {
      why = route.status();
    }
  }
  return why;
}

}  // namespace zcbroker::client
