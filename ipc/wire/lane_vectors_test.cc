// Every vector of tests/testdata/zccache-ipc-vectors.json and every recording
// of tests/testdata/captures-1.11.22.json.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/struct.pb.h"
#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/first_message.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/wire/lane_choice.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "tests/testdata/vectors.h"

namespace zcbroker::ipc {
namespace {

namespace rp = running_process::broker::v1;
using google::protobuf::Value;
using testing::Bytes;
using testing::HasMember;
using testing::Member;
using testing::ReadVectors;
using testing::Text;
using zccache::v1::Request;
using zccache::v1::Response;

// Variant names in the order of their bincode index.
constexpr absl::string_view kRequestNames[] = {
    "Ping",
    "Shutdown",
    "Status",
    "Lookup",
    "Store",
    "SessionStart",
    "Compile",
    "SessionEnd",
    "Clear",
    "CompileEphemeral",
    "LinkEphemeral",
    "SessionStats",
    "FingerprintCheck",
    "FingerprintMarkSuccess",
    "FingerprintMarkFailure",
    "FingerprintInvalidate",
    "ListRustArtifacts",
    "GenericToolExec",
    "ReleaseWorktreeHandles",
};
constexpr absl::string_view kResponseNames[] = {
    "Pong",
    "ShuttingDown",
    "Status",
    "LookupResult",
    "StoreResult",
    "SessionStarted",
    "CompileResult",
    "SessionEnded",
    "LinkResult",
    "Error",
    "Cleared",
    "SessionStatsResult",
    "FingerprintCheckResult",
    "FingerprintAck",
    "RustArtifactList",
    "GenericToolExecResult",
    "Backpressure",
    "ReleaseWorktreeHandlesResult",
};

absl::string_view VariantName(const Request& request) {
  return kRequestNames[request.body_case() - 1];
}
absl::string_view VariantName(const Response& response) {
  return kResponseNames[response.body_case() - 1];
}

template <class Message>
Decoded<Message> DecodeAs(absl::string_view wire);
template <>
Decoded<Request> DecodeAs<Request>(absl::string_view wire) {
  return DecodeRequest(wire);
}
template <>
Decoded<Response> DecodeAs<Response>(absl::string_view wire) {
  return DecodeResponse(wire);
}

bool IsRequest(const Value& vector) {
  return Text(vector, "direction") == "client->daemon";
}

class LaneVectorsTest : public ::testing::Test {
 protected:
  static const Value& Vectors() {
    static const Value* const kFile =
        new Value(ReadVectors("zccache-ipc-vectors.json"));
    return *kFile;
  }

  // A good message: right lane, variant and ids; every cut of it wants more;
  // encoding gives the same bytes back.
  template <class Message>
  void CheckMessage(const Value& vector, WireLane lane) {
    const std::string wire = Bytes(vector);
    const Value& expected = Member(vector, "decoded");
    const Decoded<Message> decoded = DecodeAs<Message>(wire + "next");
    ASSERT_EQ(decoded.result, DecodeResult::kMessage) << decoded.error;
    EXPECT_TRUE(decoded.error.ok());
    EXPECT_EQ(decoded.consumed_bytes, wire.size());
    EXPECT_EQ(decoded.lane, lane);
    EXPECT_EQ(VariantName(decoded.message), Text(expected, "variant"));
    if (HasMember(expected, "variant_index")) {
      EXPECT_EQ(decoded.message.body_case() - 1,
                Member(expected, "variant_index").number_value());
    }
    EXPECT_EQ(decoded.message.request_id(), Text(expected, "request_id"));
    const Value& frame = Member(expected, "frame");
    EXPECT_EQ(static_cast<double>(decoded.frame_request_id),
              Member(frame, "request_id").number_value());
    EXPECT_EQ(Encode(lane, decoded.message, decoded.frame_request_id).value(),
              wire);
    CheckCuts<Message>(wire);

    const std::string& name = Text(vector, "name");
    const size_t dot = name.rfind('.');
    const std::string lane_suffix = name.substr(dot);
    if (lane_suffix == ".v15" || lane_suffix == ".v16" ||
        lane_suffix == ".frame") {
      Message body = decoded.message;
      body.clear_request_id();
      same_message_[name.substr(0, dot)].push_back(body.SerializeAsString());
    }
  }

