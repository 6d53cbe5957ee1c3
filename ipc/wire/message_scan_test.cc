#include "ipc/wire/message_scan.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace {

using zccache::v1::Request;
using Kind = MessageExtent::Kind;

std::string Bytes(absl::string_view hex) { return absl::HexStringToBytes(hex); }

struct RecordedCase {
  const char* name;
  const char* hex;
  RequestKind kind;
  const char* request_id;
};

// What the real clients sent, or the beginning of it with the length mended.
constexpr RecordedCase kRecorded[] = {
    {"Status1_11_22", "17000000100000001a00a2060e636f6e74726f6c2d737461747573",
     RequestKind::kStatus, "control-status"},
    {"Status1_15_8", "170000001a0000001a00a2060e636f6e74726f6c2d737461747573",
     RequestKind::kStatus, "control-status"},
    {"Shutdown1_11_22",
     "19000000100000001200a20610636f6e74726f6c2d73687574646f776e",
     RequestKind::kShutdown, "control-shutdown"},
    {"Shutdown1_15_8",
     "190000001a0000001200a20610636f6e74726f6c2d73687574646f776e",
     RequestKind::kShutdown, "control-shutdown"},
    {"PingBincode", "080000000f00000000000000", RequestKind::kRepeatable, ""},
    {"ShutdownBincode", "080000000f00000001000000", RequestKind::kShutdown, ""},
    {"CompileEphemeral1_15_8", "080000001a0000005202087b",
     RequestKind::kRepeatable, ""},
    {"ClearBincode", "080000000f00000008000000", RequestKind::kOther, ""},
    {"UnknownVariant", "080000000f000000c8000000", RequestKind::kOther, ""},
    {"UnknownField", "070000001a000000aa0100", RequestKind::kOther, ""},
    {"TwoBodies", "080000001a0000000a001200", RequestKind::kOther, ""},
    {"CutShort", "060000001a0000000a05", RequestKind::kOther, ""},
    {"Nothing", "040000001a000000", RequestKind::kOther, ""},
};

class Recorded : public testing::TestWithParam<RecordedCase> {};

TEST_P(Recorded, IsUnderstood) {
  const std::string bytes = Bytes(GetParam().hex);
  const MessageExtent extent = MeasureMessage(bytes);
  ASSERT_EQ(extent.kind, Kind::kMessage);
  EXPECT_EQ(extent.bytes, bytes.size());
  const RequestSummary summary = SummarizeRequest(bytes);
  EXPECT_EQ(summary.kind, GetParam().kind);
  EXPECT_EQ(summary.request_id, GetParam().request_id);
}

INSTANTIATE_TEST_SUITE_P(MessageScan, Recorded, testing::ValuesIn(kRecorded),
                         [](const auto& info) { return info.param.name; });

Request RequestWithField(int field) {
  Request request;
  const std::string tag =
      absl::StrCat(std::string(1, static_cast<char>((field << 3 | 2) & 0x7f)));
  // Two-byte tags from field 16 on.
  std::string bytes =
      field < 16
          ? tag
          : std::string{static_cast<char>(((field << 3 | 2) & 0x7f) | 0x80),
                        static_cast<char>(field >> 4)};
  bytes.push_back('\0');
  EXPECT_TRUE(request.ParseFromString(bytes)) << field;
  return request;
}

// Every request there is, by its field, on the two prost lanes.
TEST(MessageScanTest, OnlyListedRequestsAreRepeatable) {
  const std::vector<int> repeatable = {Request::kPing,
                                       Request::kStatus,
                                       Request::kLookup,
                                       Request::kSessionStart,
                                       Request::kCompile,
                                       Request::kSessionEnd,
                                       Request::kSessionStats,
                                       Request::kCompileEphemeral,
                                       Request::kListRustArtifacts};
  for (int field = 1; field <= 30; ++field) {
    const bool expected = std::find(repeatable.begin(), repeatable.end(),
                                    field) != repeatable.end();
    const std::string payload = RequestWithField(field).SerializeAsString();
    std::string bytes = Bytes("000000001a000000") + payload;
    bytes[0] = static_cast<char>(bytes.size() - 4);
    EXPECT_EQ(SummarizeRequest(bytes).repeatable(), expected) << field;
    std::string bincode = Bytes("080000000f00000000000000");
    bincode[8] = static_cast<char>(field - 1);
    EXPECT_EQ(SummarizeRequest(bincode).repeatable(), expected) << field;
  }
}

// `ar q` twice adds its member twice.
TEST(MessageScanTest, ALinkMayBeRepeatedAndAnArchiveNot) {
  const std::pair<const char*, bool> tools[] = {{"/usr/bin/gcc", true},
                                                {"/usr/bin/ld", true},
                                                {"/usr/bin/clang-14", true},
                                                {"/opt/armcc", true},
                                                {"/usr/bin/ar", false},
                                                {"/usr/bin/llvm-ar-14", false},
                                                {"x86_64-linux-gnu-ar", false},
                                                {"/usr/bin/gcc-ar-12", false},
                                                {"lib.exe", false},
                                                {"/usr/bin/ranlib", false},
                                                {"", false}};
  for (const auto& [tool, repeatable] : tools) {
    Request request;
    request.mutable_link_ephemeral()->set_client_pid(7);
    request.mutable_link_ephemeral()->mutable_tool()->set_value(tool);
    request.mutable_link_ephemeral()->mutable_cwd()->set_value("/");
    for (const WireLane lane :
         {WireLane::kBincodeV15, WireLane::kProstV16, WireLane::kFrameV1}) {
      const auto bytes = Encode(lane, request, 1);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      EXPECT_EQ(SummarizeRequest(*bytes).repeatable(), repeatable) << tool;
    }
  }
}

