// Whole messages of a zccache data path: which lane a buffer begins with, the
// message in it, and the bytes of a message on a lane. No I/O; thread-safe.
// Source: spec zccache-ipc 2.2 to 2.4, 3.1 to 3.4 and 4.3.
//
//   bincode v15, prost v16   u32 length, u32 version, payload;
//                            length counts version and payload
//   FrameV1                  0x01, u32 body length, Frame{0x7A63, payload}
//
// Lanes may be mixed message by message; a reply goes out on the lane of its
// request and echoes frame_request_id and request_id. Paths are kept byte for
// byte: the lexical normalisation a zccache daemon applies is not applied
// here, so that what was decoded encodes to the same bytes.
#ifndef ZCBROKER_IPC_WIRE_LANE_CODEC_H_
#define ZCBROKER_IPC_WIRE_LANE_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {

inline constexpr uint32_t kBincodeVersion = 15;
inline constexpr uint32_t kProstVersion = 16;

// Cap on `length` and on a Frame's body, inclusive, in both directions.
inline constexpr uint32_t kMaxMessageBytes = 16 * 1024 * 1024;

// The bytes that tell the two families of lanes apart.
inline constexpr size_t kLaneDetectionBytes = 8;

// Whether a running-process frame begins here, rather than length and version;
// both may start with byte 1. REQUIRES: at least kLaneDetectionBytes.
bool BeginsWithFrame(absl::string_view buffer);

// What the front of a buffer holds.
enum class DecodeResult {
  kNeedMore,  // not yet a whole message; nothing consumed
  kMessage,   // a message; consumed
  // A whole frame whose message breaks a rule of content_check.h: consumed.
  // The daemon answers Error on the same lane, echoing the ids, and goes on.
  kInvalidContent,
  // A whole length-and-version frame of another version: not consumed. The
  // daemon answers MismatchAnswer and closes.
  kUnknownVersion,
  // The rest cannot be resynchronised; the daemon closes without an answer.
  kTooLarge,       // the announced length exceeds kMaxMessageBytes
  kTooSmall,       // the announced length leaves no room for the version
  kMalformed,      // the payload or Frame cannot be decoded
  kWrongEnvelope,  // a Frame of another kind, protocol, encoding or version
};

template <class Message>
struct Decoded {
  DecodeResult result = DecodeResult::kNeedMore;
  // How many bytes in all, counted from the front of the buffer, are needed
  // before another call can tell more. With kNeedMore only.
  size_t needed_bytes = 0;
  // How many bytes the caller drops from the front of its buffer.
  size_t consumed_bytes = 0;
  // Known with kMessage, kInvalidContent, kMalformed and kWrongEnvelope.
  WireLane lane = WireLane::kBincodeV15;
  // Frame.request_id on FrameV1, else 0.
  uint64_t frame_request_id = 0;
  // The number found, with kUnknownVersion.
  uint32_t version = 0;
  // With kMessage; with kInvalidContent only its request_id is of use.
  Message message;
  // OK with kNeedMore and kMessage; otherwise kInvalidArgument
  // (kUnimplemented with kUnknownVersion) in upstream's words.
  absl::Status error;
};

// Decodes the message at the front of `buffer`, which may hold less or more
// than one. Detection is upstream's: up to 8 bytes are awaited, lengths are
// checked as soon as they are seen and before anything is allocated. The
// direction of a Frame (REQUEST or RESPONSE) is not checked.
Decoded<zccache::v1::Request> DecodeRequest(absl::string_view buffer);
Decoded<zccache::v1::Response> DecodeResponse(absl::string_view buffer);

// The whole bytes of `message` on `lane`. request_id is written as it is on the
// prost lanes (a client sets CanonicalRequestId, a daemon the request's) and
// dropped on bincode; `frame_request_id` counts only on FrameV1.
// Error: kInvalidArgument (content_check.h, longer than kMaxMessageBytes, or
// `lane` is kOpaque).
absl::StatusOr<std::string> Encode(WireLane lane,
                                   const zccache::v1::Request& message,
                                   uint64_t frame_request_id);
absl::StatusOr<std::string> Encode(WireLane lane,
                                   const zccache::v1::Response& message,
                                   uint64_t frame_request_id);

// What a daemon of zccache `daemon_version` answers, always on bincode v15, to
// a frame of unknown version `received`.
std::string MismatchAnswer(absl::string_view daemon_version, uint32_t received);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_LANE_CODEC_H_
