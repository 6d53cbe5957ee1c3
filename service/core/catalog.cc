#include "service/core/catalog.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ipc/names.h"

namespace zcbroker::service {

std::string WhyBlocked(const VersionPolicy& policy, const std::string& service,
                       const std::string& version) {
  const std::string by =
      policy.source.empty() ? "" : absl::StrCat(" (", policy.source, ")");
  if (!policy.services.empty() && policy.services.count(service) == 0) {
    return absl::StrCat("blocked by policy", by, ": allows only the services ",
                        absl::StrJoin(policy.services, ", "));
  }
  if (policy.blocked.count({service, version}) > 0) {
    return absl::StrCat("blocked by policy", by);
  }
  const auto allowed = policy.allowed.find(service);
  if (allowed != policy.allowed.end() && allowed->second.count(version) == 0) {
    return absl::StrCat("blocked by policy", by, ": allows only ",
                        absl::StrJoin(allowed->second, ", "));
  }
  const auto floor = policy.floors.find(service);
  if (floor != policy.floors.end() &&
      ipc::CompareVersions(version, floor->second) < 0) {
    return absl::StrCat("blocked by policy", by, ": older than ",
                        floor->second);
  }
  return "";
}

}  // namespace zcbroker::service
