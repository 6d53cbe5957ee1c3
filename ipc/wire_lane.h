// An encoding of the data path between a client and its backend. The API's
// spelling of the same is zcbroker.v1.WireLane; this one needs no protobuf.
// Source: spec zccache-ipc section 3.1.
#ifndef ZCBROKER_IPC_WIRE_LANE_H_
#define ZCBROKER_IPC_WIRE_LANE_H_

#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

enum class WireLane {
  kBincodeV15,  // [u32 length][u32 15] and bincode 1.3
  kProstV16,    // [u32 length][u32 16] and a zccache.v1 message
  kFrameV1,     // 0x01, [u32 length] and a Frame of payload protocol 0x7A63
  kOpaque,      // bytes we know nothing about
};

// "bincode-v15", "prost-v16", "frame-v1" or "opaque"; the first three are also
// what ZCCACHE_DAEMON_WIRE accepts.
constexpr absl::string_view WireLaneName(WireLane lane) {
  switch (lane) {
    case WireLane::kBincodeV15:
      return "bincode-v15";
    case WireLane::kProstV16:
      return "prost-v16";
    case WireLane::kFrameV1:
      return "frame-v1";
    case WireLane::kOpaque:
      return "opaque";
  }
  return "opaque";
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_LANE_H_
