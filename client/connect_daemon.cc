#include "client/connect_daemon.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/names.h"
#include "ipc/peer_identity.h"
#include "ipc/process.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::client {
namespace {

using ipc::WireLane;

bool IsOne(const ConnectOptions& options, absl::string_view name) {
  return options.environment(name) == absl::optional<std::string>("1");
}

absl::StatusOr<ipc::UniqueFd> Dial(const ipc::Endpoint& endpoint,
                                   const ConnectOptions& options) {
  return ipc::Connect(endpoint, ipc::Deadline::After(options.connect_timeout));
}

absl::StatusOr<ConnectedDaemon> DialDirect(absl::string_view direct_endpoint,
                                           const ConnectOptions& options) {
  ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint endpoint,
                       ipc::Endpoint::Parse(direct_endpoint));
  ZCB_ASSIGN_OR_RETURN(ipc::UniqueFd fd, Dial(endpoint, options));
  ConnectRoute route;
  route.endpoint = endpoint.path();
  return ConnectedDaemon{
      DaemonConnection(std::move(fd), options.accepted_lanes.front()),
      std::move(route)};
}

absl::StatusOr<ConnectedDaemon> DialFakeBackend(absl::string_view text,
                                                const ConnectOptions& options) {
  const auto dial = [&]() -> absl::StatusOr<ConnectedDaemon> {
    ZCB_ASSIGN_OR_RETURN(ConnectedDaemon connected, DialDirect(text, options));
    connected.route.lane = ConnectLane::kFakeBackend;
    return connected;
  };
  absl::StatusOr<ConnectedDaemon> connected = dial();
  if (connected.ok()) return connected;
  const absl::Status status = absl::UnavailableError(absl::StrCat(
      "RUNNING_PROCESS_FAKE_BACKEND: ", connected.status().message()));
  const std::string warning =
      absl::StrCat("zcbroker: ", status.message(), "; connecting directly");
  if (options.warn) {
    options.warn(warning);
  } else {
    std::cerr << warning << "\n";
  }
  return WithFallbackReason(status, FallbackReason::kFakeBackendDead);
}

World ResolveWorld(const ConnectOptions& options) {
  if (options.world.has_value()) return *options.world;
  World world;
  world.mount_namespace = ipc::OwnMountNamespace().value_or("");
  if (options.service == "zccache") {
    std::error_code no_cwd;
    const ipc::ZccacheWorld zccache = ipc::ResolveZccacheWorld(
        {options.environment, std::filesystem::current_path(no_cwd).string()});
    world.cache_root = zccache.cache_root;
    world.daemon_namespace = zccache.daemon_namespace;
  }
  return world;
}

absl::StatusOr<BackendRoute> Negotiate(const ConnectOptions& options) {
  if (!options.negotiator) {
    return WithFallbackReason(
        absl::UnavailableError("this client was given no broker to ask"),
        FallbackReason::kBrokerMissing);
  }
  ZCB_ASSIGN_OR_RETURN(const std::unique_ptr<BrokerNegotiator> negotiator,
                       options.negotiator(options.environment));
  NegotiationRequest request;
  request.service = options.service;
  request.wanted_version = options.wanted_version;
  request.accepted_lanes = options.accepted_lanes;
  request.client_name = options.client_name;
  request.client_version = options.client_version;
  request.start_policy = options.start_policy;
  request.world = ResolveWorld(options);
  return negotiator->Negotiate(request);
}

// The first lane of ours that the backend understands; a broker that does not
// tell is taken to understand any.
absl::optional<WireLane> CommonLane(const BackendRoute& backend,
                                    const ConnectOptions& options) {
  if (backend.lanes.empty()) return options.accepted_lanes.front();
  const auto found = std::find_first_of(
      options.accepted_lanes.begin(), options.accepted_lanes.end(),
      backend.lanes.begin(), backend.lanes.end());
  if (found == options.accepted_lanes.end()) return absl::nullopt;
  return *found;
}

