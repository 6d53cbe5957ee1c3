// Children that end are collected here, all of them: those that were watched
// and those that fell to us as the subreaper of our backends' descendants (a
// zombie looks alive to everything that asks by pid).
#ifndef ZCBROKER_SERVICE_HOST_REAPER_H_
#define ZCBROKER_SERVICE_HOST_REAPER_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>

#include "asio/io_context.hpp"
#include "service/host/signal_watch.h"

namespace zcbroker::service {

// How a process ended.
struct ExitStatus {
  bool signalled = false;
  int value = 0;  // exit status, or the signal's number

  bool success() const { return !signalled && value == 0; }
  // "exited with status 3", "was ended by signal 9 (Killed)".
  std::string ToString() const;
};

// Lives on the loop's thread. Makes the process a child subreaper.
class Reaper {
 public:
  explicit Reaper(asio::io_context& loop);

  // `done` is called once on the loop when `pid`, a child of ours, has ended.
  // `before_reap`, where given, is called just before its pid is free to be
  // used again: the last moment at which its process group is surely its own.
  void Watch(pid_t pid, std::function<void(ExitStatus)> done,
             std::function<void()> before_reap = nullptr);

 private:
  struct Watched {
    std::function<void(ExitStatus)> done;
    std::function<void()> before_reap;
  };

  void Collect();

  std::map<pid_t, Watched> watched_;
  SignalWatch signals_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_REAPER_H_
