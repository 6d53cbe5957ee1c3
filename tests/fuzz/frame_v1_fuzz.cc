// Whole streams: lane detection, FrameV1, and the first message of a
// connection.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/first_message.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "tests/fuzz/property.h"

namespace zcbroker::ipc {
namespace {

// What is decoded from a stream does not depend on what follows, is not seen
// before it is whole, and encodes to something that decodes alike.
template <class Decode>
void CheckMessages(absl::string_view stream, Decode decode) {
  while (true) {
    const auto decoded = decode(stream);
    ZCB_PROPERTY(decoded.consumed_bytes <= stream.size());
    if (decoded.result == DecodeResult::kNeedMore) {
      ZCB_PROPERTY(decoded.error.ok());
      ZCB_PROPERTY(decoded.needed_bytes > stream.size());
      ZCB_PROPERTY(decoded.needed_bytes <= 5 + kMaxMessageBytes);
      return;
    }
    if (decoded.result != DecodeResult::kMessage) {
      ZCB_PROPERTY(!decoded.error.ok());
      const bool goes_on = decoded.result == DecodeResult::kInvalidContent;
      ZCB_PROPERTY(goes_on == (decoded.consumed_bytes > 0));
      if (!goes_on) return;
    } else {
      ZCB_PROPERTY(decoded.error.ok() && decoded.consumed_bytes >= 8);
      const absl::string_view whole = stream.substr(0, decoded.consumed_bytes);
      ZCB_PROPERTY(decode(whole).result == DecodeResult::kMessage);
      const auto cut = decode(whole.substr(0, whole.size() - 1));
      ZCB_PROPERTY(cut.result == DecodeResult::kNeedMore);
      ZCB_PROPERTY(cut.needed_bytes <= whole.size());
      const auto once =
          Encode(decoded.lane, decoded.message, decoded.frame_request_id);
      if (once.ok()) {
        const auto again = decode(*once);
        ZCB_PROPERTY(again.result == DecodeResult::kMessage);
        ZCB_PROPERTY(again.lane == decoded.lane);
        ZCB_PROPERTY(again.frame_request_id == decoded.frame_request_id);
        ZCB_PROPERTY(*Encode(again.lane, again.message,
                             again.frame_request_id) == *once);
      }
    }
    stream.remove_prefix(decoded.consumed_bytes);
  }
}

void CheckFirst(absl::string_view stream) {
  const FirstMessage first = DetectFirstMessage(stream);
  if (first.kind == FirstMessage::Kind::kIdentityProbe) {
    ZCB_PROPERTY(ParseProbeRequest(first.probe).ok());
    ZCB_PROPERTY(DecodeRequest(stream).result == DecodeResult::kWrongEnvelope);
  }
  // Nobody waits for long with a message of another protocol.
  ZCB_PROPERTY(first.kind != FirstMessage::Kind::kNeedMore ||
               stream.size() < kFrameHeaderBytes + kMaxProbeBodyBytes);
}

}  // namespace
}  // namespace zcbroker::ipc

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Refused text is no line in the log of a run.
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace zcbroker::ipc;
  const absl::string_view stream(reinterpret_cast<const char*>(data), size);
  CheckFirst(stream);
  CheckMessages(stream,
                [](absl::string_view bytes) { return DecodeRequest(bytes); });
  CheckMessages(stream,
                [](absl::string_view bytes) { return DecodeResponse(bytes); });
  return 0;
}
