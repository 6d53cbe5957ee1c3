// Why a client that asked for a broker connected directly instead. The list is
// closed, every fallback carries one entry of it, and each is counted.
#ifndef ZCBROKER_CLIENT_FALLBACK_H_
#define ZCBROKER_CLIENT_FALLBACK_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace zcbroker::client {

enum class FallbackReason {
  kFakeBackendDead,    // RUNNING_PROCESS_FAKE_BACKEND does not answer
  kBrokerMissing,      // no broker socket, or no runtime directory
  kBrokerRefused,      // a broker socket on which nobody listens
  kBrokerUnreachable,  // the socket could not be used: permissions, no socket
  kBrokerForeign,      // the socket's other end belongs to another user
  kBrokerMute,         // no sign of life within the contact budget
  kBrokerSlow,         // alive, but no answer within the negotiation budget
  kBrokerClosed,       // the connection broke before an answer
  kBrokerGarbage,      // the answer is not of the protocol
  kBrokerWrongReply,   // an answer without a usable route, or the wrong version
  kBrokerRefusal,      // the broker said no; see RefusalNameOf
  kLaneUnsupported,    // the route's backend speaks none of our wire lanes
  kRouteDead,          // the backend of the route does not accept
  kRouteForeign,       // the backend of the route belongs to another user
};

inline constexpr std::array<FallbackReason, 14> kAllFallbackReasons = {
    FallbackReason::kFakeBackendDead, FallbackReason::kBrokerMissing,
    FallbackReason::kBrokerRefused,   FallbackReason::kBrokerUnreachable,
    FallbackReason::kBrokerForeign,   FallbackReason::kBrokerMute,
    FallbackReason::kBrokerSlow,      FallbackReason::kBrokerClosed,
    FallbackReason::kBrokerGarbage,   FallbackReason::kBrokerWrongReply,
    FallbackReason::kBrokerRefusal,   FallbackReason::kLaneUnsupported,
    FallbackReason::kRouteDead,       FallbackReason::kRouteForeign,
};

// "broker_mute": for output, counters and documentation; never changes.
absl::string_view FallbackReasonName(FallbackReason reason);

// A failure that says which fallback it leads to; the reason rides along as a
// payload. `status` is not OK.
absl::Status WithFallbackReason(absl::Status status, FallbackReason reason);

// The reason a failed negotiation carries; kBrokerUnreachable where a
// negotiator gave none. `status` is not OK.
FallbackReason FallbackReasonOf(const absl::Status& status);

// The name of a broker's refusal ("SERVICE_UNKNOWN", zcbroker.v1.Refusal),
// which rides along the same way; nothing where a broker gave none, as
// upstream's does not.
absl::Status WithRefusalName(absl::Status status, absl::string_view name);
absl::optional<std::string> RefusalNameOf(const absl::Status& status);

// Counts of this process, since it started. Thread-safe.
void CountFallback(FallbackReason reason);
std::uint64_t FallbackCount(FallbackReason reason);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_FALLBACK_H_
