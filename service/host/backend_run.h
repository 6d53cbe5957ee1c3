// One backend from the wish for it to its end: look whether one is there,
// else spawn it, prove that it serves, publish it, watch it, end it whole.
#ifndef ZCBROKER_SERVICE_HOST_BACKEND_RUN_H_
#define ZCBROKER_SERVICE_HOST_BACKEND_RUN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "asio/io_context.hpp"
#include "service/core/machine.h"
#include "service/host/backend_files.h"
#include "service/host/reaper.h"

namespace zcbroker::service {

// docs/operations.md, "Limits": a larger log is renamed when one is started.
inline constexpr int64_t kMaxLogBytes = 8 << 20;

// What a run reports, from the loop, never from within a call to it. First
// `started` or `failed`; after `started`, `ending` when its process has ended,
// or with proof that it is wedged and will be ended, and `gone` when its group
// has, too. After `failed` and `gone` the
// run is over and no process of its group is left. A plan that is `leaving`
// begins after `started`, which is not reported.
struct BackendEvents {
  std::function<void(StartedBackend)> started;
  std::function<void(StartFailure)> failed;
  std::function<void(std::vector<std::string> wedged)> ending;
  // Nothing leads to its socket any more; it serves those who are connected.
  std::function<void(std::string why)> unreachable;
  // The answer to LookInside.
  std::function<void(InFlight)> looked;
  // The answer to Examine where it works.
  std::function<void(const std::vector<std::string>& evidence)> examined;
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

  virtual const StartPlan& plan() const = 0;
  // 0: no process yet.
  virtual uint32_t pid() const = 0;

  // Asks it to end (SIGTERM), and after the definition's grace ends its group.
  // `failed` or `gone` follows.
  virtual void Stop() = 0;

  // Takes back what leads to it: the route info. Its socket stays for those who
  // are on their way there.
  virtual void Withdraw() = 0;

  // It has given up its lease: as Withdraw, and no successor is to expect it.
  virtual void Release() = 0;

  // It is to leave, for this reason: its journal says so to a successor.
  virtual void NoteLeaving(const std::string& why) = 0;

  // What is it doing? `looked` follows, unless it ends first. After Withdraw,
  // when nothing is in flight, its socket's names are taken away and it is
  // looked at once more, so that nobody comes in after the last look.
  virtual void LookInside() = 0;

  // Somebody saw it fail: looks at it (examination.h). `examined` follows where
  // it works, else `ending` and `gone`; a wedged one's group is ended.
  virtual void Examine() = 0;

  // Its files may have been removed: looks after 300 ms. Route info and journal
  // are written again, and its socket is linked again from the direct endpoint,
  // where that is a link to it. Where nothing leads to it any more,
  // `unreachable` follows.
  virtual void LookAtFiles() = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_BACKEND_RUN_H_
