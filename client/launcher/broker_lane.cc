#include "client/launcher/broker_lane.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/broker_socket.h"
#include "client/fallback.h"
#include "client/framed_negotiator.h"
#include "ipc/boot_clock.h"
#include "ipc/breaker.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/names.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {
namespace {

namespace rpb = running_process::broker::v1;
using zcbroker::v1::LauncherReply;
using zcbroker::v1::LauncherRequest;

constexpr std::uint64_t kRequestId = 1;

absl::Status Garbage(absl::string_view what) {
  return WithFallbackReason(
      absl::DataLossError(absl::StrCat("the broker answered ", what)),
      FallbackReason::kBrokerGarbage);
}

absl::Status Broken(const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) {
    return WithFallbackReason(ipc::Annotate(status, "broker"),
                              FallbackReason::kBrokerSlow);
  }
  return WithFallbackReason(
      absl::AbortedError(
          absl::StrCat("the broker closed the connection: ", status.message())),
      FallbackReason::kBrokerClosed);
}

// Waits for the first byte. Silence is settled on a second connection: a
// broker that is well may take long to start a daemon.
absl::Status AwaitSignOfLife(const ipc::UniqueFd& fd,
                             const ipc::Endpoint& broker,
                             const BrokerLaneBudgets& budgets) {
  char byte;
  const auto silent = [&](ipc::Deadline deadline) {
    return absl::IsDeadlineExceeded(ipc::Peek(fd, &byte, 1, deadline).status());
  };
  if (!silent(ipc::Deadline::After(budgets.contact))) return absl::OkStatus();
  absl::Status health =
      CheckBrokerHealth(broker, ipc::Deadline::After(budgets.contact));
  if (health.ok() || !silent(ipc::Deadline::After(absl::ZeroDuration()))) {
    return absl::OkStatus();
  }
  return health;
}

absl::StatusOr<LauncherReply> ReadReply(const ipc::UniqueFd& fd,
                                        ipc::Deadline deadline) {
  const absl::StatusOr<std::string> head =
      ipc::ReadExactly(fd, ipc::kFrameHeaderBytes, deadline);
  if (!head.ok()) return Broken(head.status());
  const ipc::FrameHeader header =
      ipc::ParseFrameHeader(*head, ipc::kMaxHelloBodyBytes);
  if (header.fault != ipc::FrameFault::kNone) {
    return Garbage(ipc::FrameFaultName(header.fault));
  }
  const absl::StatusOr<std::string> body =
      ipc::ReadExactly(fd, header.body_bytes, deadline);
  if (!body.ok()) return Broken(body.status());
  const absl::StatusOr<rpb::Frame> frame = ipc::DecodeFrame(*body);
  if (!frame.ok()) return Garbage(frame.status().message());
  const ipc::FrameFault fault = ipc::CheckEnvelope(
      *frame, rpb::FRAME_KIND_RESPONSE, ipc::kLauncherProtocol);
  if (fault != ipc::FrameFault::kNone) {
    return Garbage(ipc::FrameFaultName(fault));
  }
  LauncherReply reply;
  if (frame->request_id() != kRequestId ||
      !reply.ParseFromString(frame->payload())) {
    return Garbage("another request");
  }
  if (reply.has_refusal()) {
    return WithRefusalName(
        WithFallbackReason(absl::UnavailableError(absl::StrCat(
                               "the broker refused: ",
                               ipc::Printable(reply.refusal().text(), 512))),
                           FallbackReason::kBrokerRefusal),
        reply.refusal().name());
  }
  return reply;
}

