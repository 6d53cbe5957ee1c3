// The launcher's two questions to the broker, over the private framed lane
// 0xF2C8 (proto/zcbroker/v1/launcher.proto). Only the broker of the runtime
// directory is asked: `zcbroker/broker.sock` in a directory that is ours alone
// is ours by its name, so no Hello has to tell.
#ifndef ZCBROKER_CLIENT_LAUNCHER_BROKER_LANE_H_
#define ZCBROKER_CLIENT_LAUNCHER_BROKER_LANE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/launcher/route_choice.h"
#include "ipc/runtime_dir.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::client {

struct BrokerLaneBudgets {
  // For a sign of life; then as long again for its health.
  absl::Duration contact = absl::Milliseconds(500);
  // For a daemon to be started, or looked at.
  absl::Duration answer = absl::Seconds(12);
};

// Errors of both, each with a FallbackReason: kBrokerMissing, kBrokerRefused,
// kBrokerForeign, kBrokerUnreachable, kBrokerMute, kBrokerSlow, kBrokerClosed,
// kBrokerGarbage, kBrokerWrongReply, kBrokerRefusal (its words are the
// message), kBreakerOpen (it was mute moments ago, says ipc/breaker.h).

// Where the daemon is; starts it where it does not run.
absl::StatusOr<zcbroker::v1::RouteInfo> LookUp(
    const ipc::RuntimeDir& dir, absl::string_view version,
    const LauncherWorld& world, const BrokerLaneBudgets& budgets = {});

// What became of a daemon that did not answer.
absl::StatusOr<zcbroker::v1::LauncherReply::Verdict> Report(
    const ipc::RuntimeDir& dir, const zcbroker::v1::RouteInfo& info,
    absl::string_view reason, const BrokerLaneBudgets& budgets = {});

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_BROKER_LANE_H_
