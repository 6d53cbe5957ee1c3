// What the host needs in order to have a backend running.
#ifndef ZCBROKER_SERVICE_CORE_START_PLAN_H_
#define ZCBROKER_SERVICE_CORE_START_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "proto/zcbroker/v1/definition.pb.h"
#include "service/core/catalog.h"

namespace zcbroker::service {

// One attempt to have a backend behind a key, and later that backend.
using StartId = uint64_t;

// A backend that started itself (Broker.Register).
struct Registration {
  // Of the lease.
  uint64_t lease = 0;
  // Where it says that it listens.
  std::string endpoint;
};

struct StartPlan {
  StartId id = 0;
  v1::ServiceDefinition definition;
  InstalledVersion version;
  // BackendRoute.generation, should it succeed.
  uint64_t generation = 1;
  // Where not empty: adopt what runs, and spawn nothing, for this reason.
  std::string only_adopt;
  // An earlier broker was draining or ending it, as its journal says: it is
  // gone on with as it is, whether or not it still listens, without `started`
  // being reported.
  bool leaving = false;
  // Adopt who listens there, if it is the process that registers it and runs
  // from the plan's binary; else fail.
  absl::optional<Registration> registration;
  // NegotiateRequest.traceparent of who caused it; empty: none.
  std::string traceparent;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_START_PLAN_H_
