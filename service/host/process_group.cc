#include "service/host/process_group.h"

#include <errno.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "asio/steady_timer.hpp"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;

class GroupEnd : public std::enable_shared_from_this<GroupEnd> {
 public:
  GroupEnd(asio::io_context& loop, pid_t pgid, std::function<void()> done)
      : timer_(loop), pgid_(pgid), done_(std::move(done)) {}

  void Step() {
    // Once is enough: a fork with the signal pending is refused by the kernel,
    // and a later one could meet a group that has the number by then.
    const bool empty = kill(-pgid_, signal_) != 0 && errno == ESRCH;
    signal_ = 0;
    if (!empty && waited_ > std::chrono::seconds(10)) {
      LogError(absl::StrCat("process group ", pgid_,
                            " does not end; going on without waiting for it"));
    }
    if (empty || waited_ > std::chrono::seconds(10)) {
      done_();
      return;
    }
    timer_.expires_after(pause_);
    waited_ += pause_;
    pause_ = std::min(pause_ * 2, milliseconds(20));
    timer_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (!e) self->Step();
    });
  }

 private:
  asio::steady_timer timer_;
  const pid_t pgid_;
  int signal_ = SIGKILL;
  std::function<void()> done_;
  milliseconds pause_{1};
  milliseconds waited_{0};
};

}  // namespace

void EndGroup(asio::io_context& loop, pid_t pgid, std::function<void()> done) {
  std::make_shared<GroupEnd>(loop, pgid, std::move(done))->Step();
}

}  // namespace zcbroker::service
