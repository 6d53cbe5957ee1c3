// Worlds: what makes two daemons of one version incompatible (docs/protocol.md,
// "Worlds"). A daemon of one world is never given to a client of another.
#ifndef ZCBROKER_SERVICE_CORE_WORLD_H_
#define ZCBROKER_SERVICE_CORE_WORLD_H_

#include <string>
#include <vector>

#include "absl/types/optional.h"
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

// `theirs` with what it leaves empty taken from `ours`, where this broker can
// serve it although it differs: a backend can be started with another cache
// root or namespace, not in another mount namespace. Nothing where the mount
// namespaces differ, or where a part is no text that a client makes (the root
// is absolute and normal, the namespace sanitized).
absl::optional<v1::World> ServableWorld(const v1::World& ours,
                                        const v1::World& theirs);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_WORLD_H_
