// The identity probe: who is the process behind this endpoint? It is the first
// message of a connection; the backend answers and closes. No I/O;
// thread-safe. Source: spec zccache-ipc 6.4, broker-v1 6.7.
//
// The asker draws a nonce of 32 random bytes and gives the whole exchange its
// own deadline (upstream: 500 ms).
#ifndef ZCBROKER_IPC_FRAME_IDENTITY_PROBE_H_
#define ZCBROKER_IPC_FRAME_IDENTITY_PROBE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {

inline constexpr size_t kProbeNonceBytes = 32;
using ProbeNonce = std::array<uint8_t, kProbeNonceBytes>;

// The whole request frame. Its request_id is the first 8 bytes of the nonce,
// little-endian.
std::string EncodeProbeRequest(const ProbeNonce& nonce);

// The nonce of a request. Errors: kFailedPrecondition (not on the probe's
// lane: another message, for somebody else), kInvalidArgument (on that lane,
// but of the wrong version, kind, encoding or nonce length).
absl::StatusOr<ProbeNonce> ParseProbeRequest(
    const running_process::broker::v1::Frame& frame);

// The whole reply frame to a request that ParseProbeRequest accepted; it
// echoes request_id and trace context.
// Error: kInvalidArgument (over kMaxFrameBodyBytes).
absl::StatusOr<std::string> EncodeProbeReply(
    const running_process::broker::v1::Frame& request,
    const running_process::broker::v1::DaemonProcess& process);

// Who answered. Reads both the 4.1.0 form (exe_sha256) and the newer one
// (exe_hash). Whether that is the process one expects is the caller's to
// check. Error: kInvalidArgument (wrong envelope, request id or nonce, or no
// DaemonProcess with an endpoint after it).
absl::StatusOr<running_process::broker::v1::DaemonProcess> ParseProbeReply(
    const running_process::broker::v1::Frame& reply, const ProbeNonce& nonce);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_FRAME_IDENTITY_PROBE_H_
