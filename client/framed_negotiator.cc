#include "client/framed_negotiator.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/broker_socket.h"
#include "client/fallback.h"
#include "ipc/deadline.h"
#include "ipc/frame/envelope.h"
#include "ipc/names.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {
namespace {

namespace rpb = running_process::broker::v1;

constexpr std::uint64_t kHelloId = 1;
constexpr std::uint64_t kHealthId = 2;

absl::Status Garbage(absl::string_view what) {
  return WithFallbackReason(
      absl::DataLossError(absl::StrCat("the broker answered ", what)),
      FallbackReason::kBrokerGarbage);
}

absl::Status WrongReply(absl::string_view what) {
  return WithFallbackReason(
      absl::DataLossError(absl::StrCat("the broker answered ", what)),
      FallbackReason::kBrokerWrongReply);
}

// What a failed read or write on a broker's connection means; expiry is
// `late`.
absl::Status Broken(const absl::Status& status, FallbackReason late) {
  if (absl::IsDeadlineExceeded(status)) {
    return WithFallbackReason(ipc::Annotate(status, "broker"), late);
  }
  return WithFallbackReason(
      absl::AbortedError(
          absl::StrCat("the broker closed the connection: ", status.message())),
      FallbackReason::kBrokerClosed);
}

std::string HelloFrame(const NegotiationRequest& request) {
  rpb::Hello hello;
  hello.set_client_min_protocol(1);
  hello.set_client_max_protocol(1);
  hello.set_service_name(request.service);
  hello.set_wanted_version(request.wanted_version);
  hello.set_client_version(request.client_version);
  hello.set_request_id("hello");
  hello.set_client_lib_name(request.client_name);
  return *ipc::EncodeFrame(ipc::MakeFrame(rpb::FRAME_KIND_REQUEST,
                                          ipc::kControlProtocol, kHelloId,
                                          hello.SerializeAsString()));
}

std::string HealthFrame() {
  rpb::AdminRequest request;
  request.set_verb(rpb::ADMIN_VERB_HEALTHZ);
  return *ipc::EncodeFrame(ipc::MakeFrame(rpb::FRAME_KIND_REQUEST,
                                          ipc::kAdminProtocol, kHealthId,
                                          request.SerializeAsString()));
}

absl::Status Send(const ipc::UniqueFd& fd, absl::string_view bytes,
                  ipc::Deadline contact) {
  absl::Status sent = ipc::WriteAll(fd, bytes, contact);
  if (sent.ok()) return sent;
  return Broken(sent, FallbackReason::kBrokerMute);
}

// True once the broker wrote a byte, finished or broke the connection; false
// if it kept silent until `deadline`.
bool IsHeardFrom(const ipc::UniqueFd& fd, ipc::Deadline deadline) {
  char byte;
  return !absl::IsDeadlineExceeded(ipc::Peek(fd, &byte, 1, deadline).status());
}

// One whole reply frame of `protocol` that echoes `request_id`.
absl::StatusOr<rpb::Frame> ReadReply(const ipc::UniqueFd& fd,
                                     std::uint32_t protocol,
                                     std::uint64_t request_id,
                                     ipc::Deadline deadline) {
  const absl::StatusOr<std::string> head =
      ipc::ReadExactly(fd, ipc::kFrameHeaderBytes, deadline);
  if (!head.ok()) return Broken(head.status(), FallbackReason::kBrokerSlow);
  const ipc::FrameHeader header =
      ipc::ParseFrameHeader(*head, ipc::kMaxHelloBodyBytes);
  if (header.fault != ipc::FrameFault::kNone) {
    return Garbage(ipc::FrameFaultName(header.fault));
  }
  const absl::StatusOr<std::string> body =
      ipc::ReadExactly(fd, header.body_bytes, deadline);
  if (!body.ok()) return Broken(body.status(), FallbackReason::kBrokerSlow);
  absl::StatusOr<rpb::Frame> frame = ipc::DecodeFrame(*body);
  if (!frame.ok()) return Garbage(frame.status().message());
  const ipc::FrameFault fault =
      ipc::CheckEnvelope(*frame, rpb::FRAME_KIND_RESPONSE, protocol);
  if (fault != ipc::FrameFault::kNone) {
    return Garbage(ipc::FrameFaultName(fault));
  }
  if (frame->request_id() != request_id) {
    return WrongReply("another request");
  }
  return frame;
}

absl::StatusCode CodeOf(rpb::ErrorCode code) {
  switch (code) {
    case rpb::ERROR_VERSION_UNSUPPORTED:
    case rpb::ERROR_SERVICE_UNKNOWN:
      return absl::StatusCode::kNotFound;
    case rpb::ERROR_BACKEND_SPAWN_FAILED:
    case rpb::ERROR_SHUTTING_DOWN:
      return absl::StatusCode::kUnavailable;
    case rpb::ERROR_RATE_LIMITED:
    case rpb::ERROR_FD_PRESSURE:
      return absl::StatusCode::kResourceExhausted;
    case rpb::ERROR_PEER_REJECTED:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kFailedPrecondition;
  }
}

absl::Status RefusalStatus(const rpb::Refused& refused) {
  absl::Status status = WithFallbackReason(
      absl::Status(CodeOf(refused.code()),
                   absl::StrCat("the broker refused: ",
                                ipc::Printable(refused.reason(), 512))),
      FallbackReason::kBrokerRefusal);
  // Our broker names its refusal; upstream's sends no details.
  const auto name = refused.details().find("refusal");
  if (name == refused.details().end()) return status;
  return WithRefusalName(status, name->second);
}

absl::StatusOr<BackendRoute> RouteOf(const rpb::Frame& frame,
                                     const NegotiationRequest& request) {
  rpb::HelloReply reply;
  if (!reply.ParseFromString(frame.payload())) {
    return Garbage("a malformed HelloReply");
  }
  if (reply.has_refused()) return RefusalStatus(reply.refused());
  if (!reply.has_negotiated()) return WrongReply("an empty HelloReply");
  const rpb::Negotiated& negotiated = reply.negotiated();
  if (negotiated.daemon_version() != request.wanted_version) {
    return WrongReply(
        absl::StrCat("version ", ipc::Printable(negotiated.daemon_version())));
  }
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(negotiated.backend_pipe());
  if (!endpoint.ok()) return WrongReply(endpoint.status().message());
  return BackendRoute(*endpoint, negotiated.daemon_version());
}

}  // namespace

