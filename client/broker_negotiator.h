// Asking a broker where a backend listens: the question, the answer, and the
// interface that hides by which protocol it is asked.
#ifndef ZCBROKER_CLIENT_BROKER_NEGOTIATOR_H_
#define ZCBROKER_CLIENT_BROKER_NEGOTIATOR_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ipc/endpoint.h"
#include "ipc/wire_lane.h"

namespace zcbroker::client {

// What makes two daemons of one version incompatible; an empty field is not
// compared (zcbroker.v1.World).
struct World {
  std::string cache_root;
  std::string daemon_namespace;
  std::string mount_namespace;
};

enum class StartPolicy { kIfNeeded, kOnlyIfRunning };

struct NegotiationRequest {
  std::string service;
  std::string wanted_version;
  std::vector<ipc::WireLane> accepted_lanes;  // empty: whatever there is
  std::string client_name;                    // 64 bytes at most
  std::string client_version;                 // 128 bytes at most
  StartPolicy start_policy = StartPolicy::kIfNeeded;
  World world;
  // The caller's place in a distributed trace (W3C Trace Context); empty: none.
  // Told over gRPC only.
  std::string traceparent;
};

// kNamed: from the route info in the file system; no broker was asked.
enum class RouteOrigin {
  kUnknown,
  kReused,
  kStarted,
  kAdopted,
  kJoined,
  kNamed
};

// "reused", "started", "adopted", "joined", "named" or "unknown".
constexpr absl::string_view RouteOriginName(RouteOrigin origin) {
  switch (origin) {
    case RouteOrigin::kUnknown:
      return "unknown";
    case RouteOrigin::kReused:
      return "reused";
    case RouteOrigin::kStarted:
      return "started";
    case RouteOrigin::kAdopted:
      return "adopted";
    case RouteOrigin::kJoined:
      return "joined";
    case RouteOrigin::kNamed:
      return "named";
  }
  return "unknown";
}

struct NegotiationStep {
  std::string name;
  absl::Duration duration;
};

// Where a backend listens, and how that came about. A framed broker tells the
// endpoint and the version only; the rest is empty then.
struct BackendRoute {
  BackendRoute(ipc::Endpoint where, std::string which)
      : endpoint(std::move(where)), version(std::move(which)) {}

  ipc::Endpoint endpoint;
  std::string version;
  std::vector<ipc::WireLane> lanes;  // the best first
  int pid = 0;
  std::uint64_t start_time = 0;
  std::string boot_id;
  // A name that leads to this service and version for as long as the broker
  // has it, whether it runs or not; empty where the broker made none.
  std::string named_route;
  std::uint64_t generation = 0;
  RouteOrigin origin = RouteOrigin::kUnknown;
  std::vector<NegotiationStep> steps;
};

// How long a broker may take. Contact is any sign of life; a broker that has
// given one may wait for a daemon to start.
struct NegotiationBudgets {
  absl::Duration contact = absl::Milliseconds(500);
  absl::Duration negotiation = absl::Seconds(12);
};

class BrokerNegotiator {
 public:
  virtual ~BrokerNegotiator() = default;

  // Returns within the negotiation budget. Every error carries a
  // FallbackReason (fallback.h); its code: kNotFound, kFailedPrecondition,
  // kInvalidArgument, kResourceExhausted, kUnavailable as the broker refused;
  // kUnavailable (no broker), kPermissionDenied (not ours),
  // kDeadlineExceeded (mute or slow), kAborted (closed), kDataLoss (garbage or
  // a reply that makes no sense). Thread-safe.
  virtual absl::StatusOr<BackendRoute> Negotiate(
      const NegotiationRequest& request) = 0;

  // The socket at which the broker is asked; what a breaker is about.
  virtual const ipc::Endpoint& broker() const = 0;
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BROKER_NEGOTIATOR_H_
