#include "ipc/endpoint.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

std::string UnixPath(std::size_t length) {
  return absl::StrCat("/", std::string(length - 1, 'p'));
}

TEST(EndpointTest, TheLimitIsInclusive) {
  for (const Os os : {Os::kLinux, Os::kMacOs}) {
    const std::size_t limit = MaxSocketPathBytes(os);
    EXPECT_TRUE(Endpoint::Parse(UnixPath(limit - 1), os).ok());
    EXPECT_TRUE(Endpoint::Parse(UnixPath(limit), os).ok());
    EXPECT_EQ(Endpoint::Parse(UnixPath(limit + 1), os).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  // On Windows the prefix of nine characters counts.
  EXPECT_TRUE(Endpoint::Parse(std::string(250, 'p'), Os::kWindows).ok());
  EXPECT_TRUE(Endpoint::Parse(std::string(251, 'p'), Os::kWindows).ok());
  EXPECT_FALSE(Endpoint::Parse(std::string(252, 'p'), Os::kWindows).ok());
}

TEST(EndpointTest, LimitsOfTheSystems) {
  EXPECT_EQ(MaxSocketPathBytes(Os::kLinux), 107U);
  EXPECT_EQ(MaxSocketPathBytes(Os::kMacOs), 103U);
  EXPECT_EQ(MaxSocketPathBytes(Os::kWindows), 260U);
}

TEST(EndpointTest, WindowsHasOneSpelling) {
  const std::string canonical = "\\\\.\\pipe\\zccache-u";
  for (const char* spelling :
       {"zccache-u", "\\\\.\\pipe\\zccache-u", "\\\\.\\PIPE\\zccache-u"}) {
    const auto endpoint = Endpoint::Parse(spelling, Os::kWindows);
    ASSERT_TRUE(endpoint.ok()) << spelling;
    EXPECT_EQ(endpoint->path(), canonical);
  }
}

TEST(EndpointTest, WhatIsNoEndpointIsRefused) {
  const struct {
    absl::string_view text;
    Os os;
  } kRows[] = {
      {"", Os::kLinux},
      {"relative/path", Os::kLinux},
      {"running-process/broker/x.sock", Os::kMacOs},
      {absl::string_view("/a\0b", 4), Os::kLinux},
      {absl::string_view("a\0b", 3), Os::kWindows},
      {"", Os::kWindows},
      {"\\\\.\\pipe\\", Os::kWindows},
      {"a\\b", Os::kWindows},
      {"\\\\.\\pipe\\\\\\.\\pipe\\a", Os::kWindows},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(Endpoint::Parse(row.text, row.os).status().code(),
              absl::StatusCode::kInvalidArgument)
        << row.text;
  }
}

}  // namespace
}  // namespace zcbroker::ipc
