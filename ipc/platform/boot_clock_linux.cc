#include <time.h>

#include "absl/time/time.h"
#include "ipc/boot_clock.h"

namespace zcbroker::ipc {

absl::Duration SinceBoot() {
  timespec now = {};
  // Fails on kernels before 2.6.39 only.
  clock_gettime(CLOCK_BOOTTIME, &now);
  return absl::DurationFromTimespec(now);
}

}  // namespace zcbroker::ipc
