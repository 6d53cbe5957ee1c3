#include "ipc/wire/message_scan.h"

#include <algorithm>
#include <array>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "ipc/frame/envelope.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire/little_endian.h"
#include "ipc/wire_lane.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr size_t kLengthBytes = 4;
constexpr size_t kHeaderBytes = 8;

// zccache.v1.Request: its oneof lies below request_id.
constexpr uint32_t kRequestIdField = 100;

// Generations whose number means bincode (spec zccache-ipc 3.7); all others
// that start with length and number are prost.
constexpr std::array<uint32_t, 3> kBincodeProtocols = {15, 17, 18};

// By the field of zccache.v1.Request; the bincode variant is one less.
RequestKind KindOfField(uint32_t field) {
  using zccache::v1::Request;
  switch (field) {
    case Request::kStatus:
      return RequestKind::kStatus;
    case Request::kShutdown:
      return RequestKind::kShutdown;
    case Request::kPing:
    case Request::kLookup:
    case Request::kSessionStart:
    case Request::kCompile:
    case Request::kSessionEnd:
    case Request::kCompileEphemeral:
    case Request::kSessionStats:
    case Request::kListRustArtifacts:
      return RequestKind::kRepeatable;
    default:
      return RequestKind::kOther;
  }
}

// "ar", "llvm-ar-14", "x86_64-linux-gnu-gcc-ar": what adds to its output.
bool IsArchiver(absl::string_view tool) {
  absl::string_view name = tool.substr(tool.find_last_of("/\\") + 1);
  absl::ConsumeSuffix(&name, ".exe");
  const size_t version = name.find_last_not_of("0123456789.");
  if (version != absl::string_view::npos && name[version] == '-') {
    name = name.substr(0, version);
  }
  return name == "ar" || absl::EndsWith(name, "-ar") || name == "lib" ||
         absl::EndsWith(name, "-lib") || name == "libtool" ||
         absl::EndsWith(name, "ranlib");
}

RequestKind KindOfLink(absl::string_view tool) {
  return tool.empty() || IsArchiver(tool) ? RequestKind::kOther
                                          : RequestKind::kRepeatable;
}

// The one body of a prost message and its request_id; field 0: none, several,
// or bytes that make no sense.
struct ProstBody {
  uint32_t field = 0;
  // Of a link request.
  std::string tool;
  std::string request_id;
};

ProstBody ScanProst(absl::string_view payload) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(payload.data()),
                      static_cast<int>(payload.size()));
  ProstBody body;
  bool several = false;
  while (const uint32_t tag = in.ReadTag()) {
    const auto field =
        static_cast<uint32_t>(WireFormatLite::GetTagFieldNumber(tag));
    if (field == kRequestIdField &&
        WireFormatLite::GetTagWireType(tag) ==
            WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      uint32_t length = 0;
      if (!in.ReadVarint32(&length) ||
          !in.ReadString(&body.request_id, static_cast<int>(length))) {
        several = true;
        break;
      }
      continue;
    }
    // Two bodies: whoever reads it takes the last, so we claim to know none.
    several |= body.field != 0;
    body.field = field;
    if (field == zccache::v1::Request::kLinkEphemeralFieldNumber &&
        WireFormatLite::GetTagWireType(tag) ==
            WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      uint32_t length = 0;
      std::string bytes;
      zccache::v1::LinkEphemeral link;
      if (!in.ReadVarint32(&length) ||
          !in.ReadString(&bytes, static_cast<int>(length)) ||
          !link.ParseFromString(bytes)) {
        break;
      }
      body.tool = link.tool().value();
      continue;
    }
    if (!WireFormatLite::SkipField(&in, tag)) break;
  }
  if (several || !in.ConsumedEntireMessage()) body.field = 0;
  return body;
}

// The header's number means bincode; else what follows it is prost.
bool IsBincode(uint32_t protocol) {
  return std::find(kBincodeProtocols.begin(), kBincodeProtocols.end(),
                   protocol) != kBincodeProtocols.end();
}

void Summarize(ProstBody body, RequestSummary* summary) {
  summary->kind = body.field == zccache::v1::Request::kLinkEphemeral
                      ? KindOfLink(body.tool)
                      : KindOfField(body.field);
  summary->request_id = std::move(body.request_id);
}

// Of a link request: variant, client pid, then the tool as u64 length and
// bytes. Empty where it is cut short.
absl::string_view BincodeLinkTool(absl::string_view payload) {
  constexpr size_t kLengthAt = 8;
  constexpr size_t kToolAt = 16;
  if (payload.size() < kToolAt) return "";
  return payload.substr(kToolAt, LittleEndian32(payload, kLengthAt));
}

