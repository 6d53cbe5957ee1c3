// The reply frames of a v1 broker to a Hello: one Negotiated or Refused, after
// which the broker closes. No I/O; thread-safe.
// Source: spec broker-v1, sections 1, 1.1, 2.1 and 5.4.
#ifndef ZCBROKER_IPC_FRAME_FRAMED_REPLY_H_
#define ZCBROKER_IPC_FRAME_FRAMED_REPLY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/frame/envelope.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {

// A refusal that states protocol range 1 to 1; `retry_after_ms` 0 = no hint.
running_process::broker::v1::Refused MakeRefused(
    absl::string_view reason, running_process::broker::v1::ErrorCode code,
    uint64_t retry_after_ms = 0);

// The refusal that upstream brokers answer to a faulty Hello frame, with their
// exact text and code. `fault` is not kNone.
running_process::broker::v1::Refused RefusedForFault(FrameFault fault);

// A whole reply frame. It echoes the request's request_id and trace context;
// for a request that could not be decoded pass an empty Frame.
// Error: kInvalidArgument (over kMaxFrameBodyBytes).
absl::StatusOr<std::string> EncodeHelloReply(
    const running_process::broker::v1::Frame& request,
    const running_process::broker::v1::Negotiated& negotiated);
absl::StatusOr<std::string> EncodeHelloReply(
    const running_process::broker::v1::Frame& request,
    const running_process::broker::v1::Refused& refused);

// The same for an AdminRequest.
absl::StatusOr<std::string> EncodeAdminReply(
    const running_process::broker::v1::Frame& request,
    const running_process::broker::v1::AdminReply& reply);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_FRAME_FRAMED_REPLY_H_
