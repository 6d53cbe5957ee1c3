// bincode payloads, as requests and as responses.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/wire/bincode.h"
#include "ipc/wire/content_check.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "tests/fuzz/property.h"

namespace zcbroker::ipc {
namespace {

// Whatever decodes is complete, and bincode has one encoding for each value:
// the bytes given, less what trailed.
template <class Message, class DecodeOther>
void Check(const absl::StatusOr<Message>& message, absl::string_view payload,
           DecodeOther decode) {
  if (!message.ok()) return;
  ZCB_PROPERTY(CheckContent(*message, TextOrigin::kUnverified).ok());
  std::string encoded;
  AppendBincode(*message, &encoded);
  ZCB_PROPERTY(absl::StartsWith(payload, encoded));

  // The same message survives the other lanes.
  for (WireLane lane : {WireLane::kProstV16, WireLane::kFrameV1}) {
    const auto wire = Encode(lane, *message, 1);
    if (!wire.ok()) continue;  // over the cap there
    const auto decoded = decode(*wire);
    ZCB_PROPERTY(decoded.result == DecodeResult::kMessage);
    std::string again;
    AppendBincode(decoded.message, &again);
    ZCB_PROPERTY(again == encoded);
  }
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
  const absl::string_view payload(reinterpret_cast<const char*>(data), size);
  Check(DecodeBincodeRequest(payload), payload,
        [](absl::string_view wire) { return DecodeRequest(wire); });
  Check(DecodeBincodeResponse(payload), payload,
        [](absl::string_view wire) { return DecodeResponse(wire); });
  return 0;
}
