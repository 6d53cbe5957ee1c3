#include "client/cli/progress.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "ipc/names.h"

namespace zcbroker::cli {
namespace {

// Back to the line's beginning, and the rest of it away.
constexpr char kWipe[] = "\r\x1b[K";

}  // namespace

Progress::Progress(std::string what) : what_(std::move(what)) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Run(); });
}

Progress::~Progress() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Progress::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  int seconds = 0;
  while (!changed_.wait_for(lock, std::chrono::seconds(1),
                            [this] { return over_; })) {
    fprintf(stderr, "%szcbroker: %s, %d s", kWipe,
            ipc::Printable(what_, 200).c_str(), ++seconds);
    fflush(stderr);
  }
  if (seconds > 0) fputs(kWipe, stderr);
}

}  // namespace zcbroker::cli
