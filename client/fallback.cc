#include "client/fallback.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace zcbroker::client {
namespace {

constexpr absl::string_view kPayloadType = "zcbroker.client.FallbackReason";

constexpr absl::string_view kRefusalType = "zcbroker.client.RefusalName";

std::array<std::atomic<std::uint64_t>, kAllFallbackReasons.size()> g_counts;

}  // namespace

absl::string_view FallbackReasonName(FallbackReason reason) {
  switch (reason) {
    case FallbackReason::kFakeBackendDead:
      return "fake_backend_dead";
    case FallbackReason::kBrokerMissing:
      return "broker_missing";
    case FallbackReason::kBrokerRefused:
      return "broker_refused";
    case FallbackReason::kBrokerUnreachable:
      return "broker_unreachable";
    case FallbackReason::kBrokerForeign:
      return "broker_foreign";
    case FallbackReason::kBrokerMute:
      return "broker_mute";
    case FallbackReason::kBrokerSlow:
      return "broker_slow";
    case FallbackReason::kBrokerClosed:
      return "broker_closed";
    case FallbackReason::kBrokerGarbage:
      return "broker_garbage";
    case FallbackReason::kBrokerWrongReply:
      return "broker_wrong_reply";
    case FallbackReason::kBrokerRefusal:
      return "broker_refusal";
    case FallbackReason::kLaneUnsupported:
      return "lane_unsupported";
    case FallbackReason::kRouteDead:
      return "route_dead";
    case FallbackReason::kRouteForeign:
      return "route_foreign";
    case FallbackReason::kBreakerOpen:
      return "breaker_open";
    case FallbackReason::kDaemonLost:
      return "daemon_lost";
    case FallbackReason::kDaemonWedged:
      return "daemon_wedged";
    case FallbackReason::kDaemonBusy:
      return "daemon_busy";
    case FallbackReason::kDaemonRefused:
      return "daemon_refused";
    case FallbackReason::kDaemonWrongReply:
      return "daemon_wrong_reply";
    case FallbackReason::kNotReplayable:
      return "not_replayable";
  }
  return "broker_unreachable";
}

absl::Status WithFallbackReason(absl::Status status, FallbackReason reason) {
  status.SetPayload(kPayloadType, absl::Cord(FallbackReasonName(reason)));
  return status;
}

FallbackReason FallbackReasonOf(const absl::Status& status) {
  const absl::optional<absl::Cord> name = status.GetPayload(kPayloadType);
  if (name.has_value()) {
    for (const FallbackReason reason : kAllFallbackReasons) {
      if (*name == FallbackReasonName(reason)) return reason;
    }
  }
  return FallbackReason::kBrokerUnreachable;
}

absl::Status WithRefusalName(absl::Status status, absl::string_view name) {
  status.SetPayload(kRefusalType, absl::Cord(name));
  return status;
}

absl::optional<std::string> RefusalNameOf(const absl::Status& status) {
  const absl::optional<absl::Cord> name = status.GetPayload(kRefusalType);
  if (!name.has_value()) return absl::nullopt;
  return std::string(*name);
}

void CountFallback(FallbackReason reason) {
  g_counts[static_cast<std::size_t>(reason)].fetch_add(
      1, std::memory_order_relaxed);
}

std::uint64_t FallbackCount(FallbackReason reason) {
  return g_counts[static_cast<std::size_t>(reason)].load(
      std::memory_order_relaxed);
}

}  // namespace zcbroker::client
