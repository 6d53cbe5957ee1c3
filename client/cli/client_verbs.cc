// The verbs that use the client library: route, ping, compile.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/broker_socket.h"
#include "client/cli/exit_status.h"
#include "client/cli/looks.h"
#include "client/cli/own_world.h"
#include "client/cli/progress.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "client/connect_daemon.h"
#include "client/daemon_connection.h"
#include "client/grpc_negotiator.h"
#include "client/wire_lane_proto.h"
#include "ipc/deadline.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/wire_lane.h"
#include "ipc/zccache_rules.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr absl::Duration kPingTimeout = absl::Seconds(5);

absl::Duration Since(SteadyClock::time_point start) {
  return absl::FromChrono(SteadyClock::now() - start);
}

absl::StatusOr<ipc::WireLane> ParseLane(const std::string& name) {
  for (const ipc::WireLane lane :
       {ipc::WireLane::kBincodeV15, ipc::WireLane::kProstV16,
        ipc::WireLane::kFrameV1}) {
    if (ipc::WireLaneName(lane) == name) return lane;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--lane ", name,
                   ": write bincode-v15, prost-v16 or "
                   "frame-v1"));
}

absl::StatusOr<client::BackendRoute> Negotiate(const ipc::Endpoint& broker,
                                               const Target& target,
                                               const RouteOptions& options) {
  client::NegotiationRequest request =
      OwnRequest(target.service, target.version);
  if (!options.lane.empty()) {
    ZCB_ASSIGN_OR_RETURN(const ipc::WireLane lane, ParseLane(options.lane));
    request.accepted_lanes = {lane};
  }
  request.start_policy = options.only_if_running
                             ? client::StartPolicy::kOnlyIfRunning
                             : client::StartPolicy::kIfNeeded;
  const Progress progress(
      absl::StrCat("waiting for ", target.service, " ", target.version));
  return client::GrpcNegotiator(broker).Negotiate(request);
}

v1::RouteOrigin ToProto(client::RouteOrigin origin) {
  switch (origin) {
    case client::RouteOrigin::kReused:
      return v1::ROUTE_ORIGIN_REUSED;
    case client::RouteOrigin::kStarted:
      return v1::ROUTE_ORIGIN_STARTED;
    case client::RouteOrigin::kAdopted:
      return v1::ROUTE_ORIGIN_ADOPTED;
    case client::RouteOrigin::kJoined:
      return v1::ROUTE_ORIGIN_JOINED;
    // The broker is always asked here.
    case client::RouteOrigin::kNamed:
    case client::RouteOrigin::kUnknown:
      break;
  }
  return v1::ROUTE_ORIGIN_UNSPECIFIED;
}

RouteReport ReportOf(const std::string& broker,
                     const client::BackendRoute& route, absl::Duration took) {
  RouteReport report;
  report.set_broker(broker);
  report.set_milliseconds(absl::ToDoubleMilliseconds(took));
  v1::NegotiateResponse& negotiation = *report.mutable_negotiation();
  negotiation.set_origin(ToProto(route.origin));
  v1::BackendRoute& proto = *negotiation.mutable_route();
  proto.set_endpoint(route.endpoint.path());
  for (const ipc::WireLane lane : route.lanes) {
    proto.add_lanes(client::WireLaneToProto(lane));
  }
  proto.set_version(route.version);
  proto.set_pid(static_cast<uint32_t>(route.pid));
  proto.set_start_time(route.start_time);
  proto.set_boot_id(route.boot_id);
  proto.set_named_route(route.named_route);
  proto.set_generation(route.generation);
  for (const client::NegotiationStep& step : route.steps) {
    v1::NegotiationStep& made = *negotiation.add_steps();
    made.set_name(step.name);
    *made.mutable_duration() = zcbroker::ToProto(step.duration);
  }
  return report;
}