TEST(MessageScanTest, FrameIsUnderstoodThroughItsEnvelope) {
  Request request;
  request.mutable_compile_ephemeral()->set_client_pid(7);
  request.set_request_id("mine");
  const auto bytes = Encode(WireLane::kFrameV1, request, 42);
  ASSERT_FALSE(bytes.ok());  // a compile without its paths is no message
  request.mutable_compile_ephemeral()->mutable_working_dir()->set_value("/");
  request.mutable_compile_ephemeral()->mutable_cwd()->set_value("/");
  request.mutable_compile_ephemeral()->mutable_compiler()->set_value("/cc");
  const auto whole = Encode(WireLane::kFrameV1, request, 42);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(MeasureMessage(*whole).bytes, whole->size());
  const RequestSummary summary = SummarizeRequest(*whole);
  EXPECT_TRUE(summary.repeatable());
  EXPECT_EQ(summary.request_id, "mine");
  EXPECT_EQ(summary.frame_request_id, 42u);
}

TEST(MessageScanTest, TellsInterimRepliesFromReplies) {
  // As 1.15.8 sent it in the sixth second of a compile.
  EXPECT_TRUE(IsInterimReply(
      Bytes("260000001a0000009a010b2209636f6d70696c696e67a20611636f6d70696c652d"
            "657068656d6572616c")));
  // Its CompileResult, and 1.11.22's on both lanes.
  EXPECT_FALSE(IsInterimReply(
      Bytes("1a0000001a0000003a00a20611636f6d70696c652d657068656d6572616c")));
  EXPECT_FALSE(IsInterimReply(Bytes(
      "1d0000000f00000006000000000000000000000000000000000000000000000000")));
  EXPECT_FALSE(IsInterimReply(Bytes("060000001a0000000a00")));
  EXPECT_FALSE(IsInterimReply(Bytes("060000001a0000009a05"))) << "cut short";
  EXPECT_FALSE(IsInterimReply("short"));
}

TEST(MessageScanTest, LengthsNoDaemonAcceptsAreNoMessages) {
  EXPECT_EQ(MeasureMessage("1234567").kind, Kind::kNeedMore);
  EXPECT_EQ(MeasureMessage(Bytes("030000000f000000")).kind, Kind::kNotAMessage);
  EXPECT_EQ(MeasureMessage(Bytes("040000000f000000")).kind, Kind::kMessage);
  EXPECT_EQ(MeasureMessage(Bytes("000000010f000000")).kind, Kind::kMessage);
  EXPECT_EQ(MeasureMessage(Bytes("010000010f000000")).kind, Kind::kNotAMessage);
  EXPECT_EQ(MeasureMessage(Bytes("01000000010f0000")).kind, Kind::kMessage);
  EXPECT_EQ(MeasureMessage(Bytes("0101000001000000")).kind, Kind::kNotAMessage);
  EXPECT_EQ(MeasureMessage("GET / HTTP").kind, Kind::kNotAMessage);
}

// The answers are what a daemon of that lane sends: our decoder takes them.
TEST(MessageScanTest, AnswersDecodeOnTheLaneOfTheRequest) {
  for (const WireLane lane :
       {WireLane::kBincodeV15, WireLane::kProstV16, WireLane::kFrameV1}) {
    for (const bool status : {false, true}) {
      Request request;
      if (status) {
        request.mutable_status();
      } else {
        request.mutable_shutdown();
      }
      request.set_request_id("some-id");
      const auto asked = Encode(lane, request, 9);
      ASSERT_TRUE(asked.ok());
      const RequestSummary summary = SummarizeRequest(*asked);
      const auto decoded = DecodeResponse(
          status ? FreshStatusReply(summary, "1.11.22", "default", "/s", "/c")
                 : ShuttingDownReply(summary));
      ASSERT_EQ(decoded.result, DecodeResult::kMessage) << decoded.error;
      EXPECT_EQ(decoded.lane, lane);
      EXPECT_EQ(decoded.message.has_status(), status);
      EXPECT_EQ(decoded.message.has_shutting_down(), !status);
      if (status) {
        EXPECT_EQ(decoded.message.status().version(), "1.11.22");
      }
      if (lane != WireLane::kBincodeV15) {
        EXPECT_EQ(decoded.message.request_id(), "some-id");
      }
    }
  }
}

TEST(MessageScanTest, AnswersKeepTheGenerationOfTheRequest) {
  const RequestSummary summary = SummarizeRequest(
      Bytes("170000001a0000001a00a2060e636f6e74726f6c2d737461747573"));
  const std::string reply =
      FreshStatusReply(summary, "1.15.8", "default", "/s", "/c");
  EXPECT_EQ(absl::BytesToHexString(reply.substr(4, 4)), "1a000000");
  EXPECT_EQ(MeasureMessage(reply).bytes, reply.size());
  RequestSummary bincode17;
  bincode17.protocol = 17;
  EXPECT_EQ(FreshStatusReply(bincode17, "1", "d", "/s", "/c"), "");
  EXPECT_EQ(absl::BytesToHexString(ShuttingDownReply(bincode17)),
            "080000001100000001000000");
}

}  // namespace
}  // namespace zcbroker::ipc
