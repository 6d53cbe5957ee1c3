// How the broker's thread waits. docs/adr/0014 has the reasons and figures.
#ifndef ZCBROKER_SERVICE_HOST_AWAKE_LOOP_H_
#define ZCBROKER_SERVICE_HOST_AWAKE_LOOP_H_

#include <chrono>

#include "asio/io_context.hpp"

namespace zcbroker::service {

// What comes within this time of the last event finds the thread awake.
constexpr std::chrono::microseconds kStayAwake(100);

// Runs the loop until it is stopped or has nothing left to wait for, as
// loop.run() does, but does not go to sleep at once after an event: a reply
// that takes 50 us is not held up by a core that had to be woken for it, which
// costs as much again in a virtual machine. Sleeps as soon as somebody else
// wants the core, or when `stay_awake` has passed without an event.
void RunAwake(asio::io_context& loop,
              std::chrono::microseconds stay_awake = kStayAwake);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_AWAKE_LOOP_H_
