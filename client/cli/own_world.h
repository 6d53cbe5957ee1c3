// The world this process lives in (docs/protocol.md, "Worlds"), and what it
// asks from there.
#ifndef ZCBROKER_CLIENT_CLI_OWN_WORLD_H_
#define ZCBROKER_CLIENT_CLI_OWN_WORLD_H_

#include <string>

#include "client/broker_negotiator.h"

namespace zcbroker::cli {

// "/" where it cannot be told.
std::string WorkingDirectory();

// For zccache and its kind: cache root and namespace by the environment.
client::World OwnWorld();

// A question of this process's for that backend, in its world and its trace.
client::NegotiationRequest OwnRequest(const std::string& service,
                                      const std::string& version);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_OWN_WORLD_H_
