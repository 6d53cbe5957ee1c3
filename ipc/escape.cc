#include "ipc/escape.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "ipc/wire/utf8.h"

namespace zcbroker::ipc {
namespace {

// Where the control character that `text`, which is UTF-8, has at `at` ends; 0
// where there is none. U+0080 to U+009F are two bytes; a terminal takes U+009B
// for the beginning of a sequence.
size_t EndOfControl(absl::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x20 || byte == 0x7f) return at + 1;
  const bool second_set = byte == 0xc2 && at + 1 < text.size() &&
                          static_cast<unsigned char>(text[at + 1]) < 0xa0;
  return second_set ? at + 2 : 0;
}

}  // namespace

std::string Escape(absl::string_view bytes) {
  const bool utf8 = IsUtf8(bytes);
  std::string escaped;
  for (size_t i = 0; i < bytes.size();) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    const size_t end = !utf8 && byte >= 0x80 ? i + 1 : EndOfControl(bytes, i);
    if (end == 0) {
      escaped.push_back(bytes[i++]);
      continue;
    }
    for (; i < end; ++i) {
      absl::StrAppend(
          &escaped, "\\x",
          absl::Hex(static_cast<unsigned char>(bytes[i]), absl::kZeroPad2));
    }
  }
  return escaped;
}

std::string EscapeAllBut(char kept, absl::string_view bytes) {
  return absl::StrJoin(absl::StrSplit(bytes, kept), std::string(1, kept),
                       [](std::string* all, absl::string_view part) {
                         all->append(Escape(part));
                       });
}

}  // namespace zcbroker::ipc
