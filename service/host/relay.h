// Carries what comes in at public names to the backends, and repeats a request
// on the successor of a backend that died, so that clients that know nothing
// of the broker lose nothing. Source: design section 6; docs/protocol.md,
// "The relay".
//
// Bytes are passed on as they are. Of zccache's messages the relay knows where
// one ends and what may be asked twice (ipc/wire/message_scan.h); what it does
// not understand it passes on both ways without a net.
#ifndef ZCBROKER_SERVICE_HOST_RELAY_H_
#define ZCBROKER_SERVICE_HOST_RELAY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "service/core/counters.h"
#include "service/core/machine.h"
#include "service/core/outcome.h"

namespace zcbroker::service {

// docs/operations.md, "Limits".
struct RelayLimits {
  // Kept of one request until its reply begins; a larger one is passed on
  // without a net. And of all together.
  size_t kept_bytes_each = 1 << 20;
  size_t kept_bytes = 64 << 20;
  // A request that has cost so many backends is not sent again.
  int backends_per_request = 3;
  // A reply outstanding for longer makes the broker look at the backend, again
  // after `look_every`.
  std::chrono::milliseconds patience{1000};
  std::chrono::milliseconds look_every{5000};
  // zccache's clients take a daemon that leaves their Status unanswered for
  // 2 s for wedged: they would stop it and start their own.
  std::chrono::milliseconds status_within{1500};
  // From the first byte of a request to its last.
  std::chrono::milliseconds request_within{5000};
  // How long after its start a broker that took over from a dead one ignores
  // the Shutdown of clients older than itself.
  std::chrono::milliseconds elders_for{0};
};

// How far a backend is. One that leaves has a successor for who waits.
enum class Presence { kNone, kStarting, kReady, kLeaving };

// What the relay asks of the broker. All calls and callbacks on the loop;
// callbacks come later than the call, once each.
class RelayPort {
 public:
  virtual ~RelayPort() = default;
  // The backend, if it is ready.
  virtual absl::optional<v1::BackendRoute> Ready(
      const std::string& service, const std::string& version) = 0;
  // Has one started where none is, if it may.
  virtual NegotiationId Route(const std::string& service,
                              const std::string& version, bool may_start,
                              std::function<void(Outcome)> done) = 0;
  virtual void GiveUp(NegotiationId id) = 0;
  // A backend did not answer, or hung up.
  virtual void Report(const v1::ReportBackendRequest& report,
                      std::function<void(v1::BackendVerdict)> done) = 0;
  virtual Presence PresenceOf(const std::string& service,
                              const std::string& version) = 0;
  // A client believes that it has shut the backend down, and is about to kill
  // it by the number in its lock file and to start its own: zccache 1.11.22
  // does so after 0.2 s and 0.4 s (seen). One of ours must be there by then.
  virtual void Distrusted(const std::string& service,
                          const std::string& version) = 0;
  // A client was told that the backend shuts down, and waits to see its name
  // go.
  virtual void Stopped(const std::string& service,
                       const std::string& version) = 0;
  // A request that process `lost_pid` had not answered is sent again.
  virtual void Replayed(const std::string& service, const std::string& version,
                        uint32_t lost_pid) = 0;
};

// Where a connection came in.
struct RelayedName {
  std::string path;
  std::string service;
  std::string version;
  // It speaks zccache's lanes.
  bool framed = false;
};

// Lives on the loop's thread; `port` and `counters` outlive it.
class Relay {
 public:
  static std::unique_ptr<Relay> Create(asio::io_context& loop,
                                       RelayLimits limits, RelayPort& port,
                                       Counters& counters, v1::World world);
  virtual ~Relay() = default;

  // Takes over a client's connection: nonblocking, of a peer already checked,
  // which is process `peer_pid`.
  virtual void Admit(ipc::UniqueFd client, int peer_pid,
                     const RelayedName& name) = 0;
  // Room for somebody who has something to say: ends those connections that
  // have been idle for longest, `most` at most. Returns how many.
  virtual size_t EndIdle(size_t most) = 0;
  // Lets replies under way arrive, ends everything else, and calls `done` when
  // nothing is left, after `patience` at the latest. Admit no more.
  virtual void Drain(std::chrono::milliseconds patience,
                     std::function<void()> done) = 0;
  // The broker has handed over: serves who is here on, request by request, for
  // as long as `port` has routes, and keeps no connection to a backend between
  // two. A client that says nothing for `idle` is ended, and everybody after
  // `patience`; calls `done` when nothing is left. Admit no more; Drain ends
  // it.
  virtual void ServeOn(std::chrono::milliseconds idle,
                       std::chrono::milliseconds patience,
                       std::function<void()> done) = 0;
  // Closes the connections to a backend on which nothing is under way, the one
  // that is kept for the next request and those of clients between two: what it
  // is doing is looked at. A next request is routed anew.
  virtual void LetGo(uint32_t pid, uint64_t start_time) = 0;
  virtual size_t connections() const = 0;
  // So many at most from now on; those there are stay. Until it is called:
  // ConnectionLimits.
  virtual void SetLimit(size_t connections) = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_RELAY_H_
