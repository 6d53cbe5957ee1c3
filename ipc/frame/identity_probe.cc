#include "ipc/frame/identity_probe.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/frame/envelope.h"
#include "ipc/status_macros.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;

uint64_t RequestIdOf(const ProbeNonce& nonce) {
  uint64_t id = 0;
  for (int i = 7; i >= 0; --i) id = id << 8 | nonce[i];
  return id;
}

std::string Bytes(const ProbeNonce& nonce) {
  return std::string(nonce.begin(), nonce.end());
}

absl::Status CheckProbeEnvelope(const v1::Frame& frame, v1::FrameKind kind) {
  const FrameFault fault = CheckEnvelope(frame, kind, kIdentityProbeProtocol);
  if (fault == FrameFault::kNone) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("identity probe: wrong ", FrameFaultName(fault)));
}

}  // namespace

std::string EncodeProbeRequest(const ProbeNonce& nonce) {
  // 32 bytes of payload never exceed the frame cap.
  return *EncodeFrame(MakeFrame(v1::FRAME_KIND_REQUEST, kIdentityProbeProtocol,
                                RequestIdOf(nonce), Bytes(nonce)));
}

absl::StatusOr<ProbeNonce> ParseProbeRequest(const v1::Frame& frame) {
  if (frame.payload_protocol() != kIdentityProbeProtocol) {
    return absl::FailedPreconditionError("not an identity probe");
  }
  ZCB_RETURN_IF_ERROR(CheckProbeEnvelope(frame, v1::FRAME_KIND_REQUEST));
  if (frame.payload().size() != kProbeNonceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("identity probe: the nonce has ", frame.payload().size(),
                     " bytes, not ", kProbeNonceBytes));
  }
  ProbeNonce nonce;
  std::copy(frame.payload().begin(), frame.payload().end(), nonce.begin());
  return nonce;
}

absl::StatusOr<std::string> EncodeProbeReply(const v1::Frame& request,
                                             const v1::DaemonProcess& process) {
  v1::Frame reply = MakeFrame(
      v1::FRAME_KIND_RESPONSE, kIdentityProbeProtocol, request.request_id(),
      request.payload() + SerializeDeterministically(process));
  reply.set_traceparent(request.traceparent());
  reply.set_tracestate(request.tracestate());
  return EncodeFrame(reply);
}

absl::StatusOr<v1::DaemonProcess> ParseProbeReply(const v1::Frame& reply,
                                                  const ProbeNonce& nonce) {
  ZCB_RETURN_IF_ERROR(CheckProbeEnvelope(reply, v1::FRAME_KIND_RESPONSE));
  const absl::string_view payload(reply.payload());
  if (reply.request_id() != RequestIdOf(nonce) ||
      payload.substr(0, kProbeNonceBytes) != Bytes(nonce)) {
    return absl::InvalidArgumentError(
        "identity probe: the reply is not to our nonce");
  }
  v1::DaemonProcess process;
  if (!process.ParseFromArray(
          payload.data() + kProbeNonceBytes,
          static_cast<int>(payload.size() - kProbeNonceBytes)) ||
      !process.has_ipc_endpoint()) {
    return absl::InvalidArgumentError(
        "identity probe: the reply names no process");
  }
  return process;
}

}  // namespace zcbroker::ipc
