// What the broker could start: every service with the versions that are
// installed. A value; the host reads definitions and binaries and builds one.
#ifndef ZCBROKER_SERVICE_CORE_CATALOG_H_
#define ZCBROKER_SERVICE_CORE_CATALOG_H_

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"
#include "service/core/connection_limits.h"

namespace zcbroker::service {

// One version of a service and the executable that is it.
struct InstalledVersion {
  std::string version;
  // Absolute path.
  std::string binary;
  // Device, inode, size and modification time of that file as text: changes
  // when the file does, so that a rebuilt binary of one version is another
  // backend.
  std::string binary_identity;
  std::vector<v1::WireLane> lanes;
};

struct CatalogService {
  // Everything but the binaries: how to start and probe them.
  v1::ServiceDefinition definition;
  // Newest first.
  std::vector<InstalledVersion> versions;
  // Binaries of the definition that cannot be used, one line each with the
  // reason: evidence when their version is asked for.
  std::vector<std::string> unusable;
  // Versions a definition allows at all; empty: every installed one. Only
  // upstream's .servicedef files set it.
  std::vector<std::string> allowed_versions;
  // A file, or "built-in".
  std::string source;
  // The fields of the definition that are not defaults: who set them.
  std::map<std::string, std::string> set_by;
};

// What may run, and what is kept. From the managed policy
// (service/core/policy).
struct VersionPolicy {
  // Service and version.
  using Versions = std::set<std::pair<std::string, std::string>>;

  // The newest `keep_newest` installed versions of a service are kept for as
  // long as their definition says (idle_stop); an older one is stopped when
  // nobody has used it for `keep_used_for`, if that is shorter. 0: no version
  // counts as old.
  size_t keep_newest = 0;
  absl::Duration keep_used_for = absl::Hours(7 * 24);
  // Never stopped for want of use.
  Versions pinned;
  // What WhyBlocked gives a reason for is refused with VERSION_BLOCKED; one
  // that runs is drained.
  Versions blocked;
  // By service: the only versions that may run. Without an entry: any.
  std::map<std::string, std::set<std::string>> allowed;
  // By service: older versions may not run.
  std::map<std::string, std::string> floors;
  // The only services that may run; empty: any.
  std::set<std::string> services;
  // The file that says so; empty: there is none.
  std::string source;
  // Why nothing new is started, in one sentence; empty: it is. What runs goes
  // on, and is adopted where another broker left it.
  std::string no_starts;
  // Lower limits than the broker's own; nothing: those.
  absl::optional<size_t> concurrent_starts;
  absl::optional<size_t> waiters_per_start;
};

// Why this version may not run, in one clause that names the file; empty: it
// may.
std::string WhyBlocked(const VersionPolicy& policy, const std::string& service,
                       const std::string& version);

struct Catalog {
  std::map<std::string, CatalogService> services;
  // Definitions that could not be used.
  std::vector<v1::Problem> problems;
  VersionPolicy versions;
  // The broker's own, or what the policy lowers them to.
  ConnectionLimits connection_limits;
  // What is in force, and who set it.
  std::vector<v1::Setting> settings;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_CATALOG_H_
