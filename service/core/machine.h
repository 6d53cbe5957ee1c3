// The rules of the broker, without I/O: negotiation and the life cycle of
// backends. Events go in as calls that name the time; what has to be done comes
// out as effects, in order. The host carries them out (service/host).
//
// A cache has one writer, so there is at most one live backend per service and
// version: a rebuilt binary of the same version waits for the end of the old
// one's backend (docs/adr/0017-one-slot-per-version.md). tests/simulation
// checks this and what else must always hold over seeded histories.
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
using ReportId = uint64_t;
using RetireId = uint64_t;

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
  // What drains is looked at after the first of these, by when whoever was
  // routed to it has connected, then each time after twice as long.
  absl::Duration first_look = absl::Milliseconds(250);
  absl::Duration longest_look = absl::Seconds(5);
  // Besides its own; none: clients of another world are refused.
  size_t other_worlds = 16;
};

// A backend that answered its probe, or that is leaving and is not asked.
struct StartedBackend {
  std::string endpoint;
  uint32_t pid = 0;
  uint64_t start_time = 0;
  std::string boot_id;
  // Found alive, not started by this broker.
  bool adopted = false;
  // And not by an earlier one either: ended only on request.
  bool foreign = false;
  // It has registered itself.
  bool registered = false;
  std::vector<v1::NegotiationStep> steps;
  std::string log_file;
  std::string direct_endpoint;
  std::string named_route;
};

struct StartFailure {
  // One sentence: "exited with status 3 before it was ready".
  std::string text;
  std::vector<std::string> evidence;
  std::string log_file;
  // Something outside stood in the way (a mute process at the endpoint): it
  // says nothing about the binary and does not count towards broken.
  bool transient = false;
  // Nothing ran, and the plan forbade to start it: no failure at all.
  bool forbidden = false;
  // The broker is short of descriptors: no failure of the backend's either.
  bool short_of_descriptors = false;
};

// What an earlier broker had begun with a backend, and did not see the end of.
struct Leaving {
  StartedBackend backend;
  // Why it drains, or was asked to end.
  std::string why;
  // It was asked to end: it does not wait for what is in flight any more.
  bool asked_to_end = false;
};

// What a backend is doing for somebody.
struct InFlight {
  // To its socket, without those whose client has hung up.
  size_t connections = 0;
  bool running_children = false;
  // Somebody has connected since the last look, even if nobody is connected
  // now; the first look tells since the backend became ready.
  bool used = false;
  // Why nothing could be told, which counts as in flight; else empty.
  std::string unknown;

  bool any() const {
    return connections > 0 || running_children || !unknown.empty();
  }
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
// Nobody may find the way to it any more: its route info goes.
struct WithdrawBackend {
  StartId id;
};
// It is to leave, for this reason, now or once it has started: a successor of
// this broker has to know.
struct NoteLeaving {
  StartId id;
  std::string why;
};
// Tell what it is doing: Looked follows, unless it ends before. Once withdrawn,
// nothing in flight is final: its socket is out of reach before it is said.
struct LookAtBackend {
  StartId id;
  // Which process that is.
  uint32_t pid = 0;
  uint64_t start_time = 0;
};
// A client saw it fail: look at it. Examined follows where it works after all,
// BackendEnding where it does not.
struct ExamineBackend {
  StartId id;
};
// Tell who reported; every report is answered exactly once.
struct AnswerReport {
  ReportId id;
  ReportOutcome outcome;
};
// The backend that somebody wanted to end is gone, or the time to answer is
// over: DescribeBackend tells which; or the request was refused.
struct AnswerRetire {
  RetireId id;
  absl::optional<Refused> refused;
};
// It is of another world that this broker can serve: the machine of that world
// is to answer it, by PassedOn.
struct PassOn {
  NegotiationId id;
  // With every part of its world.
  v1::NegotiateRequest request;
  Time answer_by;
};
// Read definitions and binaries again; CatalogLoaded follows.
struct RefreshCatalog {};
// Routes() has changed.
struct RoutesChanged {};

using Effect =
    std::variant<Answer, StartBackend, StopBackend, WithdrawBackend,
                 NoteLeaving, LookAtBackend, ExamineBackend, AnswerReport,
                 AnswerRetire, PassOn, RefreshCatalog, RoutesChanged>;
using Effects = std::vector<Effect>;

// Owned by one thread. `counters` outlives the machine.
class Machine {
 public:
  // `seed` varies the jitter of backoffs. `first_start`: what machines of other
  // worlds count their starts from, so that a host can tell whose one is.
  Machine(Limits limits, v1::World world, Counters* counters, uint64_t seed,
          StartId first_start = 1);

