// Where threads of a test meet. On std::mutex, since the packaged
// absl::Notification makes ThreadSanitizer report races that are none.
#ifndef ZCBROKER_IPC_TESTING_LATCH_H_
#define ZCBROKER_IPC_TESTING_LATCH_H_

#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace zcbroker::ipc {

// Opens once, for ever. All methods are thread-safe.
class Latch {
 public:
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

  // False where it is still closed after `timeout`.
  [[nodiscard]] bool Wait(absl::Duration timeout = absl::Seconds(10)) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                             [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_TESTING_LATCH_H_
