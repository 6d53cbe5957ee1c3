// Why a client that asked for a broker connected directly instead, or the
// launcher ran the compiler itself. The list is closed, every fallback carries
// one entry of it, and each is counted.
#ifndef ZCBROKER_CLIENT_FALLBACK_H_
#define ZCBROKER_CLIENT_FALLBACK_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace zcbroker::client {

// The numbers stand in files (fallback_records.h): never changed, only added.
enum class FallbackReason : std::uint8_t {
  kFakeBackendDead = 0,    // RUNNING_PROCESS_FAKE_BACKEND does not answer
  kBrokerMissing = 1,      // no broker socket, or no runtime directory
  kBrokerRefused = 2,      // a broker socket on which nobody listens
  kBrokerUnreachable = 3,  // the socket could not be used: permissions, no
                           // socket
  kBrokerForeign = 4,      // the socket's other end belongs to another user
  kBrokerMute = 5,         // no sign of life within the contact budget
  kBrokerSlow = 6,         // alive, but no answer within the negotiation budget
  kBrokerClosed = 7,       // the connection broke before an answer
  kBrokerGarbage = 8,      // the answer is not of the protocol
  kBrokerWrongReply = 9,   // an answer without a usable route, or the wrong
                           // version
  kBrokerRefusal = 10,     // the broker said no; see RefusalNameOf
  kLaneUnsupported = 11,   // the route's backend speaks none of our wire lanes
  kRouteDead = 12,         // the backend of the route does not accept
  kRouteForeign = 13,      // the backend of the route belongs to another user
  kBreakerOpen = 14,       // the broker was mute moments ago: not asked
  // Of the launcher, which then runs the compiler itself.
  kDaemonLost = 15,        // the daemon ended before it answered
  kDaemonWedged = 16,      // it was found wedged and ended
  kDaemonBusy = 17,        // it asked to come back later, and still did
  kDaemonRefused = 18,     // it answered that it cannot do this
  kDaemonWrongReply = 19,  // it answered something that makes no sense
  kNotReplayable = 20,     // a command that would not be the same through a
                           // daemon, or could not be run a second time
};

inline constexpr std::array<FallbackReason, 21> kAllFallbackReasons = {
    FallbackReason::kFakeBackendDead, FallbackReason::kBrokerMissing,
    FallbackReason::kBrokerRefused,   FallbackReason::kBrokerUnreachable,
    FallbackReason::kBrokerForeign,   FallbackReason::kBrokerMute,
    FallbackReason::kBrokerSlow,      FallbackReason::kBrokerClosed,
    FallbackReason::kBrokerGarbage,   FallbackReason::kBrokerWrongReply,
    FallbackReason::kBrokerRefusal,   FallbackReason::kLaneUnsupported,
    FallbackReason::kRouteDead,       FallbackReason::kRouteForeign,
    FallbackReason::kBreakerOpen,     FallbackReason::kDaemonLost,
    FallbackReason::kDaemonWedged,    FallbackReason::kDaemonBusy,
    FallbackReason::kDaemonRefused,   FallbackReason::kDaemonWrongReply,
    FallbackReason::kNotReplayable,
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
