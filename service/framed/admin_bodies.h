// What upstream's admin verbs are answered with (spec broker-v1 section 9): one
// line of JSON, keys in alphabetical order, no newline at its end; or
// OpenMetrics. Pure.
//
// Where upstream shows a constant for what it does not know, the value here is
// the real one. What zcbroker has no notion of (budgets of spawns, pressure of
// inodes) is empty, in upstream's shape.
#ifndef ZCBROKER_SERVICE_FRAMED_ADMIN_BODIES_H_
#define ZCBROKER_SERVICE_FRAMED_ADMIN_BODIES_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::service {

struct AdminFacts {
  v1::GetStatusResponse status;
  v1::ListBackendsResponse backends;
  absl::Time now;
};

// Where upstream's .servicedef files are looked for.
struct ServiceDefDir {
  std::string path;
  // RUNNING_PROCESS_SERVICE_DEF_DIR names it.
  bool from_environment = false;
};

std::string AdminStatus(const AdminFacts& facts);
std::string AdminDump(const AdminFacts& facts, const ServiceDefDir& dir);
std::string AdminInstances(const AdminFacts& facts);
// Of one service; an empty name is "unknown", as upstream has it.
std::string AdminBackendHealth(const AdminFacts& facts,
                               absl::string_view service);
std::string AdminConfig(const AdminFacts& facts, const ServiceDefDir& dir);
// What a bundle would hold. None is written, by upstream either.
std::string AdminDiagnose(const AdminFacts& facts, absl::string_view output);
std::string AdminMetrics(const AdminFacts& facts);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_FRAMED_ADMIN_BODIES_H_
