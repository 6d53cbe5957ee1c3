#include "client/cli/progress.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/names.h"

namespace zcbroker::cli {
namespace {

// Back to the line's beginning, and the rest of it away.
constexpr char kWipe[] = "\r\x1b[K";

// A terminal that understands what wipes a line.
bool HasTerminal() {
  const char* kind = getenv("TERM");
  return isatty(STDERR_FILENO) == 1 &&
         (kind == nullptr || absl::string_view(kind) != "dumb");
}

// Less the last column, in which some terminals begin a new line. Asked each
// time: a window may be made smaller.
size_t Width() {
  winsize size{};
  const bool known =
      ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return (known ? size.ws_col : 80) - 1;
}

}  // namespace

Progress::Progress(std::string what) : what_(std::move(what)) {
  if (HasTerminal()) thread_ = std::thread([this] { Run(); });
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
    // A line of two rows could not be wiped.
    const std::string line = absl::StrCat(
        "zcbroker: ", ipc::Printable(what_, 200), ", ", ++seconds, " s");
    fprintf(stderr, "%s%s", kWipe, line.substr(0, Width()).c_str());
    fflush(stderr);
  }
  if (seconds > 0) fputs(kWipe, stderr);
}

}  // namespace zcbroker::cli
