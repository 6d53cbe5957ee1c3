#include "client/connect_daemon.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "client/broker_socket.h"
#include "client/fallback_records.h"
#include "client/named_route.h"
#include "client/route_memory.h"
#include "ipc/boot_clock.h"
#include "ipc/breaker.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/file_stamp.h"
#include "ipc/names.h"
#include "ipc/peer_identity.h"
#include "ipc/process.h"
#include "ipc/runtime_dir.h"
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

std::string WorkingDirectory() {
  std::error_code no_cwd;
  return std::filesystem::current_path(no_cwd).string();
}

// Under what a route is remembered: all that the meaning of its info depends
// on, but the mount namespace, which the stamp is about. Values of variables go
// in as they are, since what they come to is longer in the finding than the
// connection that this is for.
std::string MemoryKey(const ConnectOptions& options) {
  // The parts hold no NUL: they come from the environment or have a grammar.
  std::string key;
  key.reserve(512);
  const auto add = [&](absl::string_view part) {
    key.append(part.data(), part.size());
    key.push_back('\0');
  };
  add(options.service);
  add(options.wanted_version);
  for (const WireLane lane : options.accepted_lanes) {
    key.push_back(static_cast<char>('0' + ipc::WireLaneNumber(lane)));
  }
  add("");
  add(options.environment("XDG_RUNTIME_DIR").value_or(""));
  if (options.world.has_value()) {
    add(options.world->cache_root);
    add(options.world->daemon_namespace);
    add(options.world->mount_namespace);
  } else {
    const std::string root = ipc::ZccacheCacheRootText(options.environment);
    add(root);
    add(options.environment("ZCCACHE_DAEMON_NAMESPACE").value_or(""));
    if (!absl::StartsWith(root, "/")) add(WorkingDirectory());
  }
  return key;
}

World WorldOf(const ConnectOptions& options) {
  if (options.world.has_value()) return *options.world;
  const ipc::ZccacheWorld zccache =
      ipc::ResolveZccacheWorld({options.environment, WorkingDirectory()});
  World world;
  // Of services that have no such cache the broker does not compare it.
  world.cache_root = zccache.cache_root;
  world.daemon_namespace = zccache.daemon_namespace;
  world.mount_namespace = ipc::OwnMountNamespace().value_or("");
  return world;
}

NegotiationRequest MakeRequest(const ConnectOptions& options,
                               const World& world) {
  NegotiationRequest request;
  request.service = options.service;
  request.wanted_version = options.wanted_version;
  request.accepted_lanes = options.accepted_lanes;
  request.client_name = options.client_name;
  request.client_version = options.client_version;
  request.start_policy = options.start_policy;
  request.world = world;
  request.traceparent = options.environment("TRACEPARENT").value_or("");
  return request;
}

// Asks once, unless the broker was mute moments ago. Any answer is a sign of
// life, so only silence opens the breaker.
absl::StatusOr<BackendRoute> NegotiateWithBreaker(
    const ipc::RuntimeDir& dir, BrokerNegotiator& negotiator,
    const NegotiationRequest& request) {
  ipc::Breaker breaker(dir, negotiator.broker().path());
  const ipc::BreakerVerdict verdict = breaker.Look(ipc::SinceBoot());
  if (verdict == ipc::BreakerVerdict::kSkip) {
    return WithFallbackReason(
        absl::UnavailableError(
            "the broker gave no sign of life moments ago and was not asked"),
        FallbackReason::kBreakerOpen);
  }
  absl::StatusOr<BackendRoute> route = negotiator.Negotiate(request);
  if (!route.ok() &&
      FallbackReasonOf(route.status()) == FallbackReason::kBrokerMute) {
    breaker.Trip(ipc::SinceBoot());
  } else if (verdict == ipc::BreakerVerdict::kProbe) {
    breaker.Clear();
  }
  return route;
}

