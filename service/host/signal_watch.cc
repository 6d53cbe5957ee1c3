#include "service/host/signal_watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utility>

#include "asio/buffer.hpp"

namespace zcbroker::service {
namespace {

sigset_t SetOf(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal_number : signals) sigaddset(&set, signal_number);
  return set;
}

int BlockAndOpen(std::initializer_list<int> signals) {
  BlockSignals(signals);
  // Ignored by whoever started us (nohup), it would not arrive; children
  // would be collected by nobody's wish.
  for (const int signal_number : signals) signal(signal_number, SIG_DFL);
  const sigset_t set = SetOf(signals);
  const int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) {
    fprintf(stderr, "signalfd: %s\n", strerror(errno));
    abort();
  }
  return fd;
}

}  // namespace

void BlockSignals(std::initializer_list<int> signals) {
  const sigset_t set = SetOf(signals);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

SignalWatch::SignalWatch(asio::io_context& loop,
                         std::initializer_list<int> signals,
                         std::function<void(int)> received)
    : descriptor_(loop, BlockAndOpen(signals)), received_(std::move(received)) {
  Read();
}

void SignalWatch::Read() {
  descriptor_.async_read_some(asio::buffer(&info_, sizeof(info_)),
                              [this](const asio::error_code& error, size_t) {
                                if (error) return;
                                received_(static_cast<int>(info_.ssi_signo));
                                Read();
                              });
}

}  // namespace zcbroker::service
