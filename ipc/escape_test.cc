#include "ipc/escape.h"

#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

TEST(EscapeTest, LeavesTextAndShowsTheRest) {
  const struct {
    absl::string_view bytes;
    const char* escaped;
  } kRows[] = {
      {"", ""},
      {"no field named \"pth\" in C:\\x", "no field named \"pth\" in C:\\x"},
      {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
      {"\xc2\x9b\x32J\xc2\xa0\xc2\x80", "\\xc2\\x9b\x32J\xc2\xa0\\xc2\\x80"},
      {"gr\xfc\xdf", "gr\\xfc\\xdf"},
      {"gr\xc3\xbc\xff", "gr\\xc3\\xbc\\xff"},
      {"\x1b[2J\t\x7f", "\\x1b[2J\\x09\\x7f"},
      {absl::string_view("a\0b", 3), "a\\x00b"},
  };
  for (const auto& row : kRows) EXPECT_EQ(Escape(row.bytes), row.escaped);
}

TEST(EscapeTest, OneCharacterMayBeKept) {
  EXPECT_EQ(EscapeAllBut('\n', "a\n\tb\n"), "a\n\\x09b\n");
  EXPECT_EQ(EscapeAllBut('\t', "gr\xfc\tgr\xc3\xbc"), "gr\\xfc\tgr\xc3\xbc");
}

}  // namespace
}  // namespace zcbroker::ipc