std::string WithHeader(uint32_t protocol, absl::string_view payload) {
  std::string bytes;
  AppendLittleEndian32(static_cast<uint32_t>(kLengthBytes + payload.size()),
                       &bytes);
  AppendLittleEndian32(protocol, &bytes);
  absl::StrAppend(&bytes, payload);
  return bytes;
}

std::string EncodeReply(const RequestSummary& request,
                        zccache::v1::Response response) {
  response.set_request_id(request.request_id);
  if (request.encoding == RequestSummary::Encoding::kProst) {
    return WithHeader(request.protocol, response.SerializeAsString());
  }
  const WireLane lane = request.encoding == RequestSummary::Encoding::kFrame
                            ? WireLane::kFrameV1
                            : WireLane::kBincodeV15;
  return Encode(lane, response, request.frame_request_id).value_or("");
}

}  // namespace

MessageExtent MeasureMessage(absl::string_view buffer) {
  MessageExtent extent;
  if (buffer.size() < kLaneDetectionBytes) return extent;
  extent.kind = MessageExtent::Kind::kNotAMessage;
  if (BeginsWithFrame(buffer)) {
    const FrameHeader header = ParseFrameHeader(buffer);
    if (header.fault != FrameFault::kNone) return extent;
    extent.bytes = kFrameHeaderBytes + header.body_bytes;
  } else {
    const uint32_t length = LittleEndian32(buffer, 0);
    if (length < kLengthBytes || length > kMaxMessageBytes) return extent;
    extent.bytes = kLengthBytes + length;
  }
  extent.kind = MessageExtent::Kind::kMessage;
  return extent;
}

RequestSummary SummarizeRequest(absl::string_view message) {
  RequestSummary summary;
  if (message.size() < kHeaderBytes) return summary;
  if (BeginsWithFrame(message)) {
    summary.encoding = RequestSummary::Encoding::kFrame;
    const auto frame = DecodeFrame(message.substr(kFrameHeaderBytes));
    if (!frame.ok() || frame->payload_protocol() != kZccacheProtocol) {
      return summary;
    }
    summary.frame_request_id = frame->request_id();
    Summarize(ScanProst(frame->payload()), &summary);
    return summary;
  }
  summary.protocol = LittleEndian32(message, kLengthBytes);
  const absl::string_view payload = message.substr(kHeaderBytes);
  if (!IsBincode(summary.protocol)) {
    summary.encoding = RequestSummary::Encoding::kProst;
    Summarize(ScanProst(payload), &summary);
    return summary;
  }
  if (payload.size() >= 4) {
    const uint32_t field = LittleEndian32(payload, 0) + 1;
    summary.kind = field == zccache::v1::Request::kLinkEphemeral
                       ? KindOfLink(BincodeLinkTool(payload))
                       : KindOfField(field);
  }
  return summary;
}

bool IsInterimReply(absl::string_view message) {
  constexpr uint32_t kLastKnown =
      zccache::v1::Response::kReleaseWorktreeHandlesResult;
  if (message.size() < kHeaderBytes) return false;
  if (BeginsWithFrame(message)) {
    const auto frame = DecodeFrame(message.substr(kFrameHeaderBytes));
    return frame.ok() && ScanProst(frame->payload()).field > kLastKnown;
  }
  const absl::string_view payload = message.substr(kHeaderBytes);
  if (!IsBincode(LittleEndian32(message, kLengthBytes))) {
    return ScanProst(payload).field > kLastKnown;
  }
  return payload.size() >= 4 && LittleEndian32(payload, 0) >= kLastKnown;
}

std::string ShuttingDownReply(const RequestSummary& request) {
  if (request.encoding == RequestSummary::Encoding::kBincode) {
    // The same in every generation: a variant without fields.
    std::string payload;
    AppendLittleEndian32(zccache::v1::Response::kShuttingDown - 1, &payload);
    return WithHeader(request.protocol, payload);
  }
  zccache::v1::Response response;
  response.mutable_shutting_down();
  return EncodeReply(request, std::move(response));
}

std::string FreshStatusReply(const RequestSummary& request,
                             absl::string_view version,
                             absl::string_view daemon_namespace,
                             absl::string_view endpoint,
                             absl::string_view cache_dir) {
  // Later generations of bincode add fields in places we do not know.
  if (request.encoding == RequestSummary::Encoding::kBincode &&
      request.protocol != kBincodeVersion) {
    return "";
  }
  zccache::v1::Response response;
  zccache::v1::DaemonStatus* status = response.mutable_status();
  status->set_version(std::string(version));
  status->set_daemon_namespace(std::string(daemon_namespace));
  status->set_endpoint(std::string(endpoint));
  status->mutable_private_daemon();
  status->mutable_cache_dir()->set_value(std::string(cache_dir));
  return EncodeReply(request, std::move(response));
}

}  // namespace zcbroker::ipc