  // --- Events. Effects are appended in the order they are to be carried out.

  // `id` must be new. `deadline` is the caller's; nothing: it has none.
  void Negotiate(NegotiationId id, const v1::NegotiateRequest& request,
                 absl::optional<Time> deadline, Time now, Effects* effects);
  // The same for the newest installed version that speaks an accepted lane;
  // wanted_version is empty.
  void NegotiateNewest(NegotiationId id, const v1::NegotiateRequest& request,
                       absl::optional<Time> deadline, Time now,
                       Effects* effects);
  // The same for somebody who wants it started: what is broken or backs off
  // gets a new chance.
  void Start(NegotiationId id, const v1::NegotiateRequest& request,
             absl::optional<Time> deadline, Time now, Effects* effects);
  // A backend that started itself asks for a lease, `id`, which must be new. It
  // is answered like a negotiation; when it is there, its StartPlan names the
  // lease. Whoever asks for that service and version meanwhile waits. After the
  // first CatalogLoaded.
  void Register(NegotiationId id, const v1::RegisterRequest& request, Time now,
                Effects* effects);
  // Somebody wants it ended: at once, or when nothing is in flight. `id` must
  // be new; answered exactly once, when it is gone or by `deadline` (nothing:
  // in 10 s).
  void Stop(RetireId id, const std::string& service, const std::string& version,
            absl::optional<Time> deadline, Time now, Effects* effects);
  void Drain(RetireId id, const std::string& service,
             const std::string& version, absl::optional<Time> deadline,
             Time now, Effects* effects);
  // What the machine of another world answered with PassOn.
  void PassedOn(NegotiationId id, const v1::NegotiateRequest& request,
                Time answer_by, Time now, Effects* effects);
  // The caller went away: its id is not answered any more. What it started
  // goes on.
  void Cancel(NegotiationId id);
  // `forgive`: somebody asked for the reading, so what is broken or backs off
  // gets a new chance even where nothing has changed.
  void CatalogLoaded(Catalog catalog, bool forgive, Time now, Effects* effects);
  // An earlier broker's backend runs, perhaps of another binary than is
  // installed now, or of a version that is not, or is blocked. It is adopted,
  // never started anew for it, and then treated like any other. One that is
  // `leaving` goes on with that, and nobody is routed to it. Before the first
  // CatalogLoaded, which would start another beside it.
  void GoOnWith(const v1::ServiceDefinition& definition,
                InstalledVersion version, absl::optional<Leaving> leaving,
                Time now, Effects* effects);
  // An earlier broker's backend had registered itself and runs: it is about to
  // register again, so none is started beside it; who asks waits. Before the
  // first CatalogLoaded. Ends when it is there, or with ExpectNoMore.
  void Expect(const std::string& service, const std::string& version);
  // It has ended, or does not come: who waits may have another one started.
  void ExpectNoMore(const std::string& service, const std::string& version,
                    Time now, Effects* effects);
  void StartSucceeded(StartId id, StartedBackend backend, Time now,
                      Effects* effects);
  void StartFailed(StartId id, StartFailure failure, Time now,
                   Effects* effects);
  // A backend that had been ready is ending: its leader is gone, what it left
  // running is not; or it was found wedged, which `wedged` proves, and is about
  // to be ended. Nobody is routed to it any more; who asks meanwhile waits.
  void BackendEnding(StartId id, std::vector<std::string> wedged, Time now,
                     Effects* effects);
  // Nobody can connect to it any more, for this reason; what is in flight goes
  // on: it drains.
  void BackendUnreachable(StartId id, std::string why, Time now,
                          Effects* effects);
  // A backend that had been ready has ended, with its whole group.
  void BackendGone(StartId id, std::vector<std::string> evidence, Time now,
                   Effects* effects);
  // A registered backend has given its lease up: nobody is routed to it any
  // more, who asks waits. False where it is being ended, or was never there:
  // then nothing is to be done.
  bool GiveUpLease(StartId id, Time now, Effects* effects);
  // It has not ended meanwhile. Its process may live on, so who had reported it
  // is not told that it is gone. The next one may start.
  void LeaseEnded(StartId id, Time now, Effects* effects);
  // A client saw a backend fail. `id` must be new. Answered when the backend
  // was looked at: busy, or gone once its group is; by `deadline` (nothing: in
  // 10 s) busy.
  void Report(ReportId id, const v1::ReportBackendRequest& report,
              absl::optional<Time> deadline, Time now, Effects* effects);
  // The backend was looked at and works.
  void Examined(StartId id, const std::vector<std::string>& evidence, Time now,
                Effects* effects);
  // What was seen in answer to LookAtBackend.
  void Looked(StartId id, InFlight seen, Time now, Effects* effects);
  // Time has passed; call at NextDeadline().
  void Tick(Time now, Effects* effects);
  // Nobody is to wait any more, now or later: who wants a backend that is not
  // ready, or registers one, is refused with SHUTTING_DOWN, who reported one
  // hears that it is busy, who wants one ended how far that is. What is ready
  // is routed to.
  void Hurry(Effects* effects);
  // Refuses what waits and whatever comes later.
  void Shutdown(bool stop_backends, Time now, Effects* effects);

