// A broker that answers: the one that runs, or one started in the background
// under its keeper.
#ifndef ZCBROKER_CLIENT_CLI_BRING_UP_H_
#define ZCBROKER_CLIENT_CLI_BRING_UP_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "client/cli/report.pb.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

struct UpOptions {
  std::string config_dir;
  bool allow_root = false;
  bool no_claim = false;
  // Where it serves metrics over HTTP; 0: nowhere.
  int metrics_port = 0;
};

// How long a broker may take to end: beyond what it waits for backends that
// take their time. Its keeper ends at once after it, or starts another.
inline constexpr absl::Duration kEndPatience = absl::Seconds(70);
inline constexpr absl::Duration kKeeperPatience = absl::Seconds(5);

// A --config-dir as the broker is given it, absolute and without a slash at its
// end, so that verbs name files as it does. kFailedPrecondition where it is
// relative and the working directory is gone.
absl::StatusOr<std::string> WholeDirectory(const std::string& config_dir);

// Where the broker's log and those of its backends are.
std::string LogDirectory();

// Whether an attempt to reach the broker failed because none runs.
bool NoBrokerRuns(const absl::Status& status);

// The status of a broker that answers; nothing where none runs. Errors: those
// of AdminClient.
absl::StatusOr<absl::optional<v1::GetStatusResponse>> RunningBroker();

// Waits while a broker of ours is ending: it has left its names, and holds the
// place until its backends have ended too. Its pid; 0 where none was.
// kDeadlineExceeded after 70 s, longer than any of them is given.
absl::StatusOr<int> AwaitEndingBroker();

// Returns once it is ready; somebody else's that was quicker will do. What the
// broker reports as problems, and a keeper that is not installed, is told on
// standard error. Errors: those of FindBrokerProgram, StartBroker and
// AdminClient.
absl::StatusOr<UpReport> BringUp(const UpOptions& options);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_BRING_UP_H_
