// Every wire vector of tests/testdata/broker-v1-vectors.json. The naming
// vectors of that file belong to ipc/endpoint and ipc/user_sid_hash.
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/struct.pb.h"
#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/framed_reply.h"
#include "ipc/frame/identity_probe.h"
#include "proto/running_process/broker_v1.pb.h"
#include "tests/testdata/vectors.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;
using google::protobuf::Value;
using testing::Bytes;
using testing::HasMember;
using testing::Member;
using testing::ReadVectors;
using testing::Text;

const Value& Vectors() {
  static const Value* const kFile =
      new Value(ReadVectors("broker-v1-vectors.json"));
  return Member(*kFile, "vectors");
}

const Value& Vector(const std::string& name) {
  for (const Value& vector : Vectors().list_value().values()) {
    if (Text(vector, "name") == name) return vector;
  }
  ADD_FAILURE() << "no vector " << name;
  return Vectors();
}

// Decodes `body` as a T and encodes it again.
template <class T>
std::string Again(const std::string& body) {
  T message;
  EXPECT_TRUE(message.ParseFromString(body));
  return SerializeDeterministically(message);
}

// Decodes and encodes by message name; fails the test for an unknown one.
std::string AgainAs(const std::string& message, const std::string& body) {
  static const auto* const kMessages =
      new std::map<std::string, std::function<std::string(std::string)>>{
          {"Frame", Again<v1::Frame>},
          {"Hello", Again<v1::Hello>},
          {"HelloReply", Again<v1::HelloReply>},
          {"Negotiated", Again<v1::Negotiated>},
          {"Refused", Again<v1::Refused>},
          {"HandoffOffer", Again<v1::HandoffOffer>},
          {"HandoffAck", Again<v1::HandoffAck>},
          {"AdminRequest", Again<v1::AdminRequest>},
          {"AdminReply", Again<v1::AdminReply>},
          {"ServiceDefinition", Again<v1::ServiceDefinition>},
          {"DaemonProcess", Again<v1::DaemonProcess>},
          {"CacheManifest", Again<v1::CacheManifest>},
          {"LifecycleEvent", Again<v1::LifecycleEvent>},
      };
  const auto found = kMessages->find(message);
  if (found == kMessages->end()) {
    ADD_FAILURE() << "unknown message " << message;
    return "";
  }
  return found->second(body);
}

// The Frame of a complete framed vector.
v1::Frame FrameOf(const Value& vector) {
  const std::string wire = Bytes(vector);
  const FrameHeader header = ParseFrameHeader(wire);
  EXPECT_EQ(header.fault, FrameFault::kNone);
  EXPECT_TRUE(header.complete);
  EXPECT_EQ(header.body_bytes, wire.size() - kFrameHeaderBytes);
  auto frame = DecodeFrame(absl::string_view(wire).substr(kFrameHeaderBytes));
  EXPECT_TRUE(frame.ok()) << frame.status();
  return frame.ok() ? *frame : v1::Frame();
}

void CheckFramed(const Value& vector) {
  const std::string wire = Bytes(vector);
  if (Text(vector, "message") == "Hello") {
    const std::string body = wire.substr(kFrameHeaderBytes);
    EXPECT_EQ(ParseFrameHeader(wire).body_bytes, body.size());
    EXPECT_EQ(AgainAs("Hello", body), body);
    return;
  }
  ASSERT_EQ(Text(vector, "message"), "Frame");
  const v1::Frame frame = FrameOf(vector);
  EXPECT_EQ(EncodeFrame(frame).value(), wire);
  if (!Text(vector, "inner_message").empty()) {
    EXPECT_EQ(AgainAs(Text(vector, "inner_message"), frame.payload()),
              frame.payload());
  }
}

// Raw vectors are headers, or frames cut short.
void CheckRaw(const Value& vector) {
  const std::string wire = Bytes(vector);
  const Value& fields = Member(vector, "fields");
  const uint32_t cap =
      HasMember(fields, "cap")
          ? static_cast<uint32_t>(Member(fields, "cap").number_value())
          : kMaxFrameBodyBytes;
  const FrameHeader header = ParseFrameHeader(wire, cap);
  const std::string& reject = Text(fields, "reject");
  if (reject == "unsupported framing version") {
    EXPECT_EQ(header.fault, FrameFault::kFramingVersion);
  } else if (reject == "frame too large") {
    EXPECT_EQ(header.fault, FrameFault::kTooLarge);
    EXPECT_EQ(header.body_bytes, Member(fields, "body_length").number_value());
  } else if (reject == "unexpected EOF in length header") {
    EXPECT_EQ(header.fault, FrameFault::kNone);
    EXPECT_FALSE(header.complete);
  } else if (reject == "unexpected EOF in body") {
    EXPECT_TRUE(header.complete);
    EXPECT_LT(wire.size(), kFrameHeaderBytes + header.body_bytes);
  } else {
    EXPECT_EQ(reject, "") << "unknown kind of rejection";
    EXPECT_EQ(header.fault, FrameFault::kNone);
    EXPECT_TRUE(header.complete);
    EXPECT_EQ(header.body_bytes, Member(fields, "body_length").number_value());
  }
}