  // --- Questions.

  // When Tick has something to do; nothing: not before the next event.
  absl::optional<Time> NextDeadline() const;
  RouteTable Routes() const;
  // `now` and `wall_now` are the same moment on two clocks.
  v1::ListBackendsResponse ListBackends(Time now, absl::Time wall_now) const;
  // One row of it; GONE where there never was one.
  v1::Backend DescribeBackend(const std::string& service,
                              const std::string& version, Time now,
                              absl::Time wall_now) const;
  const Catalog& catalog() const { return catalog_; }
  std::vector<v1::ServiceSummary> Services() const;
  size_t waiters() const { return waiting_.size(); }
  bool hurried() const { return hurried_; }
  // How far the backend of this service at this version is: STARTING, READY,
  // DRAINING, ENDING; else UNSPECIFIED.
  v1::BackendState StateOf(const std::string& service,
                           const std::string& version) const;
  // Is the report about one of its backends, alive or ended?
  bool Knows(const v1::ReportBackendRequest& report) {
    return FindReported(report) != nullptr;
  }
  // Is one to register itself there (Expect)?
  bool Expects(const std::string& service, const std::string& version) const;
  // Nothing runs, nothing is awaited: it can be forgotten.
  bool idle() const;
  // Where it listens, while it is ready or drains; nothing for one that has
  // registered itself, which a broker that leaves cannot hand on.
  absl::optional<std::string> EndpointToLeave(const std::string& service,
                                              const std::string& version) const;

 private:
  // Service and version. The world is the machine's: another one is passed on
  // or refused before a key is made.
  using Key = std::pair<std::string, std::string>;

  enum class State {
    kStarting,
    kReady,
    kDraining,
    kEnding,
    kBackoff,
    kBroken,
    kGone
  };

  // kBackoff or kBroken, and by what: a change of that is a new chance.
  struct FailedBefore {
    State state;
    v1::ServiceDefinition definition;
    InstalledVersion version;
  };

  struct Slot {
    State state = State::kGone;
    StartId start = 0;
    uint64_t generation = 0;
    v1::ServiceDefinition definition;
    InstalledVersion version;
    StartedBackend backend;
    Time since;
    // Who registers it, while it is being looked at; 0: it is started.
    NegotiationId registrant = 0;
    // What had failed before that, and still has if it cannot be registered.
    absl::optional<FailedBefore> failed_before;
    // An earlier broker's backend had registered itself and is to come back.
    bool expected = false;
    // The id of whoever caused the start, then those who joined.
    std::vector<NegotiationId> waiters;
    std::deque<Time> failures;
    Time retry_at;
    StartFailure last_failure;
    // Who waits to hear what became of the backend. While it is ready and this
    // is not empty, it is suspect.
    std::vector<ReportId> reporters;
    // Why it is being ended, where it was found wedged.
    std::vector<std::string> wedged;
    // Why it is drained or stopped, or is to be once it has started.
    std::string leaving;
    // Starting means only to go on with what an earlier broker left.
    bool adopting = false;
    // Who waits to hear that it is gone.
    std::vector<RetireId> retirers;
    // When to look at what is in flight; nothing: not, or a look is under way.
    absl::optional<Time> look_at;
    absl::Duration look_pause;
    // At the last look; nothing: there was none yet.
    absl::optional<InFlight> in_flight;
    Time used_at;
    std::string last_end;
    // Process id and start time of those that have ended, the latest last.
    std::deque<std::pair<uint32_t, uint64_t>> ended;
  };

