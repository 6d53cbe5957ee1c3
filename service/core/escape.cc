#include "service/core/escape.h"

#include "absl/strings/str_cat.h"
#include "ipc/wire/utf8.h"

namespace zcbroker::service {

std::string Escape(absl::string_view bytes) {
  const bool utf8 = ipc::IsUtf8(bytes);
  std::string escaped;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !utf8)) {
      absl::StrAppend(&escaped, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      escaped.push_back(c);
    }
  }
  return escaped;
}

}  // namespace zcbroker::service
