#include "service/host/awake_loop.h"

#include <sched.h>

namespace zcbroker::service {
namespace {

using Clock = std::chrono::steady_clock;

// A turn takes 1 us when nobody else runs meanwhile.
constexpr std::chrono::microseconds kSomebodyElseRan(20);

// True if there was an event to handle before it was time to sleep.
bool LookAround(asio::io_context& loop, std::chrono::microseconds stay_awake) {
  const Clock::time_point began = Clock::now();
  Clock::time_point last = began;
  while (last - began < stay_awake) {
    sched_yield();
    if (loop.poll() > 0) return true;
    const Clock::time_point now = Clock::now();
    if (now - last > kSomebodyElseRan) return false;
    last = now;
  }
  return false;
}

}  // namespace

void RunAwake(asio::io_context& loop, std::chrono::microseconds stay_awake) {
  while (loop.run_one() > 0) {
    loop.poll();
    while (!loop.stopped() && LookAround(loop, stay_awake)) {
    }
  }
}

}  // namespace zcbroker::service