  // Fed byte by byte, the decoder never asks for more than there is to come,
  // and always for more than it has.
  template <class Message>
  void CheckCuts(const std::string& wire) {
    for (size_t size = 0; size < wire.size(); ++size) {
      const auto decoded =
          DecodeAs<Message>(absl::string_view(wire).substr(0, size));
      ASSERT_EQ(decoded.result, DecodeResult::kNeedMore) << size;
      ASSERT_GT(decoded.needed_bytes, size);
      ASSERT_LE(decoded.needed_bytes, wire.size());
      ASSERT_EQ(decoded.consumed_bytes, 0u);
    }
  }

  void CheckLane(const Value& vector, WireLane lane) {
    if (IsRequest(vector)) {
      CheckMessage<Request>(vector, lane);
    } else {
      CheckMessage<Response>(vector, lane);
    }
  }

  // The bodies found under one name on the lanes, its ids left out.
  std::map<std::string, std::vector<std::string>> same_message_;
};

// What becomes of the vectors that are not good messages.
struct Rejection {
  DecodeResult result;
  size_t consumed;
  size_t needed;
  uint32_t version;
  absl::string_view error;
};

const std::map<std::string, Rejection>& Rejections() {
  static const auto* const kRejections = new std::map<std::string, Rejection>{
      {"dispatch.unknown_version.request",
       {DecodeResult::kUnknownVersion, 0, 0, 99,
        "protocol version mismatch: expected v16, received v99. Run `zccache "
        "stop` first."}},
      {"dispatch.ambiguous_len257_v16.header",
       {DecodeResult::kNeedMore, 0, 261, 0, ""}},
      {"dispatch.ambiguous_short", {DecodeResult::kNeedMore, 0, 8, 0, ""}},
      {"version_mismatch.request.v18",
       {DecodeResult::kUnknownVersion, 0, 0, 18,
        "protocol version mismatch: expected v16, received v18. Run `zccache "
        "stop` first."}},
      {"oversize.v15.header",
       {DecodeResult::kTooLarge, 0, 0, 0, "message too large: 16777217 bytes"}},
      {"oversize.max.header",
       {DecodeResult::kTooLarge, 0, 0, 0,
        "message too large: 4294967295 bytes"}},
      {"limit.v15.header", {DecodeResult::kNeedMore, 0, 16777220, 0, ""}},
      {"undersize.header",
       {DecodeResult::kTooSmall, 0, 0, 0,
        "deserialization error: frame too small for protocol version"}},
      {"oversize.frame.header",
       {DecodeResult::kTooLarge, 0, 0, 0, "message too large: 16777217 bytes"}},
      {"limit.frame.header", {DecodeResult::kNeedMore, 0, 16777221, 0, ""}},
      {"frame.foreign_payload_protocol",
       {DecodeResult::kWrongEnvelope, 0, 0, 0,
        "deserialization error: unexpected frame payload_protocol"}},
      {"frame.event_kind",
       {DecodeResult::kWrongEnvelope, 0, 0, 0,
        "deserialization error: unexpected frame kind"}},
      {"frame.zstd_encoding",
       {DecodeResult::kWrongEnvelope, 0, 0, 0,
        "deserialization error: unexpected frame payload_encoding"}},
      {"prost.missing_body.request",
       {DecodeResult::kInvalidContent, 17, 0, 0,
        "v16 prost request is missing its request body"}},
      {"prost.compile_missing_cwd.request",
       {DecodeResult::kInvalidContent, 73, 0, 0,
        "missing required v16 prost field Compile.cwd"}},
  };
  return *kRejections;
}

void CheckRejection(const Value& vector, const Rejection& expected) {
  ASSERT_TRUE(IsRequest(vector));
  const auto decoded = DecodeRequest(Bytes(vector));
  EXPECT_EQ(decoded.result, expected.result);
  EXPECT_EQ(decoded.consumed_bytes, expected.consumed);
  EXPECT_EQ(decoded.needed_bytes, expected.needed);
  EXPECT_EQ(decoded.version, expected.version);
  EXPECT_EQ(decoded.error.message(), expected.error);
}

rp::Frame FrameOf(const std::string& wire) {
  EXPECT_EQ(ParseFrameHeader(wire).body_bytes, wire.size() - kFrameHeaderBytes);
  return DecodeFrame(absl::string_view(wire).substr(kFrameHeaderBytes)).value();
}

void CheckProbe(const Value& vector) {
  const std::string wire = Bytes(vector);
  ProbeNonce nonce;
  const std::string nonce_bytes = Bytes(Member(vector, "decoded"), "nonce");
  ASSERT_EQ(nonce_bytes.size(), nonce.size());
  std::copy(nonce_bytes.begin(), nonce_bytes.end(), nonce.begin());
  const std::string request = EncodeProbeRequest(nonce);
  if (IsRequest(vector)) {
    EXPECT_EQ(request, wire);
    const FirstMessage first = DetectFirstMessage(wire);
    EXPECT_EQ(first.kind, FirstMessage::Kind::kIdentityProbe);
    EXPECT_EQ(ParseProbeRequest(first.probe).value(), nonce);
    // Later on the connection it is nobody's.
    EXPECT_EQ(DecodeRequest(wire).result, DecodeResult::kWrongEnvelope);
    return;
  }
  const rp::DaemonProcess process =
      ParseProbeReply(FrameOf(wire), nonce).value();
  EXPECT_EQ(process.pid(), 4242u);
  EXPECT_EQ(process.exe_sha256(), std::string(32, '\xab'));
  EXPECT_EQ(process.ipc_endpoint().namespace_id(), "default");
  EXPECT_EQ(EncodeProbeReply(FrameOf(request), process).value(), wire);
}

void CheckBrokerControl(const Value& vector) {
  const std::string wire = Bytes(vector);
  const rp::Frame frame = FrameOf(wire);
  EXPECT_EQ(EncodeFrame(frame).value(), wire);
  const Value& expected = Member(vector, "decoded");
  if (HasMember(expected, "hello")) {
    rp::Hello hello;
    ASSERT_TRUE(hello.ParseFromString(frame.payload()));
    EXPECT_EQ(hello.SerializeAsString(), frame.payload());
    EXPECT_EQ(hello.service_name(), "zccache");
    EXPECT_EQ(hello.client_lib_version(), "4.1.0");
    // A backend drops a broker's Hello.
    EXPECT_EQ(DecodeRequest(wire).result, DecodeResult::kWrongEnvelope);
    return;
  }
  rp::HelloReply reply;
  ASSERT_TRUE(reply.ParseFromString(frame.payload()));
  EXPECT_EQ(reply.SerializeAsString(), frame.payload());
  EXPECT_EQ(reply.has_negotiated(), HasMember(expected, "negotiated"));
  EXPECT_EQ(reply.has_refused(), HasMember(expected, "refused"));
}

void CheckServiceDefinition(const Value& vector) {
  rp::ServiceDefinition definition;
  ASSERT_TRUE(definition.ParseFromString(Bytes(vector)));
  EXPECT_EQ(definition.labels().size(), 3u);
  EXPECT_EQ(SerializeDeterministically(definition), Bytes(vector));
}

TEST_F(LaneVectorsTest, EveryVectorIsAccountedFor) {
  std::map<std::string, int> visited;
  for (const Value& vector : Vectors().list_value().values()) {
    SCOPED_TRACE(Text(vector, "name"));
    const std::string& lane = Text(vector, "lane");
    const auto rejection = Rejections().find(Text(vector, "name"));
    if (rejection != Rejections().end()) {
      ++visited["rejected"];
      CheckRejection(vector, rejection->second);
      continue;
    }
    ++visited[lane];
    if (lane == "bincode-v15") {
      CheckLane(vector, WireLane::kBincodeV15);
    } else if (lane == "prost-v16") {
      CheckLane(vector, WireLane::kProstV16);
    } else if (lane == "frame-v1") {
      CheckLane(vector, WireLane::kFrameV1);
    } else if (lane == "running-process-probe") {
      CheckProbe(vector);
    } else if (lane == "broker-control") {
      CheckBrokerControl(vector);
    } else if (lane == "servicedef-file") {
      CheckServiceDefinition(vector);
    } else {
      ADD_FAILURE() << "unknown lane " << lane;
    }
  }
  const std::map<std::string, int> kExpected = {{"bincode-v15", 50},
                                                {"prost-v16", 51},
                                                {"frame-v1", 51},
                                                {"rejected", 15},
                                                {"running-process-probe", 2},
                                                {"broker-control", 3},
                                                {"servicedef-file", 1}};
  EXPECT_EQ(visited, kExpected);

  EXPECT_EQ(same_message_.size(), 48u);
  for (const auto& [name, bodies] : same_message_) {
    ASSERT_EQ(bodies.size(), 3u) << name;
    EXPECT_EQ(bodies[0], bodies[1]) << name;
    EXPECT_EQ(bodies[0], bodies[2]) << name;
  }
}

TEST_F(LaneVectorsTest, AnswersToBadRequestsAreTheVectors) {
  const auto wire = [](const std::string& name) {
    for (const Value& vector : Vectors().list_value().values()) {
      if (Text(vector, "name") == name) return Bytes(vector);
    }
    return std::string();
  };
  EXPECT_EQ(MismatchAnswer("1.11.22", 99),
            wire("version_mismatch.answer.1_11_22"));
  for (const std::string name :
       {"prost.missing_body", "prost.compile_missing_cwd"}) {
    const auto request = DecodeRequest(wire(name + ".request"));
    Response answer;
    answer.set_request_id(request.message.request_id());
    answer.mutable_error()->set_message(std::string(request.error.message()));
    EXPECT_EQ(Encode(request.lane, answer, request.frame_request_id).value(),
              wire(name + ".response"));
  }
}

// All messages of one direction of a recorded connection, written back.
template <class Message>
std::string Again(absl::string_view recorded, int* messages) {
  std::string again;
  while (!recorded.empty()) {
    const auto decoded = DecodeAs<Message>(recorded);
    if (decoded.result != DecodeResult::kMessage) {
      ADD_FAILURE() << "stops with " << recorded.size()
                    << " bytes left: " << decoded.error;
      break;
    }
    ++*messages;
    again +=
        Encode(decoded.lane, decoded.message, decoded.frame_request_id).value();
    recorded.remove_prefix(decoded.consumed_bytes);
  }
  return again;
}

TEST(CapturesTest, EveryRecordedByteIsReadAndWrittenBack) {
  const Value file = ReadVectors("captures-1.11.22.json");
  int captures = 0, connections = 0, requests = 0, responses = 0, hellos = 0;
  for (const Value& capture : Member(file, "captures").list_value().values()) {
    SCOPED_TRACE(Text(capture, "name"));
    ++captures;
    for (const Value& connection :
         Member(capture, "connections").list_value().values()) {
      ++connections;
      const std::string to_server = Bytes(connection, "client_to_server");
      const std::string to_client = Bytes(connection, "server_to_client");
      if (Text(capture, "name") == "broker_hello") {
        ++hellos;
        EXPECT_EQ(EncodeFrame(FrameOf(to_server)).value(), to_server);
        EXPECT_EQ(EncodeFrame(FrameOf(to_client)).value(), to_client);
        rp::Hello hello;
        ASSERT_TRUE(hello.ParseFromString(FrameOf(to_server).payload()));
        EXPECT_EQ(hello.wanted_version(), "1.11.22");
        rp::HelloReply reply;
        ASSERT_TRUE(reply.ParseFromString(FrameOf(to_client).payload()));
        EXPECT_TRUE(reply.has_negotiated());
        continue;
      }
      EXPECT_EQ(Again<Request>(to_server, &requests), to_server);
      EXPECT_EQ(Again<Response>(to_client, &responses), to_client);
      const auto request = DecodeRequest(to_server);
      if (request.lane != WireLane::kBincodeV15) {
        EXPECT_EQ(request.message.request_id(),
                  CanonicalRequestId(request.message));
      }
    }
  }
  EXPECT_EQ(captures, 10);
  EXPECT_EQ(connections, 16);
  EXPECT_EQ(requests, 15);
  EXPECT_EQ(responses, 15);
  EXPECT_EQ(hellos, 1);
}

}  // namespace
}  // namespace zcbroker::ipc
