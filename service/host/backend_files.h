// The files of a backend: where its socket and log are, its direct endpoint,
// and the hard link between the two.
#ifndef ZCBROKER_SERVICE_HOST_BACKEND_FILES_H_
#define ZCBROKER_SERVICE_HOST_BACKEND_FILES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "service/core/start_plan.h"

namespace zcbroker::service {

// What the broker knows about its surroundings; made once at start-up.
struct Surroundings {
  // <runtime directory>/zcbroker/backends, exists.
  std::string backends_dir;
  // $XDG_STATE_HOME/zcbroker/log; made when first needed.
  std::string log_dir;
  // The broker's own environment and working directory.
  std::map<std::string, std::string> environment;
  std::string cwd;
};

struct BackendFiles {
  // The backend's own endpoint: the same for the same binary, so that a later
  // broker finds what an earlier one left.
  ipc::Endpoint endpoint;
  // Where the service's own clients look; nothing: nowhere.
  absl::optional<ipc::Endpoint> direct;
  std::string log_file;
};

// kInvalidArgument where no endpoint fits the system's limit.
absl::StatusOr<BackendFiles> PlaceBackend(const StartPlan& plan,
                                          const Surroundings& surroundings);

// Makes `link` lead to the socket `target`. Where a file is there already it
// is replaced only if it is a socket on which nobody listens.
// Errors: kAlreadyExists (somebody listens there, or it is no socket), others
// by errno.
absl::Status LinkSocket(const ipc::Endpoint& target, const ipc::Endpoint& link);

// Removes `endpoint` if it still is the file `identity`.
void UnlinkIfSame(const ipc::Endpoint& endpoint,
                  const ipc::FileIdentity& identity);

// Removes the socket at `endpoint`, if there is anything. kFailedPrecondition
// where it is no socket: a file of somebody's.
absl::Status RemoveSocket(const ipc::Endpoint& endpoint);

// The directory and all missing parents, made with mode 0700.
absl::Status MakeDirectories(const std::string& directory);

// The last `max_lines` lines of `file` that were written after `offset`.
std::vector<std::string> LogTail(const std::string& file, off_t offset,
                                 size_t max_lines);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_BACKEND_FILES_H_
