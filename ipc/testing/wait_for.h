// The one way for a test to wait for what cannot notify.
#ifndef ZCBROKER_IPC_TESTING_WAIT_FOR_H_
#define ZCBROKER_IPC_TESTING_WAIT_FOR_H_

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"

namespace zcbroker::ipc {

// Asks `predicate` every millisecond until it holds, for `timeout` at most;
// then fails, saying what it was waiting for: EXPECT_TRUE(WaitFor(...)).
inline ::testing::AssertionResult WaitFor(
    const std::function<bool()>& predicate, const std::string& description,
    absl::Duration timeout = absl::Seconds(10)) {
  const Deadline deadline = Deadline::After(timeout);
  for (;;) {
    const bool last_look = deadline.Expired();
    if (predicate()) return ::testing::AssertionSuccess();
    if (last_look) {
      return ::testing::AssertionFailure()
             << "waited " << absl::FormatDuration(timeout) << " for "
             << description;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_TESTING_WAIT_FOR_H_
