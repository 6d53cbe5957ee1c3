#include "client/grpc_negotiator.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_socket.h"
#include "client/fallback.h"
#include "client/framed_negotiator.h"
#include "client/wire_lane_proto.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel_posix.h"
#include "ipc/deadline.h"
#include "ipc/names.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::client {
namespace {

constexpr absl::string_view kErrorDomain = "zcbroker";
constexpr absl::string_view kDetailType = "zcbroker.v1.RefusalDetail";

RouteOrigin FromProto(v1::RouteOrigin origin) {
  switch (origin) {
    case v1::ROUTE_ORIGIN_REUSED:
      return RouteOrigin::kReused;
    case v1::ROUTE_ORIGIN_STARTED:
      return RouteOrigin::kStarted;
    case v1::ROUTE_ORIGIN_ADOPTED:
      return RouteOrigin::kAdopted;
    case v1::ROUTE_ORIGIN_JOINED:
      return RouteOrigin::kJoined;
    default:
      return RouteOrigin::kUnknown;
  }
}

v1::NegotiateRequest ToProto(const NegotiationRequest& request) {
  v1::NegotiateRequest proto;
  proto.set_service(request.service);
  proto.set_wanted_version(request.wanted_version);
  for (const ipc::WireLane lane : request.accepted_lanes) {
    proto.add_accepted_lanes(WireLaneToProto(lane));
  }
  proto.set_client_name(request.client_name);
  proto.set_client_version(request.client_version);
  proto.set_start_policy(request.start_policy == StartPolicy::kOnlyIfRunning
                             ? v1::START_POLICY_ONLY_IF_RUNNING
                             : v1::START_POLICY_IF_NEEDED);
  *proto.mutable_world() = ToProto(request.world);
  proto.set_traceparent(request.traceparent);
  return proto;
}

absl::Status WrongReply(absl::string_view what) {
  return WithFallbackReason(
      absl::DataLossError(absl::StrCat("the broker answered ", what)),
      FallbackReason::kBrokerWrongReply);
}

absl::StatusOr<BackendRoute> FromProto(const v1::NegotiateResponse& response,
                                       const NegotiationRequest& request) {
  const v1::BackendRoute& proto = response.route();
  if (proto.version() != request.wanted_version) {
    return WrongReply(
        absl::StrCat("version ", ipc::Printable(proto.version())));
  }
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(proto.endpoint());
  if (!endpoint.ok()) return WrongReply(endpoint.status().message());
  BackendRoute route(*endpoint, proto.version());
  for (const int lane : proto.lanes()) {
    const absl::optional<ipc::WireLane> known = WireLaneFromProto(lane);
    if (known.has_value()) route.lanes.push_back(*known);
  }
  route.pid = static_cast<int>(proto.pid());
  route.start_time = proto.start_time();
  route.boot_id = proto.boot_id();
  route.named_route = proto.named_route();
  route.generation = proto.generation();
  route.origin = FromProto(response.origin());
  for (const v1::NegotiationStep& step : response.steps()) {
    route.steps.push_back({step.name(), zcbroker::FromProto(step.duration())});
  }
  return route;
}

// What a failed call means, given that the broker was heard from.
absl::Status AsFailure(const grpc::Status& status) {
  const absl::optional<absl::Status> refusal = RefusalFrom(
      status.error_code(), status.error_message(), status.error_details());
  if (refusal.has_value()) return *refusal;
  const std::string text = absl::StrCat("broker: ", status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return WithFallbackReason(absl::DeadlineExceededError(text),
                                FallbackReason::kBrokerSlow);
    case grpc::StatusCode::UNAVAILABLE:
    // A call that reaches a server in its last moment.
    case grpc::StatusCode::CANCELLED:
      return WithFallbackReason(absl::AbortedError(text),
                                FallbackReason::kBrokerClosed);
    case grpc::StatusCode::UNIMPLEMENTED:
      return WithFallbackReason(absl::DataLossError(text),
                                FallbackReason::kBrokerWrongReply);
    default:
      return WithFallbackReason(absl::DataLossError(text),
                                FallbackReason::kBrokerGarbage);
  }
}

gpr_timespec ToGpr(ipc::Deadline deadline) {
  if (deadline.IsInfinite()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  return gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_nanos(absl::ToInt64Nanoseconds(deadline.Remaining()),
                          GPR_TIMESPAN));
}

// One call on a connection of its own.
class Negotiation {
 public:
  Negotiation(ipc::UniqueFd fd, const NegotiationRequest& request,
              ipc::Deadline deadline)
      : channel_(MakeChannel(std::move(fd))),
        stub_(v1::Broker::NewStub(channel_)) {
    context_.set_deadline(ToGpr(deadline));
    call_ = stub_->AsyncNegotiate(&context_, ToProto(request), &queue_);
    call_->ReadInitialMetadata(&contact_tag_);
  }

