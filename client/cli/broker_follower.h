// For verbs that go on through upgrades and restarts of the broker.
#ifndef ZCBROKER_CLIENT_CLI_BROKER_FOLLOWER_H_
#define ZCBROKER_CLIENT_CLI_BROKER_FOLLOWER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/admin_client.h"
#include "ipc/deadline.h"

namespace zcbroker::cli {

// How long the next broker is looked for.
inline constexpr absl::Duration kNextBroker = absl::Seconds(3);

// Which of a user's brokers: the next one may have its number.
struct BrokerId {
  uint32_t pid = 0;
  absl::Time started_at;

  bool operator==(const BrokerId& other) const {
    return pid == other.pid && started_at == other.started_at;
  }
};

struct Follower {
  std::unique_ptr<AdminClient> admin;
  BrokerId broker;
};

// Errors: those of AdminClient::Connect and GetStatus.
absl::StatusOr<Follower> ConnectFollower();

// The next one, after an upgrade or started again by the keeper; or the same,
// which had closed the connection. Tries until `deadline`; errors as above.
absl::StatusOr<Follower> ConnectAgain(ipc::Deadline deadline);

// Whether `now` is another broker than `before`; then standard error says so.
bool TellWhereAnother(const BrokerId& before, const BrokerId& now);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_BROKER_FOLLOWER_H_