absl::StatusOr<BackendRoute> Negotiate(
    const absl::StatusOr<ipc::RuntimeDir>& dir, const ConnectOptions& options,
    const World& world) {
  if (!options.negotiator) {
    return WithFallbackReason(
        absl::UnavailableError("this client was given no broker to ask"),
        FallbackReason::kBrokerMissing);
  }
  ZCB_ASSIGN_OR_RETURN(const std::unique_ptr<BrokerNegotiator> negotiator,
                       options.negotiator(options.environment));
  const NegotiationRequest request = MakeRequest(options, world);
  if (!dir.ok()) return negotiator->Negotiate(request);
  return NegotiateWithBreaker(*dir, *negotiator, request);
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

ConnectedDaemon ThroughBroker(ipc::UniqueFd fd,
                              std::shared_ptr<const BackendRoute> backend,
                              WireLane lane) {
  ConnectRoute route;
  route.lane = ConnectLane::kBroker;
  route.endpoint = backend->endpoint.path();
  route.backend = std::move(backend);
  return ConnectedDaemon{DaemonConnection(std::move(fd), lane),
                         std::move(route)};
}

// By the broker's word.
absl::StatusOr<ConnectedDaemon> DialRoute(BackendRoute backend,
                                          const ConnectOptions& options) {
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
  return ThroughBroker(*std::move(fd),
                       std::make_shared<BackendRoute>(std::move(backend)),
                       *lane);
}

// The part of it that a caller is told, which lives as long as the whole.
std::shared_ptr<const BackendRoute> BackendOf(
    const std::shared_ptr<const UsableRoute>& route) {
  return {route, &route->backend};
}

// By an info that this process has read before and that is still the same.
absl::optional<ConnectedDaemon> DialKnownRoute(const std::string& key,
                                               const ConnectOptions& options) {
  const std::shared_ptr<const UsableRoute> known =
      RouteMemory::OfThisProcess().Find(key);
  if (known == nullptr) return absl::nullopt;
  absl::StatusOr<ipc::UniqueFd> fd = Dial(known->backend.endpoint, options);
  if (!fd.ok() || !ipc::CheckPeerIsOurProcess(*fd, known->backend.pid).ok()) {
    return absl::nullopt;
  }
  return ThroughBroker(*std::move(fd), BackendOf(known), known->lane);
}

// By the info as it is now, which is remembered where it led to a daemon.
absl::optional<ConnectedDaemon> DialNamedRoute(const std::string& key,
                                               const ipc::RuntimeDir& dir,
                                               const NamedRouteRequest& request,
                                               const ConnectOptions& options) {
  const std::string path = RouteInfoPath(dir, request);
  const absl::optional<ipc::FileStamp> stamp = ipc::StampOf(path);
  absl::StatusOr<NamedConnection> named =
      ConnectNamedRoute(dir, request, options.connect_timeout);
  if (!named.ok()) return absl::nullopt;
  const auto route =
      std::make_shared<const UsableRoute>(std::move(named->route));
  RouteMemory::OfThisProcess().Put(key, path, stamp, route);
  return ThroughBroker(std::move(named->fd), BackendOf(route), route->lane);
}

// The route info first, which costs microseconds and needs no broker; where
// it does not lead to a daemon, whatever the reason, the broker is asked once.
absl::StatusOr<ConnectedDaemon> DialBroker(const ConnectOptions& options) {
  const std::string key = MemoryKey(options);
  if (absl::optional<ConnectedDaemon> known = DialKnownRoute(key, options)) {
    return *std::move(known);
  }
  const World world = WorldOf(options);
  const NamedRouteRequest request = {options.service, options.wanted_version,
                                     options.accepted_lanes, world};
  const absl::StatusOr<ipc::RuntimeDir> dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(options.environment));
  if (dir.ok()) {
    absl::optional<ConnectedDaemon> named =
        DialNamedRoute(key, *dir, request, options);
    if (named.has_value()) return *std::move(named);
    const absl::StatusOr<ipc::RuntimeDir> other = dir->FindWorld(
        ipc::ZccacheWorldId({world.cache_root, world.daemon_namespace}));
    if (other.ok()) {
      named = DialNamedRoute(key, *other, request, options);
      if (named.has_value()) return *std::move(named);
    }
  }
  ZCB_ASSIGN_OR_RETURN(BackendRoute backend, Negotiate(dir, options, world));
  return DialRoute(std::move(backend), options);
}

absl::optional<int> MakerOf(const absl::StatusOr<ipc::Endpoint>& endpoint) {
  if (!endpoint.ok()) return absl::nullopt;
  const auto connected =
      ipc::Connect(*endpoint, ipc::Deadline::After(absl::ZeroDuration()));
  if (!connected.ok()) return absl::nullopt;
  const auto peer = ipc::PeerOf(*connected);
  return peer.ok() ? absl::make_optional(peer->pid) : absl::nullopt;
}

// Would a connection to `direct_endpoint` wait for a mute broker, which has
// claimed it?
bool LeadsToMuteBroker(absl::string_view direct_endpoint, FallbackReason reason,
                       const ConnectOptions& options) {
  const bool is_mute = reason == FallbackReason::kBrokerMute;
  if (!is_mute && reason != FallbackReason::kBreakerOpen) return false;
  const absl::optional<int> maker =
      MakerOf(ipc::Endpoint::Parse(std::string(direct_endpoint)));
  if (!maker.has_value()) return false;
  const auto process = ipc::ReadProcessStat(*maker);
  if (process.ok()) {
    // What was mute seconds ago may have recovered.
    return process->name == "zcbrokerd" && (is_mute || process->state == 'T');
  }
  // Of sockets that a keeper holds, who made them may have ended; that of the
  // broker is then of the same maker.
  return is_mute && MakerOf(FindBroker(options.environment)) == maker;
}

absl::StatusOr<ConnectedDaemon> FallBack(absl::string_view direct_endpoint,
                                         const ConnectOptions& options,
                                         const absl::Status& why) {
  const FallbackReason reason = FallbackReasonOf(why);
  CountFallback(reason);
  if (IsOne(options, "ZCBROKER_STRICT")) return why;
  RecordFallback(options.environment, FallbackOrigin::kLibrary, reason,
                 options.service, options.wanted_version);
  absl::StatusOr<ConnectedDaemon> connected =
      LeadsToMuteBroker(direct_endpoint, reason, options)
          ? absl::UnavailableError(absl::StrCat(
                direct_endpoint, " is the broker's own, and no daemon runs"))
          : DialDirect(direct_endpoint, options);
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
