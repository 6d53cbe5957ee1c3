#include "ipc/frame/identity_probe.h"

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;

v1::Frame Parsed(absl::string_view wire) {
  return DecodeFrame(wire.substr(kFrameHeaderBytes)).value();
}

class IdentityProbeTest : public ::testing::Test {
 protected:
  IdentityProbeTest() {
    for (size_t i = 0; i < nonce_.size(); ++i) nonce_[i] = 0x80 + i;
    request_ = Parsed(EncodeProbeRequest(nonce_));
    process_.set_pid(7);
    process_.mutable_ipc_endpoint()->set_path("/run/x");
    reply_ = Parsed(EncodeProbeReply(request_, process_).value());
  }

  ProbeNonce nonce_;
  v1::Frame request_;
  v1::DaemonProcess process_;
  v1::Frame reply_;
};

TEST_F(IdentityProbeTest, ReplyNamesTheProcess) {
  EXPECT_EQ(request_.request_id(), 0x8786858483828180u);
  EXPECT_EQ(ParseProbeRequest(request_).value(), nonce_);
  EXPECT_EQ(ParseProbeReply(reply_, nonce_).value().SerializeAsString(),
            process_.SerializeAsString());
}

TEST_F(IdentityProbeTest, OtherLanesAreNotProbes) {
  request_.set_payload_protocol(kZccacheProtocol);
  EXPECT_EQ(ParseProbeRequest(request_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(IdentityProbeTest, NonceHasExactly32Bytes) {
  for (size_t bytes : {0u, 31u, 33u}) {
    request_.set_payload(std::string(bytes, 'n'));
    EXPECT_EQ(ParseProbeRequest(request_).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(IdentityProbeTest, ForeignRepliesAreRefused) {
  const std::function<void(v1::Frame*)> kBreakages[] = {
      [](v1::Frame* f) { f->set_kind(v1::FRAME_KIND_REQUEST); },
      [](v1::Frame* f) { f->set_request_id(1); },
      [](v1::Frame* f) { f->mutable_payload()->at(31) ^= 1; },
      [](v1::Frame* f) { f->mutable_payload()->resize(31); },
      [](v1::Frame* f) { f->mutable_payload()->resize(32); },
      [](v1::Frame* f) { f->mutable_payload()->append("\xff"); },
  };
  for (const auto& breakage : kBreakages) {
    v1::Frame broken = reply_;
    breakage(&broken);
    EXPECT_EQ(ParseProbeReply(broken, nonce_).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace zcbroker::ipc
