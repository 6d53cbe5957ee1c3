// For a backend that started itself: has its user's broker route clients to it
// for as long as it wants (zcbroker.v1.Broker.Register).
#ifndef ZCBROKER_CLIENT_LEASE_H_
#define ZCBROKER_CLIENT_LEASE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace zcbroker::client {

// What is registered. The calling process must listen at `endpoint` already,
// and run from the binary that a definition names for this version.
struct Registration {
  std::string service;
  std::string version;
  std::string endpoint;
};

// Registers with this user's broker, and registers again whenever the lease has
// ended or could not be had: after 0.1 s, 0.2 s and so on up to 5 s, from the
// beginning once it was had. So it outlives brokers, and waits where there is
// none yet or another backend is there.
//
// It has a thread of its own, since a call that lasts as long as the backend
// has to be waited for.
class Lease {
 public:
  // `changed` is called on that thread: with OK when the broker routes to us,
  // else with why it does not (a refusal carries its name: client/fallback.h).
  static std::unique_ptr<Lease> Keep(
      Registration registration,
      std::function<void(const absl::Status&)> changed =
          [](const absl::Status&) {});
  // Gives it up in order, for which a broker has a second. `changed` is not
  // called after that.
  virtual ~Lease() = default;
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LEASE_H_
