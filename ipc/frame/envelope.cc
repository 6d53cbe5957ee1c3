#include "ipc/frame/envelope.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message_lite.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;

uint32_t LittleEndian32(absl::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return value;
}

void AppendDeterministically(const google::protobuf::MessageLite& message,
                             std::string* out) {
  google::protobuf::io::StringOutputStream stream(out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
}

}  // namespace

absl::string_view FrameFaultName(FrameFault fault) {
  switch (fault) {
    case FrameFault::kNone:
      return "none";
    case FrameFault::kFramingVersion:
      return "framing_version";
    case FrameFault::kTooLarge:
      return "too_large";
    case FrameFault::kIncomplete:
      return "incomplete";
    case FrameFault::kMalformedFrame:
      return "malformed_frame";
    case FrameFault::kEnvelopeVersion:
      return "envelope_version";
    case FrameFault::kKind:
      return "kind";
    case FrameFault::kPayloadProtocol:
      return "payload_protocol";
    case FrameFault::kPayloadEncoding:
      return "payload_encoding";
    case FrameFault::kMalformedPayload:
      return "malformed_payload";
  }
  return "unknown";
}

FrameHeader ParseFrameHeader(absl::string_view buffer,
                             uint32_t max_body_bytes) {
  FrameHeader header;
  if (buffer.empty()) return header;
  if (static_cast<uint8_t>(buffer[0]) != kFramingVersion) {
    header.fault = FrameFault::kFramingVersion;
    return header;
  }
  if (buffer.size() < kFrameHeaderBytes) return header;
  header.body_bytes = LittleEndian32(buffer.substr(1));
  if (header.body_bytes > max_body_bytes) {
    header.fault = FrameFault::kTooLarge;
    return header;
  }
  header.complete = true;
  return header;
}

absl::StatusOr<v1::Frame> DecodeFrame(absl::string_view body) {
  v1::Frame frame;
  if (body.size() > kMaxFrameBodyBytes ||
      !frame.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return absl::InvalidArgumentError("malformed broker Frame");
  }
  return frame;
}

FrameFault CheckEnvelope(const v1::Frame& frame, v1::FrameKind kind,
                         uint32_t payload_protocol) {
  if (frame.envelope_version() != kEnvelopeVersion) {
    return FrameFault::kEnvelopeVersion;
  }
  if (frame.kind() != kind) return FrameFault::kKind;
  if (frame.payload_protocol() != payload_protocol) {
    return FrameFault::kPayloadProtocol;
  }
  if (frame.payload_encoding() != v1::PAYLOAD_ENCODING_NONE) {
    return FrameFault::kPayloadEncoding;
  }
  return FrameFault::kNone;
}

v1::Frame MakeFrame(v1::FrameKind kind, uint32_t payload_protocol,
                    uint64_t request_id, std::string payload) {
  v1::Frame frame;
  frame.set_envelope_version(kEnvelopeVersion);
  frame.set_kind(kind);
  frame.set_payload_protocol(payload_protocol);
  frame.set_request_id(request_id);
  frame.set_payload(std::move(payload));
  return frame;
}

absl::StatusOr<std::string> EncodeFrame(const v1::Frame& frame) {
  const size_t body_bytes = frame.ByteSizeLong();
  if (body_bytes > kMaxFrameBodyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("message too large: ", body_bytes, " bytes"));
  }
  std::string wire;
  wire.reserve(kFrameHeaderBytes + body_bytes);
  wire.push_back(static_cast<char>(kFramingVersion));
  for (int shift = 0; shift < 32; shift += 8) {
    wire.push_back(static_cast<char>(body_bytes >> shift & 0xff));
  }
  AppendDeterministically(frame, &wire);
  return wire;
}

std::string SerializeDeterministically(
    const google::protobuf::MessageLite& message) {
  std::string bytes;
  AppendDeterministically(message, &bytes);
  return bytes;
}

}  // namespace zcbroker::ipc
