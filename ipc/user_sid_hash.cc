#include "ipc/user_sid_hash.h"

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "blake3.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

// The text of the file; empty where there is none and the next may be tried.
absl::StatusOr<std::string> TextOrNext(
    const absl::StatusOr<std::string>& content, absl::string_view what) {
  if (content.ok()) return std::string(absl::StripAsciiWhitespace(*content));
  if (absl::IsNotFound(content.status())) return std::string();
  return Annotate(content.status(), what);
}

}  // namespace

std::string UserSidHash(absl::string_view identity) {
  std::array<std::uint8_t, 8> digest;
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, identity.data(), identity.size());
  blake3_hasher_finalize(&hasher, digest.data(), digest.size());
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(digest.data()), digest.size()));
}

absl::StatusOr<std::string> LinuxIdentity(
    std::uint32_t real_uid, const absl::StatusOr<std::string>& machine_id,
    const absl::StatusOr<std::string>& dbus_machine_id,
    const absl::StatusOr<std::string>& boot_id) {
  for (const auto* source : {&machine_id, &dbus_machine_id}) {
    ZCB_ASSIGN_OR_RETURN(const std::string id,
                         TextOrNext(*source, "machine id"));
    if (!id.empty()) return absl::StrCat(real_uid, ":", id);
  }
  ZCB_ASSIGN_OR_RETURN(const std::string boot, TextOrNext(boot_id, "boot id"));
  if (!boot.empty()) return absl::StrCat(real_uid, ":boot:", boot);
  return absl::NotFoundError(
      "this machine has neither a machine id nor a boot id");
}

std::string MacOsIdentity(std::uint32_t real_uid,
                          absl::string_view io_platform_uuid) {
  return absl::StrCat(real_uid, ":", io_platform_uuid);
}

std::string WindowsIdentity(absl::string_view raw_sid) {
  return absl::StrCat("windows-sid:", absl::BytesToHexString(raw_sid));
}

}  // namespace zcbroker::ipc
