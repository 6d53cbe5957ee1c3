#include "ipc/wire/utf8.h"

#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

TEST(Utf8Test, BoundariesOfEveryLength) {
  const struct {
    absl::string_view text;
    bool valid;
  } kRows[] = {
      {"", true},
      {absl::string_view("\0\x7f", 2), true},
      {"\x80", false},
      {"\xc1\xbf", false},      // overlong U+007F
      {"\xc2\x80", true},       // U+0080
      {"\xdf\xbf", true},       // U+07FF
      {"\xe0\x9f\xbf", false},  // overlong
      {"\xe0\xa0\x80", true},   // U+0800
      {"\xed\x9f\xbf", true},   // U+D7FF
      {"\xed\xa0\x80", false},  // surrogate
      {"\xee\x80\x80", true},   // U+E000
      {"\xf0\x8f\xbf\xbf", false},
      {"\xf0\x90\x80\x80", true},   // U+10000
      {"\xf4\x8f\xbf\xbf", true},   // U+10FFFF
      {"\xf4\x90\x80\x80", false},  // above
      {"\xf5\x80\x80\x80", false},
      {"\xc2", false},  // cut short
      {"\xe2\x82", false},
      {"\xe2\x28\xa1", false},
  };
  for (const auto& row : kRows) {
    // At every place of the eight-byte stride.
    for (size_t before = 0; before < 9; ++before) {
      std::string text(before, 'a');
      text.append(row.text.data(), row.text.size()).append("tail tail");
      EXPECT_EQ(IsUtf8(text), row.valid) << before;
      text.resize(before + row.text.size());
      EXPECT_EQ(IsUtf8(text), row.valid) << before;
    }
  }
}

}  // namespace
}  // namespace zcbroker::ipc
