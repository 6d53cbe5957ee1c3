// What the broker could start: every service with the versions that are
// installed. A value; the host reads definitions and binaries and builds one.
#ifndef ZCBROKER_SERVICE_CORE_CATALOG_H_
#define ZCBROKER_SERVICE_CORE_CATALOG_H_

#include <map>
#include <string>
#include <vector>

#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"

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
};

struct Catalog {
  std::map<std::string, CatalogService> services;
  // Definitions that could not be used.
  std::vector<v1::Problem> problems;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_CATALOG_H_