  ~Negotiation() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // False if no sign of life came by `contact`; may be asked again.
  bool AwaitContact(ipc::Deadline contact) {
    if (heard_) return true;
    void* tag;
    bool ok;
    heard_ = queue_.AsyncNext(&tag, &ok, ToGpr(contact)) ==
             grpc::CompletionQueue::GOT_EVENT;
    return heard_;
  }

  // Ends by the call's deadline.
  grpc::Status Finish(v1::NegotiateResponse& response) {
    grpc::Status status;
    call_->Finish(&response, &status, &finish_tag_);
    void* tag;
    bool ok;
    queue_.Next(&tag, &ok);
    return status;
  }

 private:
  static std::shared_ptr<grpc::Channel> MakeChannel(ipc::UniqueFd fd) {
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    return grpc::CreateCustomInsecureChannelFromFd("localhost", fd.release(),
                                                   arguments);
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Broker::Stub> stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<v1::NegotiateResponse>> call_;
  bool heard_ = false;
  // Their addresses tell the events apart.
  char contact_tag_ = 0;
  char finish_tag_ = 0;
};

}  // namespace

v1::World ToProto(const World& world) {
  v1::World proto;
  proto.set_cache_root(world.cache_root);
  proto.set_daemon_namespace(world.daemon_namespace);
  proto.set_mount_namespace(world.mount_namespace);
  return proto;
}

bool GrpcNegotiator::IsAlive(ipc::Deadline deadline) const {
  return CheckBrokerHealth(
             broker_,
             ipc::Sooner(ipc::Deadline::After(budgets_.contact), deadline))
      .ok();
}

absl::StatusOr<BackendRoute> GrpcNegotiator::Negotiate(
    const NegotiationRequest& request) {
  const ipc::Deadline deadline = ipc::Deadline::After(budgets_.negotiation);
  const ipc::Deadline contact =
      ipc::Sooner(ipc::Deadline::After(budgets_.contact), deadline);
  ZCB_ASSIGN_OR_RETURN(ipc::UniqueFd fd, ConnectBroker(broker_, contact));
  Negotiation negotiation(std::move(fd), request, deadline);
  if (!negotiation.AwaitContact(contact) && !IsAlive(deadline) &&
      !negotiation.AwaitContact(contact)) {
    return WithFallbackReason(
        absl::DeadlineExceededError(absl::StrCat(
            "the broker at ", broker_.path(), " gives no sign of life")),
        FallbackReason::kBrokerMute);
  }
  if (!negotiation.AwaitContact(deadline)) {
    return WithFallbackReason(
        absl::DeadlineExceededError("broker: no answer in time"),
        FallbackReason::kBrokerSlow);
  }
  v1::NegotiateResponse response;
  const grpc::Status status = negotiation.Finish(response);
  if (!status.ok()) return AsFailure(status);
  return FromProto(response, request);
}

NegotiatorFactory GrpcBroker(NegotiationBudgets budgets) {
  return [budgets](const ipc::EnvironmentLookup& environment)
             -> absl::StatusOr<std::unique_ptr<BrokerNegotiator>> {
    ZCB_ASSIGN_OR_RETURN(ipc::Endpoint broker, FindBroker(environment));
    return std::unique_ptr<BrokerNegotiator>(
        std::make_unique<GrpcNegotiator>(std::move(broker), budgets));
  };
}

absl::optional<absl::Status> RefusalFrom(int code, absl::string_view message,
                                         const std::string& error_details) {
  google::rpc::Status rich;
  if (!rich.ParseFromString(error_details)) return absl::nullopt;
  absl::Status refusal(static_cast<absl::StatusCode>(code),
                       absl::StrCat("the broker refused: ", message));
  bool named = false;
  for (const google::protobuf::Any& any : rich.details()) {
    google::rpc::ErrorInfo info;
    v1::RefusalDetail detail;
    if (any.UnpackTo(&info) && info.domain() == kErrorDomain) {
      refusal = WithRefusalName(refusal, info.reason());
      named = true;
    } else if (any.UnpackTo(&detail)) {
      refusal.SetPayload(kDetailType, absl::Cord(any.value()));
    }
  }
  if (!named) return absl::nullopt;
  return WithFallbackReason(refusal, FallbackReason::kBrokerRefusal);
}

absl::optional<v1::RefusalDetail> RefusalDetailOf(const absl::Status& status) {
  const absl::optional<absl::Cord> bytes = status.GetPayload(kDetailType);
  v1::RefusalDetail detail;
  if (!bytes.has_value() || !detail.ParseFromString(std::string(*bytes))) {
    return absl::nullopt;
  }
  return detail;
}

}  // namespace zcbroker::client