absl::Status CheckBrokerHealth(const ipc::Endpoint& broker,
                               ipc::Deadline contact) {
  ZCB_ASSIGN_OR_RETURN(const ipc::UniqueFd fd, ConnectBroker(broker, contact));
  ZCB_RETURN_IF_ERROR(Send(fd, HealthFrame(), contact));
  if (!IsHeardFrom(fd, contact)) {
    return WithFallbackReason(
        absl::DeadlineExceededError(absl::StrCat(
            "the broker at ", broker.path(), " gives no sign of life")),
        FallbackReason::kBrokerMute);
  }
  return ReadReply(fd, ipc::kAdminProtocol, kHealthId, contact).status();
}

absl::StatusOr<BackendRoute> FramedNegotiator::Negotiate(
    const NegotiationRequest& request) {
  const ipc::Deadline deadline = ipc::Deadline::After(budgets_.negotiation);
  const ipc::Deadline contact =
      ipc::Sooner(ipc::Deadline::After(budgets_.contact), deadline);
  ZCB_ASSIGN_OR_RETURN(const ipc::UniqueFd fd, ConnectBroker(broker_, contact));
  ZCB_RETURN_IF_ERROR(Send(fd, HelloFrame(request), contact));
  if (!IsHeardFrom(fd, contact)) {
    const absl::Status health = CheckBrokerHealth(
        broker_, ipc::Sooner(ipc::Deadline::After(budgets_.contact), deadline));
    // The answer may have come meanwhile.
    if (!health.ok() && !IsHeardFrom(fd, contact)) return health;
  }
  ZCB_ASSIGN_OR_RETURN(
      const rpb::Frame frame,
      ReadReply(fd, ipc::kControlProtocol, kHelloId, deadline));
  return RouteOf(frame, request);
}

NegotiatorFactory FramedBroker(NegotiationBudgets budgets) {
  return [budgets](const ipc::EnvironmentLookup& environment)
             -> absl::StatusOr<std::unique_ptr<BrokerNegotiator>> {
    ZCB_ASSIGN_OR_RETURN(ipc::Endpoint broker, FindBroker(environment));
    return std::unique_ptr<BrokerNegotiator>(
        std::make_unique<FramedNegotiator>(std::move(broker), budgets));
  };
}

NegotiatorFactory SharedFramedBroker(NegotiationBudgets budgets) {
  return [budgets](const ipc::EnvironmentLookup& environment)
             -> absl::StatusOr<std::unique_ptr<BrokerNegotiator>> {
    ZCB_ASSIGN_OR_RETURN(ipc::Endpoint broker, FindSharedBroker(environment));
    return std::unique_ptr<BrokerNegotiator>(
        std::make_unique<FramedNegotiator>(std::move(broker), budgets));
  };
}

}  // namespace zcbroker::client
