#include "client/broker_socket.h"

#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "client/fallback.h"
#include "ipc/broker_endpoint.h"
#include "ipc/peer_identity.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::client {
namespace {

FallbackReason ReasonOfConnect(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return FallbackReason::kBrokerMissing;
    case absl::StatusCode::kUnavailable:
      return FallbackReason::kBrokerRefused;
    case absl::StatusCode::kDeadlineExceeded:
      return FallbackReason::kBrokerMute;
    default:
      return FallbackReason::kBrokerUnreachable;
  }
}

absl::Status Unusable(const absl::Status& status) {
  return WithFallbackReason(status, ReasonOfConnect(status));
}

absl::StatusOr<ipc::Endpoint> SharedBroker(
    const ipc::EnvironmentLookup& environment) {
  ZCB_ASSIGN_OR_RETURN(const std::string hash, ipc::HostUserSidHash());
  ZCB_ASSIGN_OR_RETURN(const std::string name, ipc::SharedBrokerName(hash));
  ipc::BrokerAddressInputs inputs;
  inputs.xdg_runtime_dir = environment("XDG_RUNTIME_DIR");
  inputs.tmpdir = environment("TMPDIR");
  inputs.real_uid = getuid();
  return ipc::BrokerAddress(name, inputs);
}

}  // namespace

absl::StatusOr<ipc::Endpoint> FindBroker(
    const ipc::EnvironmentLookup& environment) {
  const absl::StatusOr<ipc::RuntimeDir> dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(environment));
  if (!dir.ok()) return Unusable(dir.status());
  absl::StatusOr<ipc::Endpoint> broker =
      ipc::Endpoint::Parse(dir->broker_socket());
  if (!broker.ok()) {
    return Unusable(ipc::Annotate(broker.status(),
                                  "the runtime directory is too long a path"));
  }
  return broker;
}

absl::StatusOr<ipc::Endpoint> FindSharedBroker(
    const ipc::EnvironmentLookup& environment) {
  absl::StatusOr<ipc::Endpoint> broker = SharedBroker(environment);
  if (!broker.ok()) return Unusable(broker.status());
  return broker;
}

absl::StatusOr<ipc::UniqueFd> ConnectBroker(const ipc::Endpoint& broker,
                                            ipc::Deadline contact) {
  absl::StatusOr<ipc::UniqueFd> fd = ipc::Connect(broker, contact);
  if (!fd.ok()) return Unusable(ipc::Annotate(fd.status(), "broker"));
  const absl::Status ours = ipc::CheckPeerIsUs(*fd);
  if (!ours.ok()) {
    return WithFallbackReason(ipc::Annotate(ours, broker.path()),
                              FallbackReason::kBrokerForeign);
  }
  return fd;
}

}  // namespace zcbroker::client
