#include "client/cli/broker_follower.h"

#include <cstdio>

#include "absl/time/clock.h"
#include "ipc/environment.h"
#include "ipc/status_macros.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::cli {
namespace {

constexpr absl::Duration kLookAgain = absl::Milliseconds(50);

}  // namespace

absl::StatusOr<Follower> ConnectFollower() {
  Follower follower;
  ZCB_ASSIGN_OR_RETURN(follower.admin,
                       AdminClient::Connect(ipc::HostEnvironment()));
  ZCB_ASSIGN_OR_RETURN(const auto status, follower.admin->GetStatus());
  follower.broker = {status.pid(), FromProto(status.started_at())};
  return follower;
}

absl::StatusOr<Follower> ConnectAgain(ipc::Deadline deadline) {
  while (true) {
    absl::SleepFor(kLookAgain);
    auto follower = ConnectFollower();
    if (follower.ok() || deadline.Expired()) return follower;
  }
}

bool TellWhereAnother(const BrokerId& before, const BrokerId& now) {
  if (now == before) return false;
  fprintf(stderr, "zcbroker: another broker has taken over\n");
  return true;
}

}  // namespace zcbroker::cli