void PrintRoute(const Target& target, const std::string& broker,
                const client::BackendRoute& route, absl::Duration took) {
  const std::string origin(client::RouteOriginName(route.origin));
  std::vector<std::string> lanes;
  for (const ipc::WireLane lane : route.lanes) {
    lanes.emplace_back(ipc::WireLaneName(lane));
  }
  printf("%s %s\n", target.service.c_str(), target.version.c_str());
  printf("  asked     %s, answered in %s\n", broker.c_str(),
         Spell(took).c_str());
  printf("  backend   %s, process %d\n", origin.c_str(), route.pid);
  printf("  endpoint  %s\n", route.endpoint.path().c_str());
  if (!route.named_route.empty()) {
    printf("  name      %s\n", route.named_route.c_str());
  }
  printf("  lanes     %s\n", absl::StrJoin(lanes, ", ").c_str());
  for (const client::NegotiationStep& step : route.steps) {
    printf("  %-8s  %s\n", step.name.c_str(), Spell(step.duration).c_str());
  }
}

// The absolute path of `program`, found along PATH where it has no slash.
std::string Resolve(const std::string& program) {
  if (program.find('/') != std::string::npos) {
    return program[0] == '/' ? program
                             : absl::StrCat(WorkingDirectory(), "/", program);
  }
  const char* search = getenv("PATH");
  for (const absl::string_view directory :
       absl::StrSplit(search != nullptr ? search : "", ':')) {
    std::string candidate = absl::StrCat(directory, "/", program);
    if (!directory.empty() && access(candidate.c_str(), X_OK) == 0) {
      return candidate;
    }
  }
  return program;
}

// By the definitions: compiling must work without a broker, too.
absl::StatusOr<std::string> NewestVersion(const std::string& service) {
  ZCB_ASSIGN_OR_RETURN(const v1::ReloadDefinitionsResponse definitions,
                       CheckDefinitions(ConfigDirectory("")));
  return NewestOf(definitions.services(), service);
}

void Copy(const std::string& bytes, FILE* to) {
  fwrite(bytes.data(), 1, bytes.size(), to);
  fflush(to);
}

// As zccache's wrapper: the low byte, and never 0 for a failure.
int ToExitStatus(int exit_code) {
  if (exit_code == 0) return 0;
  const int low = exit_code & 0xff;
  return low == 0 ? 1 : low;
}

}  // namespace

int Route(Format format, const Target& target, const RouteOptions& options) {
  const absl::StatusOr<ipc::Endpoint> broker =
      client::FindBroker(ipc::HostEnvironment());
  if (!broker.ok()) return PrintFailure(format, broker.status());
  const auto start = SteadyClock::now();
  const absl::StatusOr<client::BackendRoute> route =
      Negotiate(*broker, target, options);
  const absl::Duration took = Since(start);
  if (!route.ok()) return PrintFailure(format, route.status());
  if (format == Format::kJson) {
    PrintJson(ReportOf(broker->path(), *route, took));
  } else {
    PrintRoute(target, broker->path(), *route, took);
  }
  return kExitOk;
}

