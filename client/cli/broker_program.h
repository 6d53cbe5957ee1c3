// Running zcbrokerd: in the background for `up`, once to check definitions.
#ifndef ZCBROKER_CLIENT_CLI_BROKER_PROGRAM_H_
#define ZCBROKER_CLIENT_CLI_BROKER_PROGRAM_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace zcbroker::cli {

// zcbrokerd beside this program, else on PATH. kNotFound says where it looked.
absl::StatusOr<std::string> FindBrokerProgram();

// zcbroker-keeper in the same places. kNotFound.
absl::StatusOr<std::string> FindKeeperProgram();

struct StartedBroker {
  int pid = 0;  // of `program`
};

// Starts `program` with `arguments` in a session of its own, its output
// appended to `log_file`, and waits until it says that it is ready
// (sd_notify).
// Errors: kFailedPrecondition (it ended first; the message tells how and ends
// with its last lines), kDeadlineExceeded, others by errno.
absl::StatusOr<StartedBroker> StartBroker(
    const std::string& program, const std::vector<std::string>& arguments,
    const std::string& log_file, absl::Duration patience);

// Runs `program` with `arguments` to its end and returns what it printed on
// standard output. kFailedPrecondition for an exit status other than 0 or 1.
absl::StatusOr<std::string> OutputOf(const std::string& program,
                                     const std::vector<std::string>& arguments);

// Waits until the process `pid` is gone. kDeadlineExceeded.
absl::Status AwaitEnd(int pid, absl::Duration patience);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_BROKER_PROGRAM_H_
