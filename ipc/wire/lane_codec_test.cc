#include "ipc/wire/lane_codec.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "ipc/wire_lane.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace {

namespace rp = running_process::broker::v1;
using zccache::v1::Request;
using zccache::v1::Response;

constexpr WireLane kLanes[] = {WireLane::kBincodeV15, WireLane::kProstV16,
                               WireLane::kFrameV1};

Request Compile() {
  Request request;
  auto* compile = request.mutable_compile();
  compile->set_session_id("s");
  compile->mutable_cwd()->set_value("/w");
  compile->mutable_compiler()->set_value("/usr/bin/cc");
  return request;
}

Request WithStdin(size_t bytes) {
  Request request = Compile();
  request.mutable_compile()->set_stdin_data(std::string(bytes, 'x'));
  return request;
}

TEST(EncodeTest, SenderKeepsToTheCapOnEveryLane) {
  for (WireLane lane : kLanes) {
    // Grows by one byte per byte of stdin once its length is 3 varint bytes.
    const size_t overhead = Encode(lane, WithStdin(16000000), 1)->size() -
                            16000000 - (lane == WireLane::kFrameV1 ? 5 : 4);
    const size_t room = kMaxMessageBytes - overhead;
    const auto full = Encode(lane, WithStdin(room), 1);
    ASSERT_TRUE(full.ok()) << WireLaneName(lane) << full.status();
    EXPECT_EQ(DecodeRequest(*full).result, DecodeResult::kMessage);
    EXPECT_EQ(Encode(lane, WithStdin(room + 1), 1).status().code(),
              absl::StatusCode::kInvalidArgument)
        << WireLaneName(lane);
  }
}

TEST(EncodeTest, IncompleteMessagesAreNotSent) {
  Request no_cwd = Compile();
  no_cwd.mutable_compile()->clear_cwd();
  Request not_utf8 = Compile();
  not_utf8.mutable_compile()->add_args("\xff");
  Request short_hash;
  auto* exec = short_hash.mutable_generic_tool_exec();
  exec->mutable_tool();
  exec->mutable_cwd();
  exec->mutable_output_streams();
  exec->set_tool_hash("short");
  Request no_policy = short_hash;
  no_policy.mutable_generic_tool_exec()->set_tool_hash(std::string(32, 'h'));
  const struct {
    Request request;
    absl::string_view error;
  } kRows[] = {
      {Request(), "v16 prost request is missing its request body"},
      {no_cwd, "missing required v16 prost field Compile.cwd"},
      {not_utf8, "path or text is not valid UTF-8"},
      {short_hash, "invalid v16 prost tool_hash length 5; expected 32"},
      {no_policy, "invalid v16 prost value 0 for GenericToolExec.cache_policy"},
  };
  for (WireLane lane : kLanes) {
    for (const auto& row : kRows) {
      EXPECT_EQ(Encode(lane, row.request, 1).status(),
                absl::InvalidArgumentError(row.error));
    }
  }
  EXPECT_FALSE(Encode(WireLane::kOpaque, Compile(), 1).ok());
}

TEST(DecodeTest, RequiredFieldsAreThoseOfTheSchema) {
  Response empty_status, no_cache_dir, no_payload, no_body, no_hit, no_kind;
  empty_status.mutable_status();
  no_cache_dir.mutable_status()->mutable_private_daemon();
  no_payload.mutable_lookup_result()->mutable_hit()->add_outputs();
  no_body.mutable_lookup_result()
      ->mutable_hit()
      ->add_outputs()
      ->mutable_payload();
  no_hit.mutable_lookup_result();
  no_kind.mutable_store_result();
  const struct {
    Response response;
    absl::string_view error;
  } kRows[] = {
      {empty_status,
       "missing required v16 prost field DaemonStatus.private_daemon"},
      {no_cache_dir, "missing required v16 prost field DaemonStatus.cache_dir"},
      {no_payload, "missing required v16 prost field ArtifactOutput.payload"},
      {no_body, "missing required v16 prost field ArtifactPayload.body"},
      {no_hit, "missing required v16 prost field LookupResult.body"},
      {no_kind, "invalid v16 prost value 0 for StoreResult.kind"},
  };
  for (const auto& row : kRows) {
    rp::Frame frame = MakeFrame(rp::FRAME_KIND_RESPONSE, kZccacheProtocol, 5,
                                row.response.SerializeAsString());
    const std::string wire = EncodeFrame(frame).value();
    const auto decoded = DecodeResponse(wire);
    EXPECT_EQ(decoded.result, DecodeResult::kInvalidContent);
    EXPECT_EQ(decoded.error, absl::InvalidArgumentError(row.error));
    EXPECT_EQ(decoded.consumed_bytes, wire.size());
    EXPECT_EQ(decoded.frame_request_id, 5u);
  }
}