TEST(EnvelopeVectorsTest, EveryVectorIsReadAndWrittenBack) {
  int body = 0, framed = 0, raw = 0;
  for (const Value& vector : Vectors().list_value().values()) {
    SCOPED_TRACE(Text(vector, "name"));
    const std::string wire = Bytes(vector);
    ASSERT_EQ(wire.size(), Member(vector, "length").number_value());
    const std::string& kind = Text(vector, "kind");
    if (kind == "body") {
      ++body;
      EXPECT_EQ(AgainAs(Text(vector, "message"), wire), wire);
    } else if (kind == "framed") {
      ++framed;
      CheckFramed(vector);
    } else if (kind == "raw") {
      ++raw;
      CheckRaw(vector);
    } else {
      ADD_FAILURE() << "unknown kind " << kind;
    }
  }
  EXPECT_EQ(body, 15);
  EXPECT_EQ(framed, 45);
  EXPECT_EQ(raw, 7);
}

TEST(EnvelopeVectorsTest, UnknownFieldsLeaveTheKnownOnesIntact) {
  v1::Hello known, extended;
  ASSERT_TRUE(known.ParseFromString(Bytes(Vector("golden_hello"))));
  ASSERT_TRUE(
      extended.ParseFromString(Bytes(Vector("golden_hello_unknown_field"))));
  // Field 21 = 1, at the end.
  EXPECT_EQ(extended.SerializeAsString(),
            known.SerializeAsString() + "\xa8\x01\x01");
}

TEST(FramedReplyTest, EveryRefusalVectorIsBuiltFromItsFields) {
  int refusals = 0;
  for (const Value& vector : Vectors().list_value().values()) {
    if (!absl::StartsWith(Text(vector, "name"), "refused_")) continue;
    SCOPED_TRACE(Text(vector, "name"));
    ++refusals;
    const v1::Frame reply = FrameOf(vector);
    v1::HelloReply hello_reply;
    ASSERT_TRUE(hello_reply.ParseFromString(reply.payload()));
    const v1::Refused& refused = hello_reply.refused();
    EXPECT_EQ(refused.reason(), Text(Member(vector, "fields"), "reason"));
    v1::Frame request;
    request.set_request_id(reply.request_id());
    EXPECT_EQ(
        EncodeHelloReply(request, MakeRefused(refused.reason(), refused.code(),
                                              refused.retry_after_ms()))
            .value(),
        Bytes(vector));
  }
  EXPECT_EQ(refusals, 19);
}

TEST(FramedReplyTest, EveryFaultIsAnsweredInUpstreamsWords) {
  const struct {
    FrameFault fault;
    uint64_t request_id;
    const char* vector;
  } kRows[] = {
      {FrameFault::kFramingVersion, 0,
       "refused_unsupported_framing_version_wire"},
      {FrameFault::kTooLarge, 0, "refused_oversize_hello_wire"},
      {FrameFault::kIncomplete, 0, "refused_incomplete_hello_wire"},
      {FrameFault::kMalformedFrame, 0, "refused_malformed_frame_wire"},
      {FrameFault::kEnvelopeVersion, 1, "refused_envelope_version_wire"},
      {FrameFault::kKind, 1, "refused_frame_kind_wire"},
      {FrameFault::kPayloadProtocol, 1, "refused_frame_payload_protocol_wire"},
      {FrameFault::kPayloadEncoding, 1, "refused_frame_encoding_wire"},
      {FrameFault::kMalformedPayload, 1, "refused_malformed_hello_wire"},
  };
  for (const auto& row : kRows) {
    v1::Frame request;
    request.set_request_id(row.request_id);
    EXPECT_EQ(EncodeHelloReply(request, RefusedForFault(row.fault)).value(),
              Bytes(Vector(row.vector)))
        << row.vector;
  }
}

TEST(FramedReplyTest, NegotiatedAnswersTheClientsHello) {
  const v1::Frame hello = FrameOf(Vector("client_hello_wire"));
  EXPECT_EQ(CheckEnvelope(hello, v1::FRAME_KIND_REQUEST, kControlProtocol),
            FrameFault::kNone);
  v1::HelloReply reply;
  ASSERT_TRUE(reply.ParseFromString(
      FrameOf(Vector("broker_negotiated_wire")).payload()));
  EXPECT_EQ(EncodeHelloReply(hello, reply.negotiated()).value(),
            Bytes(Vector("broker_negotiated_wire")));
}

TEST(FramedReplyTest, RepliesEchoTheTraceContext) {
  v1::Frame request;
  request.set_request_id(9);
  request.set_traceparent("00-1-2-01");
  request.set_tracestate("a=b");
  const std::string wire = EncodeAdminReply(request, v1::AdminReply()).value();
  const v1::Frame reply =
      DecodeFrame(absl::string_view(wire).substr(kFrameHeaderBytes)).value();
  EXPECT_EQ(CheckEnvelope(reply, v1::FRAME_KIND_RESPONSE, kAdminProtocol),
            FrameFault::kNone);
  EXPECT_EQ(reply.request_id(), 9u);
  EXPECT_EQ(reply.traceparent(), "00-1-2-01");
  EXPECT_EQ(reply.tracestate(), "a=b");
}

TEST(IdentityProbeTest, RequestAndReplyAreTheVectors) {
  const v1::Frame request = FrameOf(Vector("probe_request_wire"));
  const ProbeNonce nonce = ParseProbeRequest(request).value();
  EXPECT_EQ(EncodeProbeRequest(nonce), Bytes(Vector("probe_request_wire")));

  // The reply carries the newer hash and, last, the field of the older form.
  const v1::Frame reply = FrameOf(Vector("probe_response_wire"));
  v1::DaemonProcess process = ParseProbeReply(reply, nonce).value();
  EXPECT_EQ(process.exe_sha256().size(), 32u);
  process.clear_exe_sha256();
  EXPECT_EQ(process.SerializeAsString(), Bytes(Vector("daemon_process_body")));
}

}  // namespace
}  // namespace zcbroker::ipc
