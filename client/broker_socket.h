// Reaching a broker's socket safely: found by the one rule for runtime
// directories, connected, and its owner checked before a byte is written.
#ifndef ZCBROKER_CLIENT_BROKER_SOCKET_H_
#define ZCBROKER_CLIENT_BROKER_SOCKET_H_

#include "absl/status/statusor.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {

// `zcbroker/broker.sock` of this user, from XDG_RUNTIME_DIR and the rule in
// ipc/runtime_dir.h. Errors carry kBrokerMissing or kBrokerUnreachable.
absl::StatusOr<ipc::Endpoint> FindBroker(
    const ipc::EnvironmentLookup& environment);

// The name under which clients of running-process look for a shared broker;
// ours publishes itself there too. Reads XDG_RUNTIME_DIR and TMPDIR.
absl::StatusOr<ipc::Endpoint> FindSharedBroker(
    const ipc::EnvironmentLookup& environment);

// Connects and checks that the other end runs as this process's effective
// user. Errors carry kBrokerMissing, kBrokerRefused, kBrokerForeign,
// kBrokerMute (its queue stayed full until `contact`) or kBrokerUnreachable.
absl::StatusOr<ipc::UniqueFd> ConnectBroker(const ipc::Endpoint& broker,
                                            ipc::Deadline contact);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BROKER_SOCKET_H_
