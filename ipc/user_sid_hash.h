// Who "this user on this machine" is, in the names of running-process: 16
// lowercase hexadecimal digits. Not a secret and not a proof of anything.
// Source: spec broker-v1 section 3.1.
#ifndef ZCBROKER_IPC_USER_SID_HASH_H_
#define ZCBROKER_IPC_USER_SID_HASH_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

// The first 8 bytes of the BLAKE3 of `identity`, as hexadecimal.
std::string UserSidHash(absl::string_view identity);

// "<real uid>:<machine id>". Each argument is what reading that file gave:
// /etc/machine-id, /var/lib/dbus/machine-id, /proc/sys/kernel/random/boot_id.
// The first that has text wins, the boot id written "boot:<id>". kNotFound and
// files without text move on to the next; any other error is returned as it
// is, since the name it would lead to is not the one upstream derives.
// kNotFound where none yields anything.
absl::StatusOr<std::string> LinuxIdentity(
    std::uint32_t real_uid, const absl::StatusOr<std::string>& machine_id,
    const absl::StatusOr<std::string>& dbus_machine_id,
    const absl::StatusOr<std::string>& boot_id);

// "<real uid>:<IOPlatformUUID>", the UUID exactly as ioreg prints it.
std::string MacOsIdentity(std::uint32_t real_uid,
                          absl::string_view io_platform_uuid);

// "windows-sid:" and the raw binary SID of the process token's user in
// lowercase hexadecimal (not the textual S-1-... form).
std::string WindowsIdentity(absl::string_view raw_sid);

// Of the user who runs this process, here. Reads three small files at most.
// Errors: those of LinuxIdentity.
absl::StatusOr<std::string> HostUserSidHash();

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_USER_SID_HASH_H_
