// The rules of the broker, without I/O: negotiation and the life cycle of
// backends. Events go in as calls that name the time; what has to be done comes
// out as effects, in order. The host carries them out (service/host).
//
// Invariants, checked by machine_test over seeded histories: at most one live
// backend per key; every negotiation is answered exactly once, by its deadline;
// a route in Routes() never leads to a backend reported gone; nothing is
// stopped that was not started or adopted.
#ifndef ZCBROKER_SERVICE_CORE_MACHINE_H_
#define ZCBROKER_SERVICE_CORE_MACHINE_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "service/core/catalog.h"
#include "service/core/counters.h"
#include "service/core/outcome.h"
#include "service/core/route_table.h"
#include "service/core/start_plan.h"

namespace zcbroker::service {

// A point on a monotonic clock; the machine has none of its own.
using Time = std::chrono::steady_clock::time_point;
using NegotiationId = uint64_t;

// docs/operations.md, "Limits".
struct Limits {
  size_t waiters_per_start = 4096;
  size_t concurrent_starts = 4;
  // An answer comes by the caller's deadline less `answer_margin`, and after
  // `answer_within` at the latest.
  absl::Duration answer_within = absl::Seconds(10);
  absl::Duration answer_margin = absl::Milliseconds(250);
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration longest_backoff = absl::Seconds(30);
  size_t failures_until_broken = 5;
  absl::Duration failure_window = absl::Minutes(1);
  // How old the catalog may be when a service or a version is called missing
  // or broken.
  absl::Duration catalog_freshness = absl::Seconds(1);
};

// A backend that answered its probe.
struct StartedBackend {
  std::string endpoint;
  uint32_t pid = 0;
  uint64_t start_time = 0;
  std::string boot_id;
  // Found alive, not started by this broker.
  bool adopted = false;
  std::vector<v1::NegotiationStep> steps;
  std::string log_file;
  std::string direct_endpoint;
};

struct StartFailure {
  // One sentence: "exited with status 3 before it was ready".
  std::string text;
  std::vector<std::string> evidence;
  std::string log_file;
  // Something outside stood in the way (a mute process at the endpoint): it
  // says nothing about the binary and does not count towards broken.
  bool transient = false;
};

// Tell the negotiator; every id is answered exactly once.
struct Answer {
  NegotiationId id;
  Outcome outcome;
};
// Adopt or start; report StartSucceeded or StartFailed with the plan's id, and
// BackendGone when it ends after that.
struct StartBackend {
  StartPlan plan;
};
// End the backend and its process group; BackendGone follows.
struct StopBackend {
  StartId id;
};
// Read definitions and binaries again; CatalogLoaded follows.
struct RefreshCatalog {};
// Routes() has changed.
struct RoutesChanged {};

using Effect = std::variant<Answer, StartBackend, StopBackend, RefreshCatalog,
                            RoutesChanged>;
using Effects = std::vector<Effect>;

// Owned by one thread. `counters` outlives the machine.
class Machine {
 public:
  // `seed` varies the jitter of backoffs.
  Machine(Limits limits, v1::World world, Counters* counters, uint64_t seed);

  // --- Events. Effects are appended in the order they are to be carried out.

  // `id` must be new. `deadline` is the caller's; nothing: it has none.
  void Negotiate(NegotiationId id, const v1::NegotiateRequest& request,
                 absl::optional<Time> deadline, Time now, Effects* effects);
  // The caller went away: its id is not answered any more. What it started
  // goes on.
  void Cancel(NegotiationId id);
  // `forgive`: somebody asked for the reading, so what is broken or backs off
  // gets a new chance even where nothing has changed.
  void CatalogLoaded(Catalog catalog, bool forgive, Time now, Effects* effects);
  void StartSucceeded(StartId id, StartedBackend backend, Time now,
                      Effects* effects);
  void StartFailed(StartId id, StartFailure failure, Time now,
                   Effects* effects);
  // A backend that had been ready is ending: its leader is gone, what it left
  // running is not. Nobody is routed to it any more; who asks meanwhile waits.
  void BackendEnding(StartId id, Time now, Effects* effects);
  // A backend that had been ready has ended, with its whole group.
  void BackendGone(StartId id, std::vector<std::string> evidence, Time now,
                   Effects* effects);
  // Time has passed; call at NextDeadline().
  void Tick(Time now, Effects* effects);
  // Refuses what waits and whatever comes later.
  void Shutdown(bool stop_backends, Time now, Effects* effects);

  // --- Questions.

  // When Tick has something to do; nothing: not before the next event.
  absl::optional<Time> NextDeadline() const;
  RouteTable Routes() const;
  // `now` and `wall_now` are the same moment on two clocks.
  v1::ListBackendsResponse ListBackends(Time now, absl::Time wall_now) const;
  const Catalog& catalog() const { return catalog_; }
  std::vector<v1::ServiceSummary> Services() const;
  size_t waiters() const { return waiting_.size(); }
  bool shutting_down() const { return shutting_down_; }

 private:
  // Service, version, binary identity. The world is the broker's own: another
  // one is refused before a key is made.
  using Key = std::tuple<std::string, std::string, std::string>;

  enum class State { kStarting, kReady, kEnding, kBackoff, kBroken, kGone };

  struct Slot {
    State state = State::kGone;
    StartId start = 0;
    uint64_t generation = 0;
    v1::ServiceDefinition definition;
    InstalledVersion version;
    StartedBackend backend;
    Time since;
    // The id of whoever caused the start, then those who joined.
    std::vector<NegotiationId> waiters;
    std::deque<Time> failures;
    Time retry_at;
    StartFailure last_failure;
  };

  struct Waiter {
    v1::NegotiateRequest request;
    Time answer_by;
    // Where it waits; nothing: for the catalog.
    absl::optional<Key> key;
  };

  void Decide(NegotiationId id, const v1::NegotiateRequest& request,
              Time answer_by, bool catalog_is_fresh, Time now,
              Effects* effects);
  void Park(NegotiationId id, const v1::NegotiateRequest& request,
            Time answer_by, Effects* effects);
  void Join(Slot& slot, const Key& key, NegotiationId id,
            const v1::NegotiateRequest& request, Time answer_by);
  void Begin(Slot& slot, Time now, Effects* effects);
  absl::optional<Refused> CheckRequest(const v1::NegotiateRequest& request,
                                       const CatalogService** service,
                                       const InstalledVersion** version) const;
  void AnswerWith(NegotiationId id, Outcome outcome, Effects* effects);
  void RefuseWaiters(Slot& slot, const StartFailure& failure,
                     absl::Duration retry_after, Effects* effects);
  v1::BackendRoute RouteOf(const Slot& slot) const;
  Slot* FindByStart(StartId id);
  Refused StartRefusal(const Slot& slot, const std::string& text,
                       absl::Duration retry_after) const;
  size_t StartsInProgress() const;

  const Limits limits_;
  const v1::World world_;
  Counters* const counters_;
  std::mt19937_64 random_;

  bool catalog_loaded_ = false;
  Time catalog_loaded_at_;
  bool refreshing_ = false;
  bool shutting_down_ = false;
  Catalog catalog_;
  std::map<Key, Slot> slots_;
  std::map<NegotiationId, Waiter> waiting_;
  std::set<std::pair<Time, NegotiationId>> deadlines_;
  StartId next_start_ = 1;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_MACHINE_H_