int Ping(Format format, const Target& target, const RouteOptions& options,
         int count) {
  if (!options.lane.empty()) {
    const absl::StatusOr<ipc::WireLane> lane = ParseLane(options.lane);
    if (!lane.ok()) {
      PrintFailure(format, lane.status());
      return kExitUsage;
    }
  }
  const absl::StatusOr<ipc::Endpoint> broker =
      client::FindBroker(ipc::HostEnvironment());
  if (!broker.ok()) return PrintFailure(format, broker.status());
  const absl::StatusOr<client::BackendRoute> route =
      Negotiate(*broker, target, options);
  if (!route.ok()) return PrintFailure(format, route.status());
  ipc::WireLane lane = ipc::WireLane::kFrameV1;
  if (!options.lane.empty()) {
    lane = *ParseLane(options.lane);
  } else if (!route->lanes.empty()) {
    lane = route->lanes.front();
  }
  if (lane == ipc::WireLane::kOpaque) {
    return PrintFailure(format, absl::FailedPreconditionError(absl::StrCat(
                                    target.service,
                                    " speaks no wire lane known to zcbroker; "
                                    "only its route can be asked for")));
  }
  PingReport report;
  report.set_endpoint(route->endpoint.path());
  report.set_lane(std::string(ipc::WireLaneName(lane)));
  for (int i = 0; i < count; ++i) {
    const ipc::Deadline deadline = ipc::Deadline::After(kPingTimeout);
    const auto start = SteadyClock::now();
    absl::StatusOr<ipc::UniqueFd> fd = ipc::Connect(route->endpoint, deadline);
    if (!fd.ok()) return PrintFailure(format, fd.status());
    client::DaemonConnection connection(*std::move(fd), lane);
    const absl::Status answered = connection.Ping(deadline);
    const absl::Duration took = Since(start);
    if (!answered.ok()) return PrintFailure(format, answered);
    report.add_milliseconds(absl::ToDoubleMilliseconds(took));
    if (format == Format::kText) {
      printf("ping %d  %s  %s\n", i + 1, report.lane().c_str(),
             Spell(took).c_str());
    }
  }
  std::vector<double> sorted(report.milliseconds().begin(),
                             report.milliseconds().end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  report.set_median_milliseconds(sorted.size() % 2 == 1
                                     ? sorted[half]
                                     : (sorted[half - 1] + sorted[half]) / 2);
  if (format == Format::kJson) {
    PrintJson(report);
  } else {
    printf("%d of %d answered by %s, median %s\n", count, count,
           report.endpoint().c_str(),
           Spell(absl::Milliseconds(report.median_milliseconds())).c_str());
  }
  return kExitOk;
}

int Compile(const Target& target, const std::vector<std::string>& command) {
  std::string version = target.version;
  if (version.empty()) {
    absl::StatusOr<std::string> newest = NewestVersion(target.service);
    if (!newest.ok()) return PrintFailure(Format::kText, newest.status());
    version = *std::move(newest);
  }
  // This verb is about the broker: its row of the table is on unless the
  // environment says otherwise.
  const ipc::EnvironmentLookup host = ipc::HostEnvironment();
  client::ConnectOptions options;
  options.environment =
      [host](absl::string_view name) -> absl::optional<std::string> {
    absl::optional<std::string> value = host(name);
    if (name == "ZCCACHE_BROKER_CONNECT" && !value.has_value()) return "1";
    return value;
  };
  options.service = target.service;
  options.wanted_version = version;
  options.negotiator = client::GrpcBroker();
  const std::string direct = ipc::ZccacheClientEndpoint(
      ipc::ZccacheInputs{host, WorkingDirectory()}, version);
  absl::StatusOr<client::ConnectedDaemon> daemon =
      client::ConnectDaemonWithRoute(direct, options);
  if (!daemon.ok()) return PrintFailure(Format::kText, daemon.status());
  if (daemon->route.fallback.has_value()) {
    fprintf(stderr, "zcbroker: connected directly: %s\n",
            std::string(daemon->route.fallback_status.message()).c_str());
  }
  zccache::v1::CompileEphemeral request;
  request.set_client_pid(static_cast<uint32_t>(getpid()));
  request.mutable_working_dir()->set_value(WorkingDirectory());
  request.mutable_cwd()->set_value(WorkingDirectory());
  request.mutable_compiler()->set_value(Resolve(command.front()));
  for (size_t i = 1; i < command.size(); ++i) request.add_args(command[i]);
  request.set_env_is_set(true);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    zccache::v1::EnvVar* variable = request.add_env();
    variable->set_name(text.substr(0, equals));
    variable->set_value(text.substr(equals + 1));
  }
  // A long compile is not a wedge: no limit on its reply.
  const absl::StatusOr<zccache::v1::CompileResult> result =
      daemon->connection.CompileEphemeral(std::move(request),
                                          ipc::Deadline::Infinite());
  if (!result.ok()) return PrintFailure(Format::kText, result.status());
  Copy(result->stdout_data(), stdout);
  Copy(result->stderr_data(), stderr);
  return ToExitStatus(result->exit_code());
}

}  // namespace zcbroker::cli
