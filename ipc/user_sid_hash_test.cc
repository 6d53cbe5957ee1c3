#include "ipc/user_sid_hash.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

const absl::StatusOr<std::string> kMissing = absl::NotFoundError("no file");
const absl::StatusOr<std::string> kForbidden =
    absl::PermissionDeniedError("no access");
const absl::StatusOr<std::string> kBlank = std::string(" \n");

// The worked examples of spec broker-v1 section 3.1 are in
// broker_endpoint_test, from the vector file.

TEST(UserSidHashTest, TheFirstFileWithTextWins) {
  const struct {
    absl::StatusOr<std::string> machine;
    absl::StatusOr<std::string> dbus;
    absl::StatusOr<std::string> boot;
    std::string identity;
  } kRows[] = {
      {std::string("m\n"), std::string("d"), std::string("b"), "7:m"},
      {kMissing, std::string("d\n"), std::string("b"), "7:d"},
      {kBlank, std::string("d"), kForbidden, "7:d"},
      {kMissing, kMissing, std::string("b\n"), "7:boot:b"},
      {kBlank, kBlank, std::string("b"), "7:boot:b"},
      {std::string("m"), kForbidden, kForbidden, "7:m"},
  };
  for (const auto& row : kRows) {
    const auto identity = LinuxIdentity(7, row.machine, row.dbus, row.boot);
    ASSERT_TRUE(identity.ok()) << row.identity << identity.status();
    EXPECT_EQ(*identity, row.identity);
  }
}

TEST(UserSidHashTest, AnotherReadErrorIsFatal) {
  EXPECT_EQ(LinuxIdentity(7, kForbidden, std::string("d"), std::string("b"))
                .status()
                .code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(
      LinuxIdentity(7, kMissing, kForbidden, std::string("b")).status().code(),
      absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(LinuxIdentity(7, kMissing, kBlank, kMissing).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(UserSidHashTest, OtherSystemsSpellIdentityTheirWay) {
  EXPECT_EQ(MacOsIdentity(501, "564D1A2B-3C4D"), "501:564D1A2B-3C4D");
  EXPECT_EQ(WindowsIdentity(absl::HexStringToBytes("01050000ff")),
            "windows-sid:01050000ff");
}

TEST(UserSidHashTest, HereItIsSixteenHexDigits) {
  const auto hash = HostUserSidHash();
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(hash->size(), 16U);
  EXPECT_TRUE(std::all_of(hash->begin(), hash->end(), [](char c) {
    return absl::ascii_isxdigit(c) && !absl::ascii_isupper(c);
  })) << *hash;
}

}  // namespace
}  // namespace zcbroker::ipc
