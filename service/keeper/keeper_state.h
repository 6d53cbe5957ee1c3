// What the keeper takes along when it executes itself anew: all it knows, in
// a file in memory, and the numbers of the descriptors that go with it.
// Source: docs/operations.md, "Upgrades".
#ifndef ZCBROKER_SERVICE_KEEPER_KEEPER_STATE_H_
#define ZCBROKER_SERVICE_KEEPER_KEEPER_STATE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/unique_fd.h"
#include "service/keeper/restart_rules.h"

namespace zcbroker::service {

// Names the descriptor of the file in memory.
inline constexpr char kKeeperStateVariable[] = "ZCBROKER_KEEPER_STATE";
// Both programs have to mean the same by it; counted up when a line changes.
inline constexpr int kKeeperStateFormat = 2;

struct KeeperState {
  struct Socket {
    std::string name;
    int fd = -1;
    bool from_service_manager = false;
  };
  pid_t broker = -1;  // none runs
  int link = -1;      // to it; none where none runs
  int lifeline = -1;
  std::int64_t started_nanos = 0;  // on the monotonic clock
  // Until it is started again; nothing where it runs.
  absl::optional<std::int64_t> restart_millis;
  std::uint64_t original_descriptor_limit = 0;
  bool said_stopping = false;
  bool may_ask = false;  // the broker has said so (ipc/keeper_channel.h)
  RestartRules::Memory rules;
  std::vector<Socket> sockets;
};

std::string EncodeKeeperState(const KeeperState& state);
// kInvalidArgument where it is of another format, or damaged.
absl::StatusOr<KeeperState> DecodeKeeperState(absl::string_view text);

// Writes `state` into a file in memory that outlives exec, as all descriptors
// in it do from now on. Errors by errno; nothing has changed then but that some
// may not be close-on-exec.
absl::StatusOr<ipc::UniqueFd> PackKeeperState(const KeeperState& state);
// What an earlier self packed, named in the environment, from which it is
// removed; its descriptors are close-on-exec again. Nothing where there is no
// such variable. kInvalidArgument as above.
absl::StatusOr<absl::optional<KeeperState>> UnpackKeeperState();
// Whether the descriptors in `state` outlive exec.
void SetCloseOnExec(const KeeperState& state, bool close_on_exec);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_KEEPER_STATE_H_