absl::StatusOr<ConnectedDaemon> DialBroker(const ConnectOptions& options) {
  ZCB_ASSIGN_OR_RETURN(BackendRoute backend, Negotiate(options));
  const absl::optional<WireLane> lane = CommonLane(backend, options);
  if (!lane.has_value()) {
    return WithFallbackReason(
        absl::FailedPreconditionError(absl::StrCat(
            backend.endpoint.path(), " speaks no wire lane of ours")),
        FallbackReason::kLaneUnsupported);
  }
  absl::StatusOr<ipc::UniqueFd> fd = Dial(backend.endpoint, options);
  if (!fd.ok()) {
    return WithFallbackReason(
        absl::UnavailableError(
            absl::StrCat("the broker's route: ", fd.status().message())),
        FallbackReason::kRouteDead);
  }
  const absl::Status ours = ipc::CheckPeerIsUs(*fd);
  if (!ours.ok()) {
    return WithFallbackReason(ipc::Annotate(ours, backend.endpoint.path()),
                              FallbackReason::kRouteForeign);
  }
  ConnectRoute route;
  route.lane = ConnectLane::kBroker;
  route.endpoint = backend.endpoint.path();
  route.backend = std::move(backend);
  return ConnectedDaemon{DaemonConnection(*std::move(fd), *lane),
                         std::move(route)};
}

absl::StatusOr<ConnectedDaemon> FallBack(absl::string_view direct_endpoint,
                                         const ConnectOptions& options,
                                         const absl::Status& why) {
  const FallbackReason reason = FallbackReasonOf(why);
  CountFallback(reason);
  if (IsOne(options, "ZCBROKER_STRICT")) return why;
  absl::StatusOr<ConnectedDaemon> connected =
      DialDirect(direct_endpoint, options);
  if (!connected.ok()) {
    return WithFallbackReason(
        absl::Status(
            connected.status().code(),
            absl::StrCat(connected.status().message(), " (after ",
                         FallbackReasonName(reason), ": ", why.message(), ")")),
        reason);
  }
  connected->route.fallback = reason;
  connected->route.fallback_status = why;
  return connected;
}

absl::Status CheckOptions(const ConnectOptions& options) {
  const auto& lanes = options.accepted_lanes;
  if (lanes.empty() ||
      std::find(lanes.begin(), lanes.end(), WireLane::kOpaque) != lanes.end()) {
    return absl::InvalidArgumentError(
        "accepted_lanes must name lanes this client can speak");
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view ConnectLaneName(ConnectLane lane) {
  switch (lane) {
    case ConnectLane::kDirect:
      return "direct";
    case ConnectLane::kFakeBackend:
      return "fake_backend";
    case ConnectLane::kBroker:
      return "broker";
  }
  return "direct";
}

absl::StatusOr<ConnectedDaemon> ConnectDaemonWithRoute(
    absl::string_view direct_endpoint, const ConnectOptions& options) {
  ZCB_RETURN_IF_ERROR(CheckOptions(options));
  if (IsOne(options, "RUNNING_PROCESS_DISABLE")) {
    return DialDirect(direct_endpoint, options);
  }
  const std::string fake =
      options.environment("RUNNING_PROCESS_FAKE_BACKEND").value_or("");
  if (fake.empty() && !IsOne(options, "ZCCACHE_BROKER_CONNECT")) {
    return DialDirect(direct_endpoint, options);
  }
  absl::StatusOr<ConnectedDaemon> connected =
      fake.empty() ? DialBroker(options) : DialFakeBackend(fake, options);
  if (connected.ok()) return connected;
  return FallBack(direct_endpoint, options, connected.status());
}

absl::StatusOr<DaemonConnection> ConnectDaemon(
    absl::string_view direct_endpoint, const ConnectOptions& options) {
  ZCB_ASSIGN_OR_RETURN(ConnectedDaemon connected,
                       ConnectDaemonWithRoute(direct_endpoint, options));
  return std::move(connected.connection);
}

}  // namespace zcbroker::client
