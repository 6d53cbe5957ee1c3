// How many connections the broker has at most. Here, and not with those who
// keep them, since a managed policy lowers them (service/core/policy).
#ifndef ZCBROKER_SERVICE_CORE_CONNECTION_LIMITS_H_
#define ZCBROKER_SERVICE_CORE_CONNECTION_LIMITS_H_

#include <cstddef>

namespace zcbroker::service {

// docs/operations.md, "Limits".
struct ConnectionLimits {
  // To the broker's own socket, both protocols.
  size_t connections = 4096;
  // Those of one process.
  size_t connections_per_process = 256;
  // At public names.
  size_t relayed_connections = 4096;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_CONNECTION_LIMITS_H_
