#include "service/core/trace_context.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_split.h"

namespace zcbroker::service {
namespace {

bool IsHex(absl::string_view text, size_t digits) {
  return text.size() == digits &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool IsZero(absl::string_view digits) {
  return digits.find_first_not_of('0') == absl::string_view::npos;
}

}  // namespace

bool IsTraceparent(absl::string_view text) {
  const std::vector<absl::string_view> fields = absl::StrSplit(text, '-');
  return fields.size() == 4 && IsHex(fields[0], 2) && fields[0] != "ff" &&
         IsHex(fields[1], 32) && !IsZero(fields[1]) && IsHex(fields[2], 16) &&
         !IsZero(fields[2]) && IsHex(fields[3], 2);
}

}  // namespace zcbroker::service