absl::StatusOr<LauncherReply> Converse(const ipc::Endpoint& broker,
                                       const LauncherRequest& request,
                                       const BrokerLaneBudgets& budgets) {
  const ipc::Deadline deadline = ipc::Deadline::After(budgets.answer);
  const ipc::Deadline contact = ipc::Deadline::After(budgets.contact);
  ZCB_ASSIGN_OR_RETURN(const ipc::UniqueFd fd, ConnectBroker(broker, contact));
  ZCB_ASSIGN_OR_RETURN(const std::string bytes,
                       ipc::EncodeFrame(ipc::MakeFrame(
                           rpb::FRAME_KIND_REQUEST, ipc::kLauncherProtocol,
                           kRequestId, request.SerializeAsString())));
  const absl::Status sent = ipc::WriteAll(fd, bytes, contact);
  if (!sent.ok()) return Broken(sent);
  ZCB_RETURN_IF_ERROR(AwaitSignOfLife(fd, broker, budgets));
  return ReadReply(fd, deadline);
}

// The same, unless the broker was mute moments ago.
absl::StatusOr<LauncherReply> Ask(const ipc::RuntimeDir& dir,
                                  const LauncherRequest& request,
                                  const BrokerLaneBudgets& budgets) {
  const absl::StatusOr<ipc::Endpoint> broker =
      ipc::Endpoint::Parse(dir.broker_socket());
  if (!broker.ok()) {
    return WithFallbackReason(broker.status(),
                              FallbackReason::kBrokerUnreachable);
  }
  ipc::Breaker breaker(dir, broker->path());
  const ipc::BreakerVerdict verdict = breaker.Look(ipc::SinceBoot());
  if (verdict == ipc::BreakerVerdict::kSkip) {
    return WithFallbackReason(
        absl::UnavailableError("the broker was mute moments ago"),
        FallbackReason::kBreakerOpen);
  }
  absl::StatusOr<LauncherReply> reply = Converse(*broker, request, budgets);
  if (!reply.ok() &&
      FallbackReasonOf(reply.status()) == FallbackReason::kBrokerMute) {
    breaker.Trip(ipc::SinceBoot());
  } else if (verdict == ipc::BreakerVerdict::kProbe) {
    breaker.Clear();
  }
  return reply;
}

absl::Status WrongReply() {
  return WithFallbackReason(
      absl::DataLossError("the broker answered something else"),
      FallbackReason::kBrokerWrongReply);
}

}  // namespace

absl::StatusOr<zcbroker::v1::RouteInfo> LookUp(
    const ipc::RuntimeDir& dir, absl::string_view version,
    const LauncherWorld& world, const BrokerLaneBudgets& budgets) {
  LauncherRequest request;
  LauncherRequest::Lookup& lookup = *request.mutable_lookup();
  lookup.set_service(std::string(kLauncherService));
  lookup.set_version(std::string(version));
  // Not FrameV1: it would find generations that this launcher does not use.
  for (const auto& [lane, number] : kLauncherLanes) {
    if (lane != ipc::WireLane::kFrameV1) lookup.add_lanes(number);
  }
  lookup.set_cache_root(world.cache_root);
  lookup.set_daemon_namespace(world.daemon_namespace);
  lookup.set_mount_namespace(world.mount_namespace);
  ZCB_ASSIGN_OR_RETURN(LauncherReply reply, Ask(dir, request, budgets));
  if (!reply.has_route()) return WrongReply();
  return std::move(*reply.mutable_route());
}

absl::StatusOr<LauncherReply::Verdict> Report(
    const ipc::RuntimeDir& dir, const zcbroker::v1::RouteInfo& info,
    absl::string_view reason, const BrokerLaneBudgets& budgets) {
  LauncherRequest request;
  LauncherRequest::Report& report = *request.mutable_report();
  report.set_service(info.service());
  report.set_version(info.version());
  report.set_pid(info.pid());
  report.set_start_time(info.start_time());
  report.set_reason(std::string(reason));
  ZCB_ASSIGN_OR_RETURN(const LauncherReply reply, Ask(dir, request, budgets));
  if (reply.kind_case() != LauncherReply::kVerdict) return WrongReply();
  return reply.verdict();
}

}  // namespace zcbroker::client
