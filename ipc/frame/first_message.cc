#include "ipc/frame/first_message.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/identity_probe.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {

FirstMessage DetectFirstMessage(absl::string_view buffer) {
  FirstMessage first;
  const FrameHeader header = ParseFrameHeader(buffer, kMaxProbeBodyBytes);
  if (header.fault != FrameFault::kNone) return first;
  if (!header.complete ||
      buffer.size() < kFrameHeaderBytes + header.body_bytes) {
    first.kind = FirstMessage::Kind::kNeedMore;
    return first;
  }
  absl::StatusOr<running_process::broker::v1::Frame> frame =
      DecodeFrame(buffer.substr(kFrameHeaderBytes, header.body_bytes));
  if (!frame.ok() || !ParseProbeRequest(*frame).ok()) return first;
  first.kind = FirstMessage::Kind::kIdentityProbe;
  first.probe = *std::move(frame);
  return first;
}

}  // namespace zcbroker::ipc
