// One backend from the wish for it to its end: look whether one is there,
// else spawn it, prove that it serves, publish it, watch it, end it whole.
#ifndef ZCBROKER_SERVICE_HOST_BACKEND_RUN_H_
#define ZCBROKER_SERVICE_HOST_BACKEND_RUN_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "asio/io_context.hpp"
#include "service/core/machine.h"
#include "service/host/backend_files.h"
#include "service/host/reaper.h"

namespace zcbroker::service {

// What a run reports, from the loop, never from within a call to it. First
// `started` or `failed`; after `started`, `ending` when its process has ended
// and `gone` when its group has, too. After `failed` and `gone` the
// run is over and no process of its group is left.
struct BackendEvents {
  std::function<void(StartedBackend)> started;
  std::function<void(StartFailure)> failed;
  std::function<void()> ending;
  std::function<void(std::vector<std::string> evidence)> gone;
};

// Lives on the loop's thread. Destroying it leaves the backend running and
// reports nothing more.
class BackendRun {
 public:
  static std::unique_ptr<BackendRun> Create(asio::io_context& loop,
                                            Reaper& reaper,
                                            const Surroundings& surroundings,
                                            StartPlan plan,
                                            BackendEvents events);
  virtual ~BackendRun() = default;

  // Asks it to end (SIGTERM), and after the definition's grace ends its group.
  // `failed` or `gone` follows.
  virtual void Stop() = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_BACKEND_RUN_H_
