// Our client against whatever the broker leads to: for each wire lane a Ping,
// a Status and a compile through ConnectDaemon. Prints a line per lane; exits
// with 1 at the first failure.
//
// usage: our_client SERVICE VERSION SOURCE
// The direct endpoint is ZCCACHE_ENDPOINT; lanes and rows follow the
// environment.
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/connect_daemon.h"
#include "client/daemon_connection.h"
#include "client/grpc_negotiator.h"
#include "ipc/deadline.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker {
namespace {

int Fail(const std::string& what, const absl::Status& status) {
  fprintf(stderr, "%s: %s\n", what.c_str(), status.ToString().c_str());
  return 1;
}

int TryLane(ipc::WireLane lane, const char* service, const char* version,
            const std::string& source) {
  const std::string name(ipc::WireLaneName(lane));
  client::ConnectOptions options;
  options.service = service;
  options.wanted_version = version;
  options.accepted_lanes = {lane};
  options.negotiator = client::GrpcBroker();
  const char* direct = getenv("ZCCACHE_ENDPOINT");
  absl::StatusOr<client::ConnectedDaemon> daemon =
      client::ConnectDaemonWithRoute(direct != nullptr ? direct : "", options);
  if (!daemon.ok()) return Fail(name + " connect", daemon.status());
  if (daemon->route.lane != client::ConnectLane::kBroker) {
    return Fail(name, absl::InternalError("did not go through the broker"));
  }
  client::DaemonConnection& connection = daemon->connection;
  const ipc::Deadline deadline = ipc::Deadline::After(absl::Seconds(30));
  if (const absl::Status pong = connection.Ping(deadline); !pong.ok()) {
    return Fail(name + " ping", pong);
  }
  const auto status = connection.GetStatus(deadline);
  if (!status.ok()) return Fail(name + " status", status.status());

  char cwd[PATH_MAX];
  if (getcwd(cwd, sizeof(cwd)) == nullptr) return 1;
  const std::string object = absl::StrCat(source, ".", name, ".o");
  zccache::v1::CompileEphemeral request;
  request.set_client_pid(static_cast<uint32_t>(getpid()));
  request.mutable_working_dir()->set_value(cwd);
  request.mutable_cwd()->set_value(cwd);
  request.mutable_compiler()->set_value("/usr/bin/gcc");
  for (const std::string& arg :
       {std::string("-c"), source, std::string("-o"), object}) {
    request.add_args(arg);
  }
  const auto result = connection.CompileEphemeral(request, deadline);
  if (!result.ok()) return Fail(name + " compile", result.status());
  if (result->exit_code() != 0 || access(object.c_str(), R_OK) != 0) {
    return Fail(name + " compile", absl::InternalError(result->stderr_data()));
  }
  printf("%s: ping, status %s, compile\n", name.c_str(),
         status->version().c_str());
  return 0;
}

}  // namespace
}  // namespace zcbroker

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: our_client SERVICE VERSION SOURCE\n");
    return 2;
  }
  for (const auto lane : {zcbroker::ipc::WireLane::kBincodeV15,
                          zcbroker::ipc::WireLane::kProstV16,
                          zcbroker::ipc::WireLane::kFrameV1}) {
    if (zcbroker::TryLane(lane, argv[1], argv[2], argv[3]) != 0) return 1;
  }
  return 0;
}
