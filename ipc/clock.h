// Time that only goes forward: CLOCK_MONOTONIC on Linux. What is measured and
// what is waited for uses this clock, never the wall clock.
#ifndef ZCBROKER_IPC_CLOCK_H_
#define ZCBROKER_IPC_CLOCK_H_

#include <chrono>

namespace zcbroker::ipc {

using MonotonicClock = std::chrono::steady_clock;
using MonotonicTime = MonotonicClock::time_point;

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_CLOCK_H_
