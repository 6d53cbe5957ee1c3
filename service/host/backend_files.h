// The files of a backend: where its socket and log are, its direct endpoint,
// and the hard link between the two.
#ifndef ZCBROKER_SERVICE_HOST_BACKEND_FILES_H_
#define ZCBROKER_SERVICE_HOST_BACKEND_FILES_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/runtime_dir.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"
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
  // Where routes are published; outlives everything.
  const ipc::RuntimeDir* runtime = nullptr;
  v1::World world;
  // ZccacheWorldId of a world that is not the broker's; else empty.
  std::string other_world;
  // Is this path a public name that we listen at ourselves? Then nobody else
  // serves there, and no link of ours may replace it.
  std::function<bool(const std::string& path)> is_public_name =
      [](const std::string&) { return false; };
  // Has this process a gRPC connection to the broker?
  std::function<bool(int pid)> is_connected = [](int) { return false; };
  // The public names of a version of a service.
  std::function<std::vector<std::string>(const std::string& service,
                                         const std::string& version)>
      public_names_of = [](const std::string&, const std::string&) {
        return std::vector<std::string>();
      };
};

struct BackendFiles {
  // Tells the backends of one user apart: 16 hexadecimal digits.
  std::string id;
  // The backend's own endpoint: the same for the same binary, so that a later
  // broker finds what an earlier one left.
  ipc::Endpoint endpoint;
  // Where the service's own clients look; nothing: nowhere.
  absl::optional<ipc::Endpoint> direct;
  std::string log_file;
};

// Where the service's own clients of this version look for their daemon;
// nothing: nowhere, or where no socket can be.
absl::optional<ipc::Endpoint> DirectEndpoint(
    const v1::ServiceDefinition& definition, const std::string& version,
    const Surroundings& surroundings);

// kInvalidArgument where no endpoint fits the system's limit.
absl::StatusOr<BackendFiles> PlaceBackend(const StartPlan& plan,
                                          const Surroundings& surroundings);

// Removes `endpoint` if it still is the file `identity`.
void UnlinkIfSame(const ipc::Endpoint& endpoint,
                  const ipc::FileIdentity& identity);

// Removes the socket at `endpoint`, if there is anything. kFailedPrecondition
// where it is no socket: a file of somebody's.
absl::Status RemoveSocket(const ipc::Endpoint& endpoint);

// Removes it where nobody listens any more.
void RemoveDeadSocket(const ipc::Endpoint& endpoint);

// The last `max_lines` lines of `file` that were written after `offset`.
std::vector<std::string> LogTail(const std::string& file, off_t offset,
                                 size_t max_lines);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_BACKEND_FILES_H_
