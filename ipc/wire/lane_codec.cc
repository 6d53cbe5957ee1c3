#include "ipc/wire/lane_codec.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/frame/envelope.h"
#include "ipc/status_macros.h"
#include "ipc/wire/bincode.h"
#include "ipc/wire/content_check.h"
#include "ipc/wire/little_endian.h"
#include "ipc/wire_lane.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace {

namespace rp = running_process::broker::v1;
using zccache::v1::Request;
using zccache::v1::Response;

constexpr size_t kLengthBytes = 4;
constexpr size_t kLengthAndVersionBytes = 8;
constexpr size_t kVersionBytes = 4;

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("deserialization error: ", what));
}

template <class Message>
Decoded<Message> NeedMore(size_t needed_bytes) {
  Decoded<Message> decoded;
  decoded.needed_bytes = needed_bytes;
  return decoded;
}

template <class Message>
Decoded<Message> Failed(DecodeResult result, const absl::Status& error) {
  Decoded<Message> decoded;
  decoded.result = result;
  decoded.error = error;
  return decoded;
}

template <class Message>
Decoded<Message> TooLarge(uint32_t length) {
  return Failed<Message>(DecodeResult::kTooLarge,
                         absl::InvalidArgumentError(absl::StrCat(
                             "message too large: ", length, " bytes")));
}

absl::StatusOr<Request> DecodeBincode(absl::string_view payload,
                                      const Request*) {
  return DecodeBincodeRequest(payload);
}
absl::StatusOr<Response> DecodeBincode(absl::string_view payload,
                                       const Response*) {
  return DecodeBincodeResponse(payload);
}

// `env_is_set` = false means: inherit, whatever entries came along.
template <class Compile>
void DropUnsetEnv(Compile* compile) {
  if (!compile->env_is_set()) compile->clear_env();
}
void DropMeaninglessFields(Request* request) {
  if (request->has_compile()) {
    DropUnsetEnv(request->mutable_compile());
  } else if (request->has_compile_ephemeral()) {
    DropUnsetEnv(request->mutable_compile_ephemeral());
  } else if (request->has_link_ephemeral()) {
    DropUnsetEnv(request->mutable_link_ephemeral());
  }
}
void DropMeaninglessFields(Response*) {}

// Fills result, error and message from a protobuf payload.
template <class Message>
void DecodeProst(absl::string_view payload, Decoded<Message>* decoded) {
  if (!decoded->message.ParseFromArray(payload.data(),
                                       static_cast<int>(payload.size()))) {
    decoded->result = DecodeResult::kMalformed;
    decoded->consumed_bytes = 0;
    decoded->error = Malformed("invalid v16 prost message");
    return;
  }
  absl::Status content = CheckContent(decoded->message, TextOrigin::kParsed);
  if (!content.ok()) {
    decoded->result = DecodeResult::kInvalidContent;
    decoded->error = std::move(content);
    return;
  }
  DropMeaninglessFields(&decoded->message);
  decoded->result = DecodeResult::kMessage;
}

template <class Message>
Decoded<Message> DecodeLengthAndVersion(absl::string_view buffer) {
  if (buffer.size() < kLengthBytes) {
    return NeedMore<Message>(kLengthAndVersionBytes);
  }
  const uint32_t length = LittleEndian32(buffer, 0);
  if (length > kMaxMessageBytes) return TooLarge<Message>(length);
  if (length < kVersionBytes) {
    return Failed<Message>(DecodeResult::kTooSmall,
                           Malformed("frame too small for protocol version"));
  }
  const size_t total = kLengthBytes + length;
  if (buffer.size() < total) return NeedMore<Message>(total);
  const uint32_t version = LittleEndian32(buffer, kLengthBytes);
  const absl::string_view payload =
      buffer.substr(kLengthAndVersionBytes, length - kVersionBytes);

  Decoded<Message> decoded;
  decoded.consumed_bytes = total;
  if (version == kProstVersion) {
    decoded.lane = WireLane::kProstV16;
    DecodeProst(payload, &decoded);
    return decoded;
  }
  if (version == kBincodeVersion) {
    absl::StatusOr<Message> message =
        DecodeBincode(payload, static_cast<const Message*>(nullptr));
    if (!message.ok()) {
      return Failed<Message>(DecodeResult::kMalformed,
                             Malformed(message.status().message()));
    }
    decoded.result = DecodeResult::kMessage;
    decoded.message = *std::move(message);
    return decoded;
  }
  decoded = Failed<Message>(
      DecodeResult::kUnknownVersion,
      absl::UnimplementedError(absl::StrCat(
          "protocol version mismatch: expected v", kProstVersion,
          ", received v", version, ". Run `zccache stop` first.")));
  decoded.version = version;
  return decoded;
}

