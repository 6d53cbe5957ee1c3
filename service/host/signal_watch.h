// Signals as events of the loop, read from a descriptor. No handler runs at
// all, so none can run at a bad moment, or on a thread that a library made and
// that does not look at what was left for it.
#ifndef ZCBROKER_SERVICE_HOST_SIGNAL_WATCH_H_
#define ZCBROKER_SERVICE_HOST_SIGNAL_WATCH_H_

#include <sys/signalfd.h>

#include <functional>
#include <initializer_list>

#include "asio/io_context.hpp"
#include "asio/posix/stream_descriptor.hpp"

namespace zcbroker::service {

// Keeps `signals` from this thread, and from those it starts later, until a
// watch tells of them: a process that is being set up is not ended half way.
void BlockSignals(std::initializer_list<int> signals);

// Lives on the loop's thread. Several may watch one loop, each for signals of
// its own.
class SignalWatch {
 public:
  // Calls `received` on the loop with each of `signals` that arrives; some of
  // one kind that arrive together may be told as one. Blocks them in the
  // calling thread, and so in every thread that it starts later: make it
  // before any. Ends the process where there is no descriptor for it, since a
  // daemon that hears no signals cannot be ended.
  SignalWatch(asio::io_context& loop, std::initializer_list<int> signals,
              std::function<void(int)> received);

 private:
  void Read();

  asio::posix::stream_descriptor descriptor_;
  const std::function<void(int)> received_;
  signalfd_siginfo info_ = {};
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_SIGNAL_WATCH_H_
