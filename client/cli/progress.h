// Tells a person at a terminal that something is being waited for.
#ifndef ZCBROKER_CLIENT_CLI_PROGRESS_H_
#define ZCBROKER_CLIENT_CLI_PROGRESS_H_

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"

namespace zcbroker::cli {

// From one second after it was made until it is destroyed, a line on standard
// error counts the seconds; then it is wiped away. Nothing where that is no
// terminal, or a dumb one. A thread of its own, since what is waited for
// blocks.
class Progress {
 public:
  // "waiting for zccache 1.11.22".
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  void Run();

  const std::string what_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_PROGRESS_H_
