// An encoding of the data path between a client and its backend. The API's
// spelling of the same is zcbroker.v1.WireLane; this one needs no protobuf.
// Source: spec zccache-ipc section 3.1.
#ifndef ZCBROKER_IPC_WIRE_LANE_H_
#define ZCBROKER_IPC_WIRE_LANE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

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

// The number of zcbroker.v1.WireLane, for files and messages of programs that
// do not link that enumeration.
constexpr std::uint32_t WireLaneNumber(WireLane lane) {
  switch (lane) {
    case WireLane::kBincodeV15:
      return 1;
    case WireLane::kProstV16:
      return 2;
    case WireLane::kFrameV1:
      return 3;
    case WireLane::kOpaque:
      return 4;
  }
  return 0;
}

// Nothing for a lane of a later version.
inline absl::optional<WireLane> WireLaneFromNumber(std::uint32_t number) {
  for (const WireLane lane : {WireLane::kBincodeV15, WireLane::kProstV16,
                              WireLane::kFrameV1, WireLane::kOpaque}) {
    if (WireLaneNumber(lane) == number) return lane;
  }
  return absl::nullopt;
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_LANE_H_
