#include <unistd.h>

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "ipc/platform/small_file.h"
#include "ipc/status_macros.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::ipc {

absl::StatusOr<std::string> HostUserSidHash() {
  constexpr std::size_t kMaxBytes = 4096;
  ZCB_ASSIGN_OR_RETURN(
      const std::string identity,
      LinuxIdentity(
          getuid(), ReadSmallFile("/etc/machine-id", kMaxBytes),
          ReadSmallFile("/var/lib/dbus/machine-id", kMaxBytes),
          ReadSmallFile("/proc/sys/kernel/random/boot_id", kMaxBytes)));
  return UserSidHash(identity);
}

}  // namespace zcbroker::ipc
