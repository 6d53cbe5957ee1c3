// Time since the machine was booted, sleep included: CLOCK_BOOTTIME on Linux.
// The same in all processes, unlike clock.h's not stopped by a suspend, and
// unlike the wall clock never set back; for what processes tell each other.
#ifndef ZCBROKER_IPC_BOOT_CLOCK_H_
#define ZCBROKER_IPC_BOOT_CLOCK_H_

#include "absl/time/time.h"

namespace zcbroker::ipc {

absl::Duration SinceBoot();

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_BOOT_CLOCK_H_
