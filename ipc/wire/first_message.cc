#include "ipc/wire/first_message.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/wire/lane_codec.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;
using Kind = FirstMessage::Kind;

FirstMessage NeedMore(size_t needed_bytes) {
  FirstMessage first;
  first.needed_bytes = needed_bytes;
  return first;
}

FirstMessage Request() {
  FirstMessage first;
  first.kind = Kind::kRequest;
  return first;
}

FirstMessage Rejected(absl::Status error) {
  FirstMessage first;
  first.kind = Kind::kRejected;
  first.error = std::move(error);
  return first;
}

}  // namespace

FirstMessage DetectFirstMessage(absl::string_view buffer) {
  if (buffer.size() < kLaneDetectionBytes) return NeedMore(kLaneDetectionBytes);
  if (!BeginsWithFrame(buffer)) return Request();

  const FrameHeader header = ParseFrameHeader(buffer);
  if (header.fault != FrameFault::kNone) {
    return Rejected(absl::InvalidArgumentError(
        absl::StrCat("message too large: ", header.body_bytes, " bytes")));
  }
  const size_t total = kFrameHeaderBytes + header.body_bytes;
  if (buffer.size() < total) return NeedMore(total);
  absl::StatusOr<v1::Frame> frame =
      DecodeFrame(buffer.substr(kFrameHeaderBytes, header.body_bytes));
  if (!frame.ok()) return Rejected(frame.status());
  if (frame->payload_protocol() == kZccacheProtocol) return Request();
  if (frame->payload_protocol() != kIdentityProbeProtocol) {
    return Rejected(absl::InvalidArgumentError(
        absl::StrFormat("no lane for payload_protocol 0x%04X here",
                        frame->payload_protocol())));
  }
  const absl::StatusOr<ProbeNonce> nonce = ParseProbeRequest(*frame);
  if (!nonce.ok()) return Rejected(nonce.status());
  FirstMessage first;
  first.kind = Kind::kIdentityProbe;
  first.probe = *std::move(frame);
  return first;
}

}  // namespace zcbroker::ipc
