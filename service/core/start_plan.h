// What the host needs in order to have a backend running.
#ifndef ZCBROKER_SERVICE_CORE_START_PLAN_H_
#define ZCBROKER_SERVICE_CORE_START_PLAN_H_

#include <cstdint>

#include "proto/zcbroker/v1/definition.pb.h"
#include "service/core/catalog.h"

namespace zcbroker::service {

// One attempt to have a backend behind a key, and later that backend.
using StartId = uint64_t;

struct StartPlan {
  StartId id = 0;
  v1::ServiceDefinition definition;
  InstalledVersion version;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_START_PLAN_H_
