// Numbers as zccache's lanes write them. Thread-safe.
#ifndef ZCBROKER_IPC_WIRE_LITTLE_ENDIAN_H_
#define ZCBROKER_IPC_WIRE_LITTLE_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

// REQUIRES: offset + 4 <= bytes.size().
inline uint32_t LittleEndian32(absl::string_view bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) {
    value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  }
  return value;
}

inline void AppendLittleEndian32(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) {
    out->push_back(static_cast<char>(value >> shift & 0xff));
  }
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_LITTLE_ENDIAN_H_
