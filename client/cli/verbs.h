// What each verb of `zcbroker` does. A verb prints its report and returns the
// exit status (docs/cli.md).
#ifndef ZCBROKER_CLIENT_CLI_VERBS_H_
#define ZCBROKER_CLIENT_CLI_VERBS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/definition_file.h"
#include "client/cli/output.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

struct Target {
  std::string service;
  std::string version;
};

// Where and how to be connected.
struct RouteOptions {
  bool only_if_running = false;
  std::string lane;  // empty: the best of the backend's
};

int Route(Format format, const Target& target, const RouteOptions& options);
int Ping(Format format, const Target& target, const RouteOptions& options,
         int count);
// Runs one compiler command through the daemon and returns the compiler's
// status. The version is empty for the newest the broker knows.
int Compile(const Target& target, const std::vector<std::string>& command);

// What zcbrokerd makes of the definitions in `config_dir`, whether a broker
// runs or not. Errors: those of FindBrokerProgram and OutputOf.
absl::StatusOr<v1::ReloadDefinitionsResponse> CheckDefinitions(
    const std::string& config_dir);
// $XDG_CONFIG_HOME/zcbroker, or `given` where it is not empty.
std::string ConfigDirectory(const std::string& given);

int Status(Format format);
int ServiceAdd(Format format, const std::string& config_dir,
               const ServiceChange& change);
int ServiceList(Format format, const std::string& config_dir);
int ServiceCheck(Format format, const std::string& config_dir);

struct UpOptions {
  std::string config_dir;
  bool allow_root = false;
};
int Up(Format format, const UpOptions& options);
int Down(Format format, bool stop_backends);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_VERBS_H_
