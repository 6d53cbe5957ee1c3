#include "ipc/wire/utf8.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"

namespace zcbroker::ipc {
namespace {

// Continuation bytes after this lead byte, or -1 for a byte that leads none.
int ContinuationBytes(uint8_t lead) {
  if (lead < 0x80) return 0;
  if (lead < 0xC2) return -1;  // a continuation, or an overlong form
  if (lead < 0xE0) return 1;
  if (lead < 0xF0) return 2;
  return lead < 0xF5 ? 3 : -1;
}

// The range of the first continuation byte keeps overlong forms, surrogates
// and values above U+10FFFF out.
bool FirstContinuationFits(uint8_t lead, uint8_t next) {
  switch (lead) {
    case 0xE0:
      return next >= 0xA0;
    case 0xED:
      return next < 0xA0;
    case 0xF0:
      return next >= 0x90;
    case 0xF4:
      return next < 0x90;
    default:
      return true;
  }
}

}  // namespace

bool IsUtf8(absl::string_view text) {
  constexpr uint64_t kNonAscii = 0x8080808080808080;
  const char* data = text.data();
  const size_t size = text.size();
  size_t i = 0;
  while (i < size) {
    uint64_t word;
    if (size - i >= sizeof(word)) {
      std::memcpy(&word, data + i, sizeof(word));
      if ((word & kNonAscii) == 0) {
        i += sizeof(word);
        continue;
      }
    }
    const auto lead = static_cast<uint8_t>(data[i++]);
    const int more = ContinuationBytes(lead);
    if (more < 0 || size - i < static_cast<size_t>(more)) return false;
    for (int k = 0; k < more; ++k) {
      const auto next = static_cast<uint8_t>(data[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      if (k == 0 && !FirstContinuationFits(lead, next)) return false;
    }
    i += more;
  }
  return true;
}

}  // namespace zcbroker::ipc
