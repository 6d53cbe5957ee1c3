#include "ipc/frame/envelope.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;

TEST(FrameHeaderTest, FirstByteDecidesTheVersion) {
  EXPECT_EQ(ParseFrameHeader("").fault, FrameFault::kNone);
  EXPECT_FALSE(ParseFrameHeader("").complete);
  EXPECT_EQ(ParseFrameHeader("\x02").fault, FrameFault::kFramingVersion);
  EXPECT_EQ(ParseFrameHeader("PRI * HTTP").fault, FrameFault::kFramingVersion);
  EXPECT_FALSE(ParseFrameHeader(absl::string_view("\x01\0\0\0", 4)).complete);
}

TEST(FrameHeaderTest, CapIsInclusive) {
  const std::string five("\x01\x05\0\0\0", 5);
  EXPECT_TRUE(ParseFrameHeader(five, 6).complete);
  EXPECT_TRUE(ParseFrameHeader(five, 5).complete);
  EXPECT_EQ(ParseFrameHeader(five, 4).fault, FrameFault::kTooLarge);
  EXPECT_EQ(ParseFrameHeader(five, 4).body_bytes, 5u);
}

TEST(EnvelopeTest, ChecksRunInTheirFixedOrder) {
  v1::Frame frame;
  frame.set_envelope_version(2);
  frame.set_kind(static_cast<v1::FrameKind>(9));
  frame.set_payload_protocol(1);
  frame.set_payload_encoding(v1::PAYLOAD_ENCODING_ZSTD);
  const auto check = [&] {
    return CheckEnvelope(frame, v1::FRAME_KIND_REQUEST, kControlProtocol);
  };
  EXPECT_EQ(check(), FrameFault::kEnvelopeVersion);
  frame.set_envelope_version(kEnvelopeVersion);
  EXPECT_EQ(check(), FrameFault::kKind);
  frame.set_kind(v1::FRAME_KIND_REQUEST);
  EXPECT_EQ(check(), FrameFault::kPayloadProtocol);
  frame.set_payload_protocol(kControlProtocol);
  EXPECT_EQ(check(), FrameFault::kPayloadEncoding);
  frame.clear_payload_encoding();
  EXPECT_EQ(check(), FrameFault::kNone);
}

TEST(EnvelopeTest, StringsMustBeUtf8) {
  EXPECT_EQ(DecodeFrame("\x42\x01\xff").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DecodeFrame("\x42\x01t").value().traceparent(), "t");
}

TEST(EnvelopeTest, SenderKeepsToTheCap) {
  v1::Frame frame = MakeFrame(v1::FRAME_KIND_REQUEST, kZccacheProtocol, 0, "");
  const size_t overhead = frame.ByteSizeLong() + 5;  // tag and length
  frame.set_payload(std::string(kMaxFrameBodyBytes - overhead, 'x'));
  ASSERT_EQ(frame.ByteSizeLong(), kMaxFrameBodyBytes);
  EXPECT_TRUE(EncodeFrame(frame).ok());
  frame.mutable_payload()->push_back('x');
  EXPECT_EQ(EncodeFrame(frame).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace zcbroker::ipc
