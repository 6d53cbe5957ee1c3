// Worlds: what makes two daemons of one version incompatible (docs/protocol.md,
// "Worlds"). A daemon of one world is never given to a client of another.
#ifndef ZCBROKER_SERVICE_CORE_WORLD_H_
#define ZCBROKER_SERVICE_CORE_WORLD_H_

#include <string>
#include <vector>

#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::service {

// How `theirs` differs from `ours` in what matters to a service with this
// rule, a line for each difference; empty: the same world. A field that
// `theirs` leaves empty is not compared; cache root and namespace matter only
// to ENDPOINT_RULE_ZCCACHE.
std::vector<std::string> WorldDifferences(const v1::World& ours,
                                          const v1::World& theirs,
                                          v1::EndpointRule rule);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_WORLD_H_
