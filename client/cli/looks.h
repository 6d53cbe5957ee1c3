// What `explain` and `doctor` both look at. Nothing here changes or starts
// anything.
#ifndef ZCBROKER_CLIENT_CLI_LOOKS_H_
#define ZCBROKER_CLIENT_CLI_LOOKS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/repeated_field.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

// What to do where no definition has it, or one has no version that is there.
std::string NoVersionOf(const std::string& service);
std::string NoBinaryOf(const v1::ServiceSummary& service);

// The newest version of `service` that is installed. kNotFound, with one of the
// two texts, where none is.
absl::StatusOr<std::string> NewestOf(
    const google::protobuf::RepeatedPtrField<v1::ServiceSummary>& services,
    const std::string& service);

// How long a look waits for somebody to answer.
inline constexpr absl::Duration kLookPatience = absl::Milliseconds(500);

// A connection to whoever listens there. Errors: those of Endpoint::Parse and
// ipc::Connect.
absl::StatusOr<ipc::UniqueFd> TryConnect(const std::string& path);

// "somebody listens: zcbrokerd, process 42": who is at the other end, where
// that process is still there. A socket outlives a broker that died, in the
// hands of its keeper.
std::string WhoListens(const ipc::UniqueFd& connection);

// The keeper of a broker: its parent process, if that is one; else 0.
int KeeperOf(int broker_pid);

struct BreakerLook {
  // Clients do not ask the broker now.
  bool open = false;
  std::string text;
};
BreakerLook LookAtBreaker(const ipc::RuntimeDir& dir);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_LOOKS_H_
