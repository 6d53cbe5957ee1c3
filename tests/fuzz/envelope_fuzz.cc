// The v1 envelope: header, Frame, and the messages a broker reads from it.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/framed_reply.h"
#include "ipc/frame/identity_probe.h"
#include "proto/running_process/broker_v1.pb.h"
#include "tests/fuzz/property.h"

namespace zcbroker::ipc {
namespace {

namespace v1 = running_process::broker::v1;

// Encoding settles after one round.
template <class Message>
void CheckStable(const std::string& bytes) {
  Message message, again;
  if (!message.ParseFromString(bytes)) return;
  const std::string encoded = SerializeDeterministically(message);
  ZCB_PROPERTY(again.ParseFromString(encoded));
  ZCB_PROPERTY(SerializeDeterministically(again) == encoded);
}

void CheckHeader(absl::string_view bytes) {
  const FrameHeader header = ParseFrameHeader(bytes);
  const FrameHeader hello = ParseFrameHeader(bytes, kMaxHelloBodyBytes);
  if (header.complete) {
    ZCB_PROPERTY(bytes.size() >= kFrameHeaderBytes);
    ZCB_PROPERTY(header.body_bytes <= kMaxFrameBodyBytes);
  }
  // The lower cap refuses more, and nothing else.
  if (hello.complete) ZCB_PROPERTY(header.complete);
  if (header.fault != FrameFault::kNone) {
    ZCB_PROPERTY(hello.fault == header.fault);
  }
}

void CheckFrame(absl::string_view body) {
  const auto frame = DecodeFrame(body);
  if (!frame.ok()) return;
  const auto wire = EncodeFrame(*frame);
  if (!wire.ok()) return;  // a little larger than the cap once written out
  ZCB_PROPERTY(ParseFrameHeader(*wire).complete);
  const auto again =
      DecodeFrame(absl::string_view(*wire).substr(kFrameHeaderBytes));
  ZCB_PROPERTY(again.ok());
  ZCB_PROPERTY(*EncodeFrame(*again) == *wire);

  const FrameFault fault =
      CheckEnvelope(*frame, v1::FRAME_KIND_REQUEST, kControlProtocol);
  if (fault != FrameFault::kNone) {
    ZCB_PROPERTY(EncodeHelloReply(*frame, RefusedForFault(fault)).ok());
  }
  const auto nonce = ParseProbeRequest(*frame);
  if (nonce.ok()) {
    v1::DaemonProcess process;
    process.mutable_ipc_endpoint();
    const auto reply = EncodeProbeReply(*frame, process);
    ZCB_PROPERTY(reply.ok());
    // Answers name the nonce's own request id; a request may name another.
    const auto parsed = ParseProbeReply(
        *DecodeFrame(absl::string_view(*reply).substr(kFrameHeaderBytes)),
        *nonce);
    const std::string proper = EncodeProbeRequest(*nonce);
    const auto proper_frame =
        DecodeFrame(absl::string_view(proper).substr(kFrameHeaderBytes));
    ZCB_PROPERTY(parsed.ok() ==
                 (proper_frame->request_id() == frame->request_id()));
  }
  CheckStable<v1::Hello>(frame->payload());
  CheckStable<v1::HelloReply>(frame->payload());
  CheckStable<v1::AdminRequest>(frame->payload());
  CheckStable<v1::AdminReply>(frame->payload());
  CheckStable<v1::HandoffOffer>(frame->payload());
}

}  // namespace
}  // namespace zcbroker::ipc

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Refused text is no line in the log of a run.
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using zcbroker::ipc::kFrameHeaderBytes;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  zcbroker::ipc::CheckHeader(bytes);
  if (size >= kFrameHeaderBytes) {
    zcbroker::ipc::CheckFrame(bytes.substr(kFrameHeaderBytes));
  }
  return 0;
}
