// Protobuf payloads of the prost v16 lane, as requests and as responses.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "tests/fuzz/property.h"

namespace zcbroker::ipc {
namespace {

std::string WithHeader(absl::string_view payload) {
  const uint32_t length = static_cast<uint32_t>(payload.size() + 4);
  std::string wire;
  for (int shift = 0; shift < 32; shift += 8) {
    wire.push_back(static_cast<char>(length >> shift & 0xff));
  }
  wire.append("\x10\0\0\0", 4);
  return wire.append(payload.data(), payload.size());
}

template <class Decode>
void Check(absl::string_view payload, Decode decode) {
  const std::string wire = WithHeader(payload);
  const auto decoded = decode(wire);
  switch (decoded.result) {
    case DecodeResult::kMalformed:
      ZCB_PROPERTY(decoded.consumed_bytes == 0);
      ZCB_PROPERTY(!decoded.error.ok());
      return;
    case DecodeResult::kInvalidContent:
      ZCB_PROPERTY(decoded.consumed_bytes == wire.size());
      ZCB_PROPERTY(!decoded.error.ok());
      return;
    default:
      ZCB_PROPERTY(decoded.result == DecodeResult::kMessage);
  }
  ZCB_PROPERTY(decoded.consumed_bytes == wire.size());
  for (WireLane lane :
       {WireLane::kBincodeV15, WireLane::kProstV16, WireLane::kFrameV1}) {
    const auto once = Encode(lane, decoded.message, 1);
    if (!once.ok()) continue;  // over the cap there
    const auto again = decode(*once);
    ZCB_PROPERTY(again.result == DecodeResult::kMessage);
    ZCB_PROPERTY(again.lane == lane);
    ZCB_PROPERTY(*Encode(lane, again.message, 1) == *once);
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
  Check(payload, [](absl::string_view wire) { return DecodeRequest(wire); });
  Check(payload, [](absl::string_view wire) { return DecodeResponse(wire); });
  return 0;
}