TEST(DecodeTest, EnvironmentCountsOnlyWhereItIsSet) {
  Request request = Compile();
  auto* variable = request.mutable_compile()->add_env();
  variable->set_name("A");
  for (WireLane lane : {WireLane::kProstV16, WireLane::kFrameV1}) {
    const auto decoded = DecodeRequest(Encode(lane, request, 1).value());
    EXPECT_EQ(decoded.message.compile().env_size(), 0);
  }
  request.mutable_compile()->set_env_is_set(true);
  for (WireLane lane : kLanes) {
    const auto decoded = DecodeRequest(Encode(lane, request, 1).value());
    EXPECT_EQ(decoded.message.compile().env_size(), 1);
  }
}

TEST(DecodeTest, LanesMixOnOneConnection) {
  std::string stream;
  for (WireLane lane : kLanes) stream += Encode(lane, Compile(), 3).value();
  for (WireLane lane : kLanes) {
    const auto decoded = DecodeRequest(stream);
    ASSERT_EQ(decoded.result, DecodeResult::kMessage);
    EXPECT_EQ(decoded.lane, lane);
    stream.erase(0, decoded.consumed_bytes);
  }
  EXPECT_EQ(stream, "");
}

TEST(DecodeTest, DirectionOfAFrameIsNotChecked) {
  const std::string wire =
      EncodeFrame(MakeFrame(rp::FRAME_KIND_RESPONSE, kZccacheProtocol, 1,
                            Compile().SerializeAsString()))
          .value();
  EXPECT_EQ(DecodeRequest(wire).result, DecodeResult::kMessage);
}

// length, version and `payload`.
std::string Bincode(absl::string_view payload) {
  std::string wire(8, '\0');
  wire[0] = static_cast<char>(4 + payload.size());
  wire[4] = 15;
  return wire.append(payload.data(), payload.size());
}

std::string Zeros(size_t bytes) { return std::string(bytes, '\0'); }

TEST(BincodeTest, MalformedPayloadsAreRefused) {
  const std::string lookup = "\x03" + Zeros(3);
  const std::string start = "\x05" + Zeros(3 + 4 + 8);  // pid, working_dir
  const struct {
    const char* name;
    std::string payload;
  } kRows[] = {
      {"empty", ""},
      {"variant cut short", Zeros(3)},
      {"unknown variant", "\x13" + Zeros(3)},
      {"no length", lookup + Zeros(7)},
      {"text cut short", lookup + "\x02" + Zeros(7) + "a"},
      {"text of 2^63 bytes", lookup + Zeros(7) + "\x80"},
      {"text not UTF-8", lookup + "\x01" + Zeros(7) + "\xc0"},
      {"option byte 2", start + "\x02"},
      {"bool 2", start + Zeros(1) + "\x02"},
  };
  for (const auto& row : kRows) {
    const auto decoded = DecodeRequest(Bincode(row.payload));
    EXPECT_EQ(decoded.result, DecodeResult::kMalformed) << row.name;
    EXPECT_EQ(decoded.consumed_bytes, 0u) << row.name;
    EXPECT_EQ(decoded.error.code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(BincodeTest, CountsAreBoundedByWhatIsLeft) {
  // Compile: session_id "", then 2^61 args in no bytes at all.
  const std::string payload = "\x06" + Zeros(3 + 8) + Zeros(7) + "\x20";
  const auto decoded = DecodeRequest(Bincode(payload));
  EXPECT_EQ(decoded.result, DecodeResult::kMalformed);
  EXPECT_EQ(decoded.error.message(),
            "deserialization error: bincode: count too large at offset 20");
}

TEST(BincodeTest, TrailingBytesAreIgnored) {
  const auto decoded = DecodeRequest(Bincode(Zeros(4) + "trailing"));
  EXPECT_EQ(decoded.result, DecodeResult::kMessage);
  EXPECT_EQ(decoded.consumed_bytes, 20u);
  EXPECT_TRUE(decoded.message.has_ping());
}

}  // namespace
}  // namespace zcbroker::ipc