template <class Message>
Decoded<Message> DecodeFrameV1(absl::string_view buffer) {
  const FrameHeader header = ParseFrameHeader(buffer, kMaxMessageBytes);
  if (header.fault == FrameFault::kTooLarge) {
    return TooLarge<Message>(header.body_bytes);
  }
  const size_t total = kFrameHeaderBytes + header.body_bytes;
  if (buffer.size() < total) return NeedMore<Message>(total);

  Decoded<Message> decoded;
  decoded.lane = WireLane::kFrameV1;
  absl::StatusOr<rp::Frame> frame =
      DecodeFrame(buffer.substr(kFrameHeaderBytes, header.body_bytes));
  if (!frame.ok()) {
    decoded.result = DecodeResult::kMalformed;
    decoded.error = Malformed(frame.status().message());
    return decoded;
  }
  const rp::FrameKind kind = frame->kind() == rp::FRAME_KIND_RESPONSE
                                 ? rp::FRAME_KIND_RESPONSE
                                 : rp::FRAME_KIND_REQUEST;
  const FrameFault fault = CheckEnvelope(*frame, kind, kZccacheProtocol);
  if (fault != FrameFault::kNone) {
    decoded.result = DecodeResult::kWrongEnvelope;
    decoded.error =
        Malformed(absl::StrCat("unexpected frame ", FrameFaultName(fault)));
    return decoded;
  }
  decoded.consumed_bytes = total;
  decoded.frame_request_id = frame->request_id();
  DecodeProst(frame->payload(), &decoded);
  return decoded;
}

template <class Message>
Decoded<Message> Decode(absl::string_view buffer) {
  if (buffer.empty()) return NeedMore<Message>(kLaneDetectionBytes);
  if (static_cast<uint8_t>(buffer[0]) != kFramingVersion) {
    return DecodeLengthAndVersion<Message>(buffer);
  }
  if (buffer.size() < kLaneDetectionBytes) {
    return NeedMore<Message>(kLaneDetectionBytes);
  }
  return BeginsWithFrame(buffer) ? DecodeFrameV1<Message>(buffer)
                                 : DecodeLengthAndVersion<Message>(buffer);
}

// The header, its length still to be filled in, with room for the payload.
std::string StartLengthAndVersion(uint32_t version, size_t payload_bytes) {
  std::string wire;
  wire.reserve(kLengthAndVersionBytes + payload_bytes);
  AppendLittleEndian32(0, &wire);
  AppendLittleEndian32(version, &wire);
  return wire;
}

absl::StatusOr<std::string> FinishLengthAndVersion(std::string wire) {
  const size_t length = wire.size() - kLengthBytes;
  if (length > kMaxMessageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("message too large: ", length, " bytes"));
  }
  for (size_t i = 0; i < kLengthBytes; ++i) {
    wire[i] = static_cast<char>(length >> (8 * i) & 0xff);
  }
  return wire;
}

template <class Message>
absl::StatusOr<std::string> EncodeOn(WireLane lane, const Message& message,
                                     rp::FrameKind kind,
                                     uint64_t frame_request_id) {
  ZCB_RETURN_IF_ERROR(CheckContent(message, TextOrigin::kUnverified));
  switch (lane) {
    case WireLane::kBincodeV15: {
      // The protobuf size is near enough to spare most reallocations.
      std::string wire =
          StartLengthAndVersion(kBincodeVersion, 2 * message.ByteSizeLong());
      AppendBincode(message, &wire);
      return FinishLengthAndVersion(std::move(wire));
    }
    case WireLane::kProstV16: {
      std::string wire =
          StartLengthAndVersion(kProstVersion, message.ByteSizeLong());
      message.AppendToString(&wire);
      return FinishLengthAndVersion(std::move(wire));
    }
    case WireLane::kFrameV1:
      return EncodeFrame(MakeFrame(kind, kZccacheProtocol, frame_request_id,
                                   message.SerializeAsString()));
    case WireLane::kOpaque:
      break;
  }
  return absl::InvalidArgumentError("no encoding for an opaque lane");
}

}  // namespace

bool BeginsWithFrame(absl::string_view buffer) {
  if (static_cast<uint8_t>(buffer[0]) != kFramingVersion) return false;
  const uint32_t version = LittleEndian32(buffer, kLengthBytes);
  const bool known_version =
      version == kBincodeVersion || version == kProstVersion;
  return !known_version || LittleEndian32(buffer, 0) < kVersionBytes;
}

Decoded<Request> DecodeRequest(absl::string_view buffer) {
  return Decode<Request>(buffer);
}

Decoded<Response> DecodeResponse(absl::string_view buffer) {
  return Decode<Response>(buffer);
}

absl::StatusOr<std::string> Encode(WireLane lane, const Request& message,
                                   uint64_t frame_request_id) {
  return EncodeOn(lane, message, rp::FRAME_KIND_REQUEST, frame_request_id);
}

absl::StatusOr<std::string> Encode(WireLane lane, const Response& message,
                                   uint64_t frame_request_id) {
  return EncodeOn(lane, message, rp::FRAME_KIND_RESPONSE, frame_request_id);
}

std::string MismatchAnswer(absl::string_view daemon_version,
                           uint32_t received) {
  Response response;
  response.mutable_error()->set_message(absl::StrCat(
      "protocol version mismatch: daemon zccache v", daemon_version,
      " (protocol v", kProstVersion, ") received a request at protocol v",
      received,
      ". Run `zccache stop` and retry \xE2\x80\x94 the CLI you connected with "
      "is built against a different PROTOCOL_VERSION than this daemon."));
  std::string wire = StartLengthAndVersion(kBincodeVersion, 512);
  AppendBincode(response, &wire);
  // A few hundred bytes never exceed the cap.
  return *FinishLengthAndVersion(std::move(wire));
}

}  // namespace zcbroker::ipc
