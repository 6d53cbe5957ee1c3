// What each verb of `zcbroker` does. A verb prints its report and returns the
// exit status (docs/cli.md).
#ifndef ZCBROKER_CLIENT_CLI_VERBS_H_
#define ZCBROKER_CLIENT_CLI_VERBS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/bring_up.h"
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
// Deletes a definition's file. What runs of it ends when it is idle.
int ServiceRemove(Format format, const std::string& config_dir,
                  const std::string& name);
int ServiceList(Format format, const std::string& config_dir);
int ServiceCheck(Format format, const std::string& config_dir);

// What is in force and who set it: with the running broker, else, where none
// runs, with one that was started with `config_dir`.
int ConfigEffective(Format format, const std::string& config_dir);

int Up(Format format, const UpOptions& options);
int Down(Format format, bool stop_backends);

struct RunOptions {
  // The version is empty for the newest the broker knows.
  Target target{"zccache", ""};
  UpOptions up;
  // What SIGPIPE did when this program started.
  void (*sigpipe)(int) = nullptr;
};
// Becomes `command`, in an environment in which clients of the target reach
// its daemon by its named route. Where that cannot be had the reason is told
// on standard error and the command runs as it would have without; so this
// returns only where the command itself cannot be run: 127 (there is none) or
// 126.
int Exec(const RunOptions& options, const std::vector<std::string>& command);

enum class Shell { kPosix, kFish };
// The same environment, as commands for a shell.
int Env(Format format, Shell shell, const RunOptions& options);

// Have one backend started, or ended: at once, or when nothing is in flight.
int Start(Format format, const Target& target);
int Stop(Format format, const Target& target);
int Drain(Format format, const Target& target);
// Ends it at once and has the next one started.
int Restart(Format format, const Target& target);

struct LogOptions {
  int lines = 40;
  bool follow = false;
};
// What backends of a service have printed, of all versions where none is named.
int Logs(Format format, const Target& target, const LogOptions& options);

struct TopOptions {
  int interval = 1;  // seconds
  int rounds = 0;    // 0: without end
};
// Rates and backends, looked at anew each interval.
int Top(Format format, const TopOptions& options);

// Looks for what could be wrong, with the target's version where one is named.
// Changes and starts nothing. kExitFailure where a check fails.
int Doctor(Format format, const std::string& config_dir, const Target& target);

struct EventOptions {
  // Go on until the broker ends, or somebody interrupts.
  bool follow = false;
  // Only those after this one.
  uint64_t after = 0;
};
// What has happened, an event a line.
int Events(Format format, const EventOptions& options);

// OpenMetrics text, for a monitoring system.
int Metrics(Format format);

struct ReportOptions {
  std::string file;
  // How far back; zero: all that the broker remembers.
  absl::Duration since;
  // How long to watch the broker before; zero: not at all.
  absl::Duration watch;
};
// Writes a page of what has happened. One of a broker that went away while it
// was watched is written, too, and the exit status is of that.
int Report(Format format, const ReportOptions& options);

// Why a client in this environment is or is not connected through the broker.
// Looks only: starts nothing and asks for no start. `all`: fallbacks of all
// processes of the user, not only of this shell.
int Explain(Format format, const Target& target, bool all);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_VERBS_H_
