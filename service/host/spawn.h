// Starting a process the way a backend or a version command is started.
#ifndef ZCBROKER_SERVICE_HOST_SPAWN_H_
#define ZCBROKER_SERVICE_HOST_SPAWN_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace zcbroker::service {

struct SpawnRequest {
  std::string binary;             // absolute path
  std::vector<std::string> argv;  // argv[0] included
  std::vector<std::string> env;   // NAME=VALUE
  // Becomes standard output and standard error; borrowed for the call.
  int output_fd = -1;
  // Standard error goes to /dev/null instead.
  bool discard_errors = false;
};

// Runs the program in a session of its own (so its process group is its pid),
// in "/", with /dev/null as standard input, default signal dispositions, an
// empty signal mask, no descriptor of ours (all of them are close-on-exec) and
// the limit on descriptors that we were started with (descriptors.h).
// Returns its pid; the caller reaps it. Runs posix_spawn, never fork, so it is
// safe beside gRPC's threads.
//
// Errors: whatever exec says, as absl::ErrnoToStatus codes: kNotFound,
// kPermissionDenied, ...; kResourceExhausted for want of processes or memory.
absl::StatusOr<pid_t> Spawn(const SpawnRequest& request);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_SPAWN_H_
