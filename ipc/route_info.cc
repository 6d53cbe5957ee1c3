#include "ipc/route_info.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "ipc/names.h"
#include "ipc/status_macros.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::ipc {

std::string RouteStem(absl::string_view version) {
  if (version.size() <= kMaxRouteStemBytes) return std::string(version);
  return UserSidHash(version);
}

absl::StatusOr<Endpoint> RouteSocket(const RuntimeDir& dir,
                                     absl::string_view service,
                                     absl::string_view version) {
  ZCB_RETURN_IF_ERROR(CheckServiceName(service));
  ZCB_RETURN_IF_ERROR(CheckVersion(version));
  return Endpoint::Parse(dir.Entry(
      absl::StrCat("routes/", service, "/", RouteStem(version), ".sock")));
}

}  // namespace zcbroker::ipc
