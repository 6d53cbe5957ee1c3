// The verbs that give a command or a shell what unmodified clients need to
// reach their daemon through the broker: exec, env.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "client/broker_negotiator.h"
#include "client/broker_socket.h"
#include "client/cli/admin_client.h"
#include "client/cli/bring_up.h"
#include "client/cli/exit_status.h"
#include "client/cli/looks.h"
#include "client/cli/own_world.h"
#include "client/cli/progress.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "client/grpc_negotiator.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/exec_words.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"

namespace zcbroker::cli {
namespace {

// As a shell: the command is not there, or cannot be run.
constexpr int kExitNoCommand = 127;
constexpr int kExitCannotRun = 126;

constexpr char kEndpointVariable[] = "ZCCACHE_ENDPOINT";
// A client waits 2 s for a sign of life by itself, which a daemon under load
// may miss, and then starts one of its own.
constexpr char kPatienceVariable[] = "ZCCACHE_STATUS_PROBE_TIMEOUT_SECS";
constexpr char kPatience[] = "30";

absl::StatusOr<std::string> NewestVersion(const std::string& service) {
  ZCB_ASSIGN_OR_RETURN(const auto admin,
                       AdminClient::Connect(ipc::HostEnvironment()));
  ZCB_ASSIGN_OR_RETURN(const auto status, admin->GetStatus());
  absl::StatusOr<std::string> newest = NewestOf(status.services(), service);
  if (newest.ok()) return newest;
  // A broker is ready before it has read its definitions, and reads them again
  // for a service that it does not know.
  ZCB_ASSIGN_OR_RETURN(const auto read, admin->ReloadDefinitions());
  return NewestOf(read.services(), service);
}

// The name that leads to the backend for as long as there is a broker; else,
// as for a backend of another world than the broker's, its own endpoint.
std::string NameFor(const client::BackendRoute& route) {
  return route.named_route.empty() ? route.endpoint.path() : route.named_route;
}

// Has the backend running, and says what clients need to reach it.
absl::StatusOr<EnvReport> Prepare(const RunOptions& options) {
  ZCB_ASSIGN_OR_RETURN(const UpReport up, BringUp(options.up));
  EnvReport report;
  report.set_service(options.target.service);
  report.set_broker_started(up.started());
  if (up.started()) {
    fprintf(stderr, "zcbroker: started a broker, process %u\n", up.pid());
  }
  std::string version = options.target.version;
  if (version.empty()) {
    ZCB_ASSIGN_OR_RETURN(version, NewestVersion(options.target.service));
  }
  ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint broker,
                       client::FindBroker(ipc::HostEnvironment()));
  const Progress progress(
      absl::StrCat("waiting for ", options.target.service, " ", version));
  ZCB_ASSIGN_OR_RETURN(const client::BackendRoute route,
                       client::GrpcNegotiator(broker).Negotiate(
                           OwnRequest(options.target.service, version)));
  if (route.lanes == std::vector<ipc::WireLane>{ipc::WireLane::kOpaque}) {
    return absl::InvalidArgumentError(absl::StrCat(
        "exec and env lead clients of zccache; those of ",
        options.target.service, " are led by a variable of their own, to ",
        NameFor(route), " (docs/using-it.md)"));
  }
  report.set_version(route.version);
  auto& variables = *report.mutable_variables();
  variables[kEndpointVariable] = NameFor(route);
  if (getenv(kPatienceVariable) == nullptr) {
    variables[kPatienceVariable] = kPatience;
  }
  return report;
}

// In single quotes, which keep everything but themselves.
std::string Quoted(const std::string& value, Shell shell) {
  if (shell == Shell::kFish) {
    return absl::StrCat(
        "'", absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
  }
  return absl::StrCat("'", absl::StrReplaceAll(value, {{"'", "'\\''"}}), "'");
}

}  // namespace

int Exec(const RunOptions& options, const std::vector<std::string>& command) {
  const absl::StatusOr<EnvReport> report = Prepare(options);
  if (report.ok()) {
    for (const auto& [name, value] : report->variables()) {
      setenv(name.c_str(), value.c_str(), 1);
    }
  } else {
    PrintFailure(Format::kText, report.status());
    fprintf(stderr, "zcbroker: running %s without the broker\n",
            command.front().c_str());
  }
  const std::vector<char*> words = ipc::ExecWords(command);
  // Ours is to ignore it, and what is ignored stays so.
  signal(SIGPIPE, options.sigpipe);
  execvp(words[0], words.data());
  const int error = errno;
  fprintf(stderr, "zcbroker: run %s: %s\n", words[0], strerror(error));
  return error == ENOENT ? kExitNoCommand : kExitCannotRun;
}

int Env(Format format, Shell shell, const RunOptions& options) {
  const absl::StatusOr<EnvReport> report = Prepare(options);
  if (!report.ok()) return PrintFailure(format, report.status());
  if (format == Format::kJson) {
    PrintJson(*report);
    return kExitOk;
  }
  // In order, so that the output is the same each time.
  const std::map<std::string, std::string> variables(
      report->variables().begin(), report->variables().end());
  for (const auto& [name, value] : variables) {
    const std::string quoted = Quoted(value, shell);
    if (shell == Shell::kFish) {
      printf("set -gx %s %s;\n", name.c_str(), quoted.c_str());
    } else {
      printf("export %s=%s\n", name.c_str(), quoted.c_str());
    }
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
