// The v1 envelope: every message that starts with byte 0x01 on a broker socket
// or a backend's endpoint. Bytes in, values out; no I/O, no allocation before
// the length was checked. All functions are thread-safe.
// Source: spec broker-v1, sections 1, 1.2 and 2.7.
//
//   0x01 | u32 body length, little-endian | body: a running_process Frame
//
// The checks happen in stream order (version byte, length, body), and a peer
// never resynchronises after a fault: answer if the protocol says so, close.
#ifndef ZCBROKER_IPC_FRAME_ENVELOPE_H_
#define ZCBROKER_IPC_FRAME_ENVELOPE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {

// The first byte of a frame, and Frame.envelope_version: two numbers that both
// happen to be 1.
inline constexpr uint8_t kFramingVersion = 1;
inline constexpr uint32_t kEnvelopeVersion = 1;

inline constexpr size_t kFrameHeaderBytes = 5;

// Caps on the body, both inclusive: of any frame, and of one that is a Hello.
inline constexpr uint32_t kMaxFrameBodyBytes = 16 * 1024 * 1024;
inline constexpr uint32_t kMaxHelloBodyBytes = 64 * 1024;

// Frame.payload_protocol: which lane a payload belongs to.
inline constexpr uint32_t kControlProtocol = 0x0000;
inline constexpr uint32_t kZccacheProtocol = 0x7A63;
inline constexpr uint32_t kAdminProtocol = 0xAD01;
inline constexpr uint32_t kIdentityProbeProtocol = 0xB232;
inline constexpr uint32_t kHandoffProtocol = 0xD0FF;
// Private range: zcbroker.v1.LauncherRequest, only to a broker known as ours.
inline constexpr uint32_t kLauncherProtocol = 0xF2C8;

// What is wrong with a frame, in the order in which it is noticed. What a
// broker answers to each: framed_reply.h.
enum class FrameFault {
  kNone,
  kFramingVersion,    // the first byte is not 1
  kTooLarge,          // the announced body is longer than the cap in force
  kIncomplete,        // the stream ended, failed or timed out inside the frame
  kMalformedFrame,    // the body is not a Frame
  kEnvelopeVersion,   // envelope_version is not 1
  kKind,              // kind is not the expected one
  kPayloadProtocol,   // payload_protocol is not the expected one
  kPayloadEncoding,   // the payload is compressed
  kMalformedPayload,  // the payload is not the lane's message
};

// The fault's name for logs and counters: "framing_version", "too_large", ...
absl::string_view FrameFaultName(FrameFault fault);

// What the first bytes of a stream say about its next frame.
struct FrameHeader {
  // kNone, kFramingVersion (seen on the first byte) or kTooLarge.
  FrameFault fault = FrameFault::kNone;
  // False: feed more bytes; at least kFrameHeaderBytes decide. Meaningless
  // with a fault.
  bool complete = false;
  // Length of the body that follows the header, once complete; also set with
  // kTooLarge.
  uint32_t body_bytes = 0;
};

// Reads a header from the start of `buffer`, which may hold fewer or more
// bytes than one; a body of exactly `max_body_bytes` is accepted.
FrameHeader ParseFrameHeader(absl::string_view buffer,
                             uint32_t max_body_bytes = kMaxFrameBodyBytes);

// Decodes a body; unknown fields are kept, so that encoding gives them back.
// Error: kInvalidArgument (not a Frame, or a string that is not UTF-8).
absl::StatusOr<running_process::broker::v1::Frame> DecodeFrame(
    absl::string_view body);

// The four envelope checks in their fixed order; an unknown enum value counts
// as a mismatch. Returns kNone, kEnvelopeVersion, kKind, kPayloadProtocol or
// kPayloadEncoding.
FrameFault CheckEnvelope(const running_process::broker::v1::Frame& frame,
                         running_process::broker::v1::FrameKind kind,
                         uint32_t payload_protocol);

// A frame with the fields every sender sets: envelope_version 1, no encoding.
running_process::broker::v1::Frame MakeFrame(
    running_process::broker::v1::FrameKind kind, uint32_t payload_protocol,
    uint64_t request_id, std::string payload);

// Header and body, ready to be written; map entries are sorted, so equal
// frames give equal bytes. Error: kInvalidArgument (the body is longer than
// kMaxFrameBodyBytes).
absl::StatusOr<std::string> EncodeFrame(
    const running_process::broker::v1::Frame& frame);

// The message's bytes with map entries sorted: what every payload is made by.
std::string SerializeDeterministically(
    const google::protobuf::MessageLite& message);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_FRAME_ENVELOPE_H_
