#include "ipc/names.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace zcbroker::ipc {
namespace {

bool IsDigits(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(c);
  });
}

bool IsLowerOrDigit(char c) {
  return absl::ascii_islower(c) || absl::ascii_isdigit(c);
}

int Sign(int value) { return value < 0 ? -1 : value > 0 ? 1 : 0; }

// Digits of any length, as numbers.
int CompareDigits(absl::string_view a, absl::string_view b) {
  a.remove_prefix(std::min(a.find_first_not_of('0'), a.size()));
  b.remove_prefix(std::min(b.find_first_not_of('0'), b.size()));
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return Sign(a.compare(b));
}

int CompareTailPart(absl::string_view a, absl::string_view b) {
  const bool a_number = IsDigits(a);
  const bool b_number = IsDigits(b);
  if (a_number && b_number) return CompareDigits(a, b);
  if (a_number != b_number) return a_number ? -1 : 1;
  return Sign(a.compare(b));
}

// The numbers, and the tail behind the '-' (empty where there is none).
std::pair<std::vector<absl::string_view>, absl::string_view> SplitVersion(
    absl::string_view version) {
  const std::vector<absl::string_view> halves =
      absl::StrSplit(version, absl::MaxSplits('-', 1));
  return {absl::StrSplit(halves[0], '.'),
          halves.size() > 1 ? halves[1] : absl::string_view()};
}

int CompareTails(absl::string_view a, absl::string_view b) {
  if (a.empty() || b.empty()) {
    return static_cast<int>(a.empty()) - static_cast<int>(b.empty());
  }
  const std::vector<absl::string_view> a_parts = absl::StrSplit(a, '.');
  const std::vector<absl::string_view> b_parts = absl::StrSplit(b, '.');
  for (std::size_t i = 0; i < std::min(a_parts.size(), b_parts.size()); ++i) {
    const int order = CompareTailPart(a_parts[i], b_parts[i]);
    if (order != 0) return order;
  }
  if (a_parts.size() == b_parts.size()) return 0;
  return a_parts.size() < b_parts.size() ? -1 : 1;
}

}  // namespace

bool IsServiceName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxServiceNameBytes &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return IsLowerOrDigit(c) || c == '-'; });
}

absl::Status CheckServiceName(absl::string_view name) {
  if (IsServiceName(name)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", Printable(name),
                   "\" is no service name: 1 to 64 characters of a-z, 0-9 and "
                   "'-'"));
}

bool IsVersion(absl::string_view version) {
  const std::size_t dash = version.find('-');
  const std::vector<absl::string_view> numbers =
      absl::StrSplit(version.substr(0, dash), '.');
  if (numbers.size() != 3 ||
      !std::all_of(numbers.begin(), numbers.end(), IsDigits)) {
    return false;
  }
  if (dash == absl::string_view::npos) return true;
  const absl::string_view tail = version.substr(dash + 1);
  return !tail.empty() && std::all_of(tail.begin(), tail.end(), [](char c) {
    return IsLowerOrDigit(c) || c == '.';
  });
}

absl::Status CheckVersion(absl::string_view version) {
  if (version.size() <= kMaxWantedVersionBytes && IsVersion(version)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", Printable(version),
      "\" is no version: three numbers joined by dots, optionally '-' and a "
      "tail of a-z, 0-9 and '.', at most 64 bytes"));
}

int CompareVersions(absl::string_view a, absl::string_view b) {
  const bool a_valid = IsVersion(a);
  const bool b_valid = IsVersion(b);
  if (a_valid != b_valid) return a_valid ? 1 : -1;
  if (!a_valid) return Sign(a.compare(b));
  const auto [a_numbers, a_tail] = SplitVersion(a);
  const auto [b_numbers, b_tail] = SplitVersion(b);
  for (std::size_t i = 0; i < 3; ++i) {
    const int order = CompareDigits(a_numbers[i], b_numbers[i]);
    if (order != 0) return order;
  }
  return CompareTails(a_tail, b_tail);
}

std::string Printable(absl::string_view text, std::size_t max_bytes) {
  // No program reads the text back; what was escaped before stays as it is.
  std::string escaped = absl::StrReplaceAll(
      absl::CHexEscape(text.substr(0, std::min(text.size(), max_bytes))),
      {{"\\\\", "\\"}, {"\\'", "'"}, {"\\\"", "\""}});
  if (escaped.size() <= max_bytes && text.size() <= max_bytes) return escaped;
  const std::size_t kept = max_bytes < 3 ? 0 : max_bytes - 3;
  escaped.resize(std::min(escaped.size(), kept));
  return escaped + "...";
}

}  // namespace zcbroker::ipc
