// The one call by which a program reaches its daemon, through a broker or
// without. The broker only ever yields an endpoint; the connection to it is
// ours, and every failure on the broker's side ends in a direct connection.
// Source: design section "The client"; spec zccache-ipc 6.1 and 10.
//
// | order | when                                    | connection            |
// |-------|-----------------------------------------|-----------------------|
// | 1     | RUNNING_PROCESS_DISABLE is "1"          | direct; nothing else  |
// |       |                                         | is even read          |
// | 2     | RUNNING_PROCESS_FAKE_BACKEND not empty  | there, else a warning |
// |       |                                         | and direct            |
// | 3     | ZCCACHE_BROKER_CONNECT is "1"           | where the broker      |
// |       |                                         | says, else direct     |
// | 4     | otherwise                               | direct                |
//
// Row 3 reads the route info that the broker keeps for every backend
// (ipc/route_info.h) and connects to where it leads, which takes no broker.
// Where there is none, or it leads nowhere, the broker is asked once, unless
// the breaker is open (ipc/breaker.h).
//
// TRACEPARENT is told to the broker that is asked (broker.proto,
// NegotiateRequest.traceparent).
//
// ZCBROKER_STRICT=1 turns the fallbacks of rows 2 and 3 into errors. Any other
// fallback leaves a record (fallback_records.h).
#ifndef ZCBROKER_CLIENT_CONNECT_DAEMON_H_
#define ZCBROKER_CLIENT_CONNECT_DAEMON_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/daemon_connection.h"
#include "client/fallback.h"
#include "ipc/environment.h"
#include "ipc/wire_lane.h"

namespace zcbroker::client {

// Makes the negotiator for row 3, and only then: finding the broker reads the
// environment. GrpcBroker(), FramedBroker() and SharedFramedBroker() are those
// there are. Errors carry a FallbackReason.
using NegotiatorFactory =
    std::function<absl::StatusOr<std::unique_ptr<BrokerNegotiator>>(
        const ipc::EnvironmentLookup& environment)>;

struct ConnectOptions {
  std::string service = "zccache";
  // The version the daemon must have; the caller's own.
  std::string wanted_version;
  // What the caller speaks, the best first. A broker's route is used with the
  // first of these that its backend understands, anything else with the first.
  std::vector<ipc::WireLane> accepted_lanes = {ipc::WireLane::kFrameV1,
                                               ipc::WireLane::kProstV16,
                                               ipc::WireLane::kBincodeV15};
  std::string client_name = "zcbroker";
  std::string client_version;
  StartPolicy start_policy = StartPolicy::kIfNeeded;
  // Asked where no route info leads to the daemon; without it row 3 falls back
  // as kBrokerMissing then.
  NegotiatorFactory negotiator;
  // Not set: from the environment, as zccache and its kind read it.
  absl::optional<World> world;
  // Of each connection to a daemon.
  absl::Duration connect_timeout = absl::Seconds(30);
  ipc::EnvironmentLookup environment = ipc::HostEnvironment();
  // Where row 2's warning goes. Not set: standard error.
  std::function<void(absl::string_view)> warn;
};

enum class ConnectLane { kDirect, kFakeBackend, kBroker };

// "direct", "fake_backend" or "broker".
absl::string_view ConnectLaneName(ConnectLane lane);

// How a connection came about.
struct ConnectRoute {
  ConnectLane lane = ConnectLane::kDirect;
  std::string endpoint;
  // With kBroker, else nullptr. Shared with what the process remembers of it.
  std::shared_ptr<const BackendRoute> backend;
  // Set where a row above asked for something else than it got: why, and what
  // happened in detail. Never with kBroker and kFakeBackend.
  absl::optional<FallbackReason> fallback;
  absl::Status fallback_status;
};

struct ConnectedDaemon {
  DaemonConnection connection;
  ConnectRoute route;
};

// Connects by the table above. `direct_endpoint` is used as it is. Thread-safe
// as long as nobody changes the environment. Takes the negotiation budget and
// twice `connect_timeout` at most.
// Errors: those of ipc::Connect for the direct endpoint (its message tells the
// fallback too); kInvalidArgument (`direct_endpoint` or the options are none);
// in strict mode those of BrokerNegotiator::Negotiate, and kUnavailable for a
// fake backend or a route that does not answer; kUnavailable also where a mute
// broker listens at the direct endpoint itself. An error that follows a
// fallback carries its reason (FallbackReasonOf).
absl::StatusOr<ConnectedDaemon> ConnectDaemonWithRoute(
    absl::string_view direct_endpoint, const ConnectOptions& options);

// The same, for callers that do not care how.
absl::StatusOr<DaemonConnection> ConnectDaemon(
    absl::string_view direct_endpoint, const ConnectOptions& options);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_CONNECT_DAEMON_H_
