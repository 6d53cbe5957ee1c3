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
#include "service/core/machine.h"
#include "service/core/outcome.h"

namespace zcbroker::service {

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

  virtual void GetStatus(std::function<void(v1::GetStatusResponse)> done) = 0;
  virtual void ListBackends(
      std::function<void(v1::ListBackendsResponse)> done) = 0;
  virtual void ReloadDefinitions(
      std::function<void(v1::ReloadDefinitionsResponse)> done) = 0;
  // `done` is called before the broker begins to stop.
  virtual void Shutdown(const v1::ShutdownRequest& request,
                        std::function<void(v1::ShutdownResponse)> done) = 0;

  virtual Counters& counters() = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_BROKER_PORT_H_
