#include "service/keeper/restart_rules.h"

#include <algorithm>

namespace zcbroker::service {
namespace {

constexpr absl::Duration kShortLife = absl::Seconds(1);
constexpr absl::Duration kFirstDelay = absl::Milliseconds(10);
constexpr absl::Duration kLongestDelay = absl::Seconds(5);
constexpr absl::Duration kLongestDelayOfReady = absl::Milliseconds(100);
// Beyond this the delay is the longest anyway.
constexpr int kMaxDoublings = 10;
constexpr int kSignalBase = 128;

}  // namespace

KeeperDecision RestartRules::OnEnd(const BrokerEnd& end, absl::Duration lived) {
  KeeperDecision decision;
  const int status =
      end.exit_status.value_or(kSignalBase + end.signal.value_or(0));
  memory_.already_running =
      status == kAlreadyRunning ? memory_.already_running + 1 : 0;
  if (!memory_.ever_ready || memory_.stopping || status == 0 ||
      memory_.already_running == kMaxAlreadyRunning) {
    const bool in_order = memory_.stopping && status == kHandedOver;
    decision.exit_status = in_order ? 0 : status;
    return decision;
  }
  const bool handed_over = status == kHandedOver && memory_.ready;
  if (!handed_over) decision.delay = NextDelay(lived);
  if (!memory_.ready) {
    failed_starts_ = std::min(failed_starts_ + 1, kMaxFailedStarts);
    decision.let_clients_go =
        failed_starts_ == kMaxFailedStarts || lived >= kReadyWithin;
  }
  memory_.ready = false;
  return decision;
}

absl::Duration RestartRules::NextDelay(absl::Duration lived) {
  if (lived >= kShortLife) {
    memory_.short_lives = 0;
    return absl::ZeroDuration();
  }
  const int before = memory_.short_lives++;
  if (before == 0) return absl::ZeroDuration();
  return std::min(kFirstDelay * (1 << std::min(before - 1, kMaxDoublings)),
                  memory_.ready ? kLongestDelayOfReady : kLongestDelay);
}

}  // namespace zcbroker::service
