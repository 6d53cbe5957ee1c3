// The broker as the keeper's child: started, signalled, reaped.
#ifndef ZCBROKER_SERVICE_KEEPER_BROKER_CHILD_H_
#define ZCBROKER_SERVICE_KEEPER_BROKER_CHILD_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {

// Where this program was when it was started.
absl::StatusOr<std::string> OwnPath();

// zcbrokerd beside this program (in Bazel's tree: where it builds it).
// kNotFound says where it looked.
absl::StatusOr<std::string> FindBroker();

// Starts `program` with `arguments` and this process's environment, in which
// ZCBROKER_KEEPER_FD names its copy of `channel` and NOTIFY_SOCKET is missing:
// the keeper speaks to the service manager. Default signal dispositions, an
// empty signal mask, and no other descriptor above standard error but a copy of
// `lifeline` (10 or higher) that it does not know of. Returns the pid;
// the caller reaps it. Errors: by errno, with the program.
absl::StatusOr<pid_t> StartBroker(const std::string& program,
                                  const std::vector<std::string>& arguments,
                                  const ipc::UniqueFd& channel,
                                  const ipc::UniqueFd& lifeline);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_BROKER_CHILD_H_
