// The worlds besides the broker's own that it has backends for
// (docs/protocol.md, "Worlds"). Each has the same rules as the own, in a
// machine of its own, and a runtime directory of its own below the broker's,
// with its routes: so nothing of one world can reach another's clients.
#ifndef ZCBROKER_SERVICE_HOST_OTHER_WORLDS_H_
#define ZCBROKER_SERVICE_HOST_OTHER_WORLDS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "ipc/runtime_dir.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "service/core/counters.h"
#include "service/core/machine.h"
#include "service/core/start_plan.h"
#include "service/host/backend_files.h"

namespace zcbroker::service {

struct OtherWorld {
  OtherWorld(uint64_t number, Surroundings surroundings,
             ipc::RuntimeDir runtime, Limits limits, Counters* counters,
             uint64_t seed);

  v1::World world() const { return surroundings.world; }

  // Its starts are those from `number` * kStartsOfAWorld on.
  const uint64_t number;
  ipc::RuntimeDir runtime;
  // Points to `runtime`.
  Surroundings surroundings;
  Machine machine;
};

// Lives on the loop's thread. `own` and `counters` outlive it.
class OtherWorlds {
 public:
  OtherWorlds(Limits limits, const Surroundings& own, Counters* counters)
      : limits_(limits), own_(own), counters_(counters) {}

  // It is the broker's own, as far as it says.
  bool IsOwn(const v1::World& world) const;
  // The one there is, parts that are left empty taken from the own; nullptr:
  // none, the own, or one that cannot be served.
  OtherWorld* Find(const v1::World& world) const;
  // The same, opened where there is none; it knows no catalog then. Worlds that
  // are idle make room. Errors: kFailedPrecondition (Limits::other_worlds are
  // in use, or it is none that can be served), those of
  // RuntimeDir::OpenOrCreateWorld.
  absl::StatusOr<OtherWorld*> Open(const v1::World& world);
  // Whose start that is; nullptr: the own world's, or of one that is closed.
  OtherWorld* WhoseStart(StartId id) const;
  const std::vector<std::unique_ptr<OtherWorld>>& all() const { return all_; }
  // Removes the directories of worlds that an earlier broker had served and
  // nothing was left of.
  void RemoveForgotten() const;
  // Their directories may have been removed: opens them anew.
  void ReopenDirectories();
  // Does a run of it go on? Idle ones are closed only without.
  std::function<bool(const OtherWorld& world)> has_runs =
      [](const OtherWorld&) { return false; };

 private:
  const Limits limits_;
  const Surroundings& own_;
  Counters* const counters_;
  std::vector<std::unique_ptr<OtherWorld>> all_;
  uint64_t opened_ = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_OTHER_WORLDS_H_
