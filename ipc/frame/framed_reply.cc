#include "ipc/frame/framed_reply.h"

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"
#include "ipc/frame/envelope.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;

constexpr uint32_t kProtocolVersion = 1;

absl::StatusOr<std::string> EncodeReply(
    const v1::Frame& request, uint32_t payload_protocol,
    const google::protobuf::MessageLite& payload) {
  v1::Frame frame =
      MakeFrame(v1::FRAME_KIND_RESPONSE, payload_protocol, request.request_id(),
                SerializeDeterministically(payload));
  frame.set_traceparent(request.traceparent());
  frame.set_tracestate(request.tracestate());
  return EncodeFrame(frame);
}

}  // namespace

v1::Refused MakeRefused(absl::string_view reason, v1::ErrorCode code,
                        uint64_t retry_after_ms) {
  v1::Refused refused;
  refused.set_reason(reason.data(), reason.size());
  refused.set_daemon_min_protocol(kProtocolVersion);
  refused.set_daemon_max_protocol(kProtocolVersion);
  refused.set_code(code);
  refused.set_retry_after_ms(retry_after_ms);
  return refused;
}

v1::Refused RefusedForFault(FrameFault fault) {
  switch (fault) {
    case FrameFault::kFramingVersion:
      return MakeRefused("unsupported framing version",
                         v1::ERROR_VERSION_UNSUPPORTED);
    case FrameFault::kTooLarge:
      return MakeRefused("initial Hello frame exceeds 64 KiB",
                         v1::ERROR_PEER_REJECTED);
    case FrameFault::kIncomplete:
      return MakeRefused("incomplete Hello frame", v1::ERROR_PEER_REJECTED);
    case FrameFault::kEnvelopeVersion:
      return MakeRefused("frame envelope_version is not v1",
                         v1::ERROR_VERSION_UNSUPPORTED);
    case FrameFault::kKind:
      return MakeRefused("Hello frame kind must be REQUEST",
                         v1::ERROR_PEER_REJECTED);
    case FrameFault::kPayloadProtocol:
      return MakeRefused("Hello frame payload_protocol must be control-plane",
                         v1::ERROR_PEER_REJECTED);
    case FrameFault::kPayloadEncoding:
      return MakeRefused("Hello payload must not be compressed",
                         v1::ERROR_PEER_REJECTED);
    case FrameFault::kMalformedPayload:
      return MakeRefused("malformed Hello payload", v1::ERROR_PEER_REJECTED);
    case FrameFault::kNone:
    case FrameFault::kMalformedFrame:
      break;
  }
  return MakeRefused("malformed broker Frame", v1::ERROR_PEER_REJECTED);
}

absl::StatusOr<std::string> EncodeHelloReply(const v1::Frame& request,
                                             const v1::Negotiated& negotiated) {
  v1::HelloReply reply;
  *reply.mutable_negotiated() = negotiated;
  return EncodeReply(request, kControlProtocol, reply);
}

absl::StatusOr<std::string> EncodeHelloReply(const v1::Frame& request,
                                             const v1::Refused& refused) {
  v1::HelloReply reply;
  *reply.mutable_refused() = refused;
  return EncodeReply(request, kControlProtocol, reply);
}

absl::StatusOr<std::string> EncodeAdminReply(const v1::Frame& request,
                                             const v1::AdminReply& reply) {
  return EncodeReply(request, kAdminProtocol, reply);
}

}  // namespace zcbroker::ipc