  struct Waiter {
    v1::NegotiateRequest request;
    Time answer_by;
    // Where it waits; nothing: for the catalog.
    absl::optional<Key> key;
  };

  void Decide(NegotiationId id, const v1::NegotiateRequest& asked,
              Time answer_by, bool catalog_is_fresh, Time now,
              Effects* effects);
  // Fills in the version of a request for the newest. A refusal where none
  // fits.
  absl::optional<Refused> ChooseNewest(v1::NegotiateRequest* request) const;
  void Park(NegotiationId id, const v1::NegotiateRequest& request,
            Time answer_by, Effects* effects);
  void Join(Slot& slot, const Key& key, NegotiationId id,
            const v1::NegotiateRequest& request, Time answer_by);
  void Begin(Slot& slot, std::string only_adopt, Time now, Effects* effects,
             absl::optional<Registration> registration = absl::nullopt,
             const std::string& traceparent = "");
  void RegistrationFailed(Slot& slot, const StartFailure& failure, Time now,
                          Effects* effects);
  absl::optional<Refused> CheckRequest(const v1::NegotiateRequest& request,
                                       const CatalogService** service,
                                       const InstalledVersion** version) const;
  void AnswerWith(NegotiationId id, Outcome outcome, Effects* effects);
  Slot* FindReported(const v1::ReportBackendRequest& report);
  void RefuseForEnd(NegotiationId id, const v1::NegotiateRequest& asked,
                    Effects* effects);
  // After a decision: who would wait after Hurry is refused instead.
  void RefuseIfHurried(NegotiationId id, const v1::NegotiateRequest& asked,
                       Effects* effects);
  void AnswerReporters(Slot& slot, v1::BackendVerdict verdict,
                       const std::vector<std::string>& evidence,
                       Effects* effects);
  void Retire(RetireId id, const Key& key, absl::optional<Time> deadline,
              Time now, Effects* effects);
  void AnswerRetirers(Slot& slot, const absl::optional<Refused>& refused,
                      Effects* effects);
  void SetLeaving(Slot& slot, std::string why, Effects* effects);
  void BeginDrain(Slot& slot, std::string why, Time now, Effects* effects);
  void End(Slot& slot, Time now, Effects* effects);
  // The end of whatever ran behind this slot.
  void Ended(Slot& slot, std::vector<std::string> evidence, Time now,
             Effects* effects);
  // Why what runs there may not go on; empty: it may.
  std::string ReasonToLeave(const Key& key, const Slot& slot) const;
  bool IsBlocked(const Key& key) const;
  // Unused for so long it is stopped.
  absl::Duration IdleLimit(const Key& key, const Slot& slot) const;
  void LookWhenIdle(const Key& key, Slot& slot, Time now) const;
  const InstalledVersion* FindInstalled(const Key& key) const;
  v1::Backend RowOf(const Key& key, const Slot& slot, Time now,
                    absl::Time wall_now) const;
  const Slot* FindSlot(const Key& key) const;
  void DecideAgain(Slot& slot, Time now, Effects* effects);
  Time AnswerBy(absl::optional<Time> deadline, Time now) const;
  void RefuseWaiters(Slot& slot, const Refused& refused, Effects* effects);
  v1::BackendRoute RouteOf(const Slot& slot) const;
  std::pair<const Key, Slot>* FindByStart(StartId id);
  Refused StartRefusal(const Slot& slot, const std::string& text,
                       absl::Duration retry_after) const;
  size_t StartsInProgress() const;
  size_t ConcurrentStarts() const;
  size_t WaitersPerStart() const;

  const Limits limits_;
  const v1::World world_;
  Counters* const counters_;
  std::mt19937_64 random_;

  bool catalog_loaded_ = false;
  Time catalog_loaded_at_;
  bool refreshing_ = false;
  bool hurried_ = false;
  bool shutting_down_ = false;
  Catalog catalog_;
  std::map<Key, Slot> slots_;
  std::map<NegotiationId, Waiter> waiting_;
  // Those that want the newest version.
  std::set<NegotiationId> newest_;
  std::set<std::pair<Time, NegotiationId>> deadlines_;
  std::set<std::pair<Time, ReportId>> report_deadlines_;
  std::set<std::pair<Time, RetireId>> retire_deadlines_;
  StartId next_start_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_MACHINE_H_
