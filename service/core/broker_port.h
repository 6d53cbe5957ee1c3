// What the protocol adapters (service/rpc, service/framed) may ask of the
// broker. One implementation, service/host/host.h; tests of the adapters have
// their own.
#ifndef ZCBROKER_SERVICE_CORE_BROKER_PORT_H_
#define ZCBROKER_SERVICE_CORE_BROKER_PORT_H_

#include <functional>
#include <string>

#include "absl/types/optional.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "service/core/counters.h"
#include "service/core/event_log.h"
#include "service/core/machine.h"
#include "service/core/outcome.h"
#include "service/core/route_watch.h"

namespace zcbroker::service {

using LeaseId = NegotiationId;

// A backend by its name. Without a world: of the broker's own.
struct BackendName {
  std::string service;
  std::string version;
  absl::optional<v1::World> world;
};

// Thread-safe. Callbacks run on the broker's loop and must not block; each is
// called exactly once, unless its negotiation was cancelled or the loop has
// ended.
class BrokerPort {
 public:
  virtual ~BrokerPort() = default;

  // The answer where a ready backend can serve the request; asks nobody, so it
  // is right for the calling thread. Counts the negotiation when it answers.
  virtual absl::optional<v1::NegotiateResponse> TryRoute(
      const v1::NegotiateRequest& request) = 0;

  // Can this service have a definition? Asks nobody.
  virtual bool KnowsService(const std::string& name) = 0;

  // Has the rules decide. `deadline` is the caller's.
  virtual NegotiationId Negotiate(v1::NegotiateRequest request,
                                  absl::optional<Time> deadline,
                                  std::function<void(Outcome)> done) = 0;
  // The caller went away. Its callback may still be called, if the answer was
  // on its way; after the loop has seen the call it is not.
  virtual void Cancel(NegotiationId id) = 0;

  // As Negotiate, for the launcher: an empty version stands for the newest that
  // speaks an accepted lane, and the answer is what stands beside the named
  // route.
  virtual void LookUp(v1::NegotiateRequest request,
                      std::function<void(LookupOutcome)> done) = 0;
  // A client saw a backend fail; `deadline` is the caller's.
  virtual void ReportBackend(v1::ReportBackendRequest report,
                             absl::optional<Time> deadline,
                             std::function<void(ReportOutcome)> done) = 0;

  // A backend that started itself: broker.proto, Register. `registered` is
  // called once, with the route, unless it is refused. `ended` is called once
  // the lease has ended, which may be before: with the refusal, or with nothing
  // where the backend has ended or has given it up. Its route is gone by then,
  // unless the broker goes.
  virtual LeaseId Register(
      v1::RegisterRequest request,
      std::function<void(v1::RegisterResponse)> registered,
      std::function<void(absl::optional<Refused>)> ended) = 0;
  // The backend gives it up, or is out of sight. `ended` follows, if it has not
  // been called.
  virtual void EndLease(LeaseId id) = 0;

  // Have a backend started, or ended at once, or when nothing is in flight:
  // admin.proto. `deadline` is the caller's.
  virtual void StartBackend(BackendName name, absl::optional<Time> deadline,
                            std::function<void(BackendOutcome)> done) = 0;
  virtual void StopBackend(BackendName name, absl::optional<Time> deadline,
                           std::function<void(BackendOutcome)> done) = 0;
  virtual void DrainBackend(BackendName name, absl::optional<Time> deadline,
                            std::function<void(BackendOutcome)> done) = 0;

  virtual void GetStatus(std::function<void(v1::GetStatusResponse)> done) = 0;
  virtual void ListBackends(
      std::function<void(v1::ListBackendsResponse)> done) = 0;
  virtual void GetMetrics(std::function<void(v1::GetMetricsResponse)> done) = 0;
  virtual void ReloadDefinitions(
      std::function<void(v1::ReloadDefinitionsResponse)> done) = 0;
  // `done` is called before the broker begins to stop.
  virtual void Shutdown(const v1::ShutdownRequest& request,
                        std::function<void(v1::ShutdownResponse)> done) = 0;

  // What came after the event of that number, at once, or, where there is
  // nothing and `wait` is set, with the next one: EventLog::Read. Answered with
  // none: the broker goes.
  virtual EventLog::ReadId ReadEvents(uint64_t after, bool wait,
                                      EventLog::Done done) = 0;
  // Nobody wants to know any more; `done` may still be called, if it was on its
  // way.
  virtual void ForgetEvents(EventLog::ReadId id) = 0;

  // The ready routes of the broker's own world, once they are others than
  // `seen` (nullptr: at once): RouteWatch::Read. Answered with nullptr: the
  // broker goes.
  virtual RouteWatch::ReadId ReadRoutes(RouteWatch::Table seen,
                                        RouteWatch::Done done) = 0;
  // As ForgetEvents.
  virtual void ForgetRoutes(RouteWatch::ReadId id) = 0;

  virtual Counters& counters() = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_BROKER_PORT_H_
