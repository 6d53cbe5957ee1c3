#include "client/daemon_connection.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/names.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/wire/lane_choice.h"
#include "ipc/wire/lane_codec.h"

namespace zcbroker::client {
namespace {

using zccache::v1::Request;
using zccache::v1::Response;

constexpr std::size_t kMinReadBytes = 4096;
constexpr std::size_t kMaxReadBytes = std::size_t{256} * 1024;

// OK for a reply that is one; else what the daemon said instead.
absl::Status AsStatus(const Response& response) {
  if (response.has_error()) {
    return absl::FailedPreconditionError(
        ipc::Printable(response.error().message(), 1024));
  }
  if (response.has_backpressure()) {
    const zccache::v1::Backpressure& busy = response.backpressure();
    return absl::ResourceExhaustedError(
        absl::StrCat("the daemon is busy: ", ipc::Printable(busy.reason(), 256),
                     "; try again in ", busy.retry_after_ms(), " ms"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DaemonConnection::Break(absl::Status why) {
  broken_ = absl::AbortedError(
      absl::StrCat("the connection is broken: ", why.message()));
  socket_.reset();
  return why;
}

absl::Status DaemonConnection::Send(Request request, ipc::Deadline deadline) {
  ZCB_RETURN_IF_ERROR(broken_);
  if (request.request_id().empty()) {
    request.set_request_id(std::string(ipc::CanonicalRequestId(request)));
  }
  ZCB_ASSIGN_OR_RETURN(const std::string bytes,
                       ipc::Encode(lane_, request, last_frame_id_ + 1));
  if (lane_ == ipc::WireLane::kFrameV1) ++last_frame_id_;
  const absl::Status sent = ipc::WriteAll(socket_, bytes, deadline);
  if (!sent.ok()) return Break(ipc::Annotate(sent, "daemon"));
  return absl::OkStatus();
}

absl::StatusOr<absl::optional<Response>> DaemonConnection::Receive(
    ipc::Deadline deadline) {
  ZCB_RETURN_IF_ERROR(broken_);
  for (;;) {
    ipc::Decoded<Response> decoded = ipc::DecodeResponse(buffer_);
    if (decoded.result == ipc::DecodeResult::kMessage) {
      if (decoded.lane == ipc::WireLane::kFrameV1 &&
          decoded.frame_request_id != last_frame_id_) {
        return Break(absl::DataLossError("daemon: a reply to another request"));
      }
      buffer_.erase(0, decoded.consumed_bytes);
      return absl::optional<Response>(std::move(decoded.message));
    }
    if (decoded.result == ipc::DecodeResult::kUnknownVersion) {
      return Break(ipc::Annotate(decoded.error, "daemon"));
    }
    if (decoded.result != ipc::DecodeResult::kNeedMore) {
      return Break(absl::DataLossError(
          absl::StrCat("daemon: ", decoded.error.message())));
    }
    const bool last_look = deadline.Expired();
    const std::size_t have = buffer_.size();
    buffer_.resize(have + std::clamp(decoded.needed_bytes - have, kMinReadBytes,
                                     kMaxReadBytes));
    const absl::StatusOr<std::size_t> n =
        ipc::ReadSome(socket_, &buffer_[have], buffer_.size() - have, deadline);
    buffer_.resize(have + n.value_or(0));
    if (!n.ok()) return Break(ipc::Annotate(n.status(), "daemon"));
    if (*n == 0 && have == 0) return absl::optional<Response>();
    if (*n == 0) {
      return Break(absl::DataLossError(
          "daemon: connection closed in the middle of a reply"));
    }
    if (last_look &&
        ipc::DecodeResponse(buffer_).result == ipc::DecodeResult::kNeedMore) {
      return Break(absl::DeadlineExceededError(
          "daemon: only part of the reply came in time"));
    }
  }
}

absl::StatusOr<Response> DaemonConnection::Call(Request request,
                                                ipc::Deadline deadline) {
  ZCB_RETURN_IF_ERROR(Send(std::move(request), deadline));
  ZCB_ASSIGN_OR_RETURN(absl::optional<Response> response, Receive(deadline));
  if (!response.has_value()) {
    return Break(
        absl::AbortedError("daemon: connection closed without a reply"));
  }
  return *std::move(response);
}

absl::StatusOr<Response> DaemonConnection::CallFor(Request request,
                                                   Response::BodyCase expected,
                                                   ipc::Deadline deadline) {
  ZCB_ASSIGN_OR_RETURN(Response response, Call(std::move(request), deadline));
  ZCB_RETURN_IF_ERROR(AsStatus(response));
  if (response.body_case() != expected) {
    return Break(absl::DataLossError(
        absl::StrCat("daemon: reply ", static_cast<int>(response.body_case()),
                     " where ", static_cast<int>(expected), " answers")));
  }
  return response;
}

absl::Status DaemonConnection::Ping(ipc::Deadline deadline) {
  Request request;
  request.mutable_ping();
  return CallFor(std::move(request), Response::kPong, deadline).status();
}

absl::StatusOr<zccache::v1::DaemonStatus> DaemonConnection::GetStatus(
    ipc::Deadline deadline) {
  Request request;
  request.mutable_status();
  ZCB_ASSIGN_OR_RETURN(Response response, CallFor(std::move(request),
                                                  Response::kStatus, deadline));
  return std::move(*response.mutable_status());
}

absl::StatusOr<zccache::v1::SessionStarted> DaemonConnection::StartSession(
    zccache::v1::SessionStart session, ipc::Deadline deadline) {
  Request request;
  *request.mutable_session_start() = std::move(session);
  ZCB_ASSIGN_OR_RETURN(
      Response response,
      CallFor(std::move(request), Response::kSessionStarted, deadline));
  return std::move(*response.mutable_session_started());
}

absl::StatusOr<zccache::v1::SessionEnded> DaemonConnection::EndSession(
    absl::string_view session_id, ipc::Deadline deadline) {
  Request request;
  request.mutable_session_end()->set_session_id(std::string(session_id));
  ZCB_ASSIGN_OR_RETURN(
      Response response,
      CallFor(std::move(request), Response::kSessionEnded, deadline));
  return std::move(*response.mutable_session_ended());
}

absl::StatusOr<zccache::v1::CompileResult> DaemonConnection::Compile(
    zccache::v1::Compile compile, ipc::Deadline deadline) {
  Request request;
  *request.mutable_compile() = std::move(compile);
  ZCB_ASSIGN_OR_RETURN(
      Response response,
      CallFor(std::move(request), Response::kCompileResult, deadline));
  return std::move(*response.mutable_compile_result());
}

absl::StatusOr<zccache::v1::CompileResult> DaemonConnection::CompileEphemeral(
    zccache::v1::CompileEphemeral compile, ipc::Deadline deadline) {
  Request request;
  *request.mutable_compile_ephemeral() = std::move(compile);
  ZCB_ASSIGN_OR_RETURN(
      Response response,
      CallFor(std::move(request), Response::kCompileResult, deadline));
  return std::move(*response.mutable_compile_result());
}

absl::StatusOr<zccache::v1::LinkResult> DaemonConnection::LinkEphemeral(
    zccache::v1::LinkEphemeral link, ipc::Deadline deadline) {
  Request request;
  *request.mutable_link_ephemeral() = std::move(link);
  ZCB_ASSIGN_OR_RETURN(
      Response response,
      CallFor(std::move(request), Response::kLinkResult, deadline));
  return std::move(*response.mutable_link_result());
}

absl::StatusOr<zccache::v1::Cleared> DaemonConnection::Clear(
    ipc::Deadline deadline) {
  Request request;
  request.mutable_clear();
  ZCB_ASSIGN_OR_RETURN(
      Response response,
      CallFor(std::move(request), Response::kCleared, deadline));
  return std::move(*response.mutable_cleared());
}

absl::Status DaemonConnection::Shutdown(ipc::Deadline deadline) {
  Request request;
  request.mutable_shutdown();
  return CallFor(std::move(request), Response::kShuttingDown, deadline)
      .status();
}

}  // namespace zcbroker::client
