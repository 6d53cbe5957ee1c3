// The framed v1 protocol (spec broker-v1): one request frame in, one reply
// frame out. No I/O; service/host/front_door reads and writes.
#ifndef ZCBROKER_SERVICE_FRAMED_FRAMED_ADAPTER_H_
#define ZCBROKER_SERVICE_FRAMED_FRAMED_ADAPTER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "ipc/frame/envelope.h"
#include "ipc/peer_identity.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "service/core/broker_port.h"
#include "service/framed/admin_bodies.h"

namespace zcbroker::service {

// Lives on the loop's thread.
class FramedAdapter {
 public:
  // The bytes to write before the connection is closed; empty: close it
  // without an answer, as upstream does with an admin frame that makes no
  // sense.
  using Reply = std::function<void(std::string bytes)>;
  // The world of a peer's process; what cannot be read is a field that never
  // equals ours.
  using WorldOf = std::function<v1::World(int pid)>;

  FramedAdapter(BrokerPort& port, WorldOf world_of, ServiceDefDir upstream_dir);

  // `body` is a whole frame's, borrowed for the call. `reply` is called once,
  // now or when the negotiation is decided.
  void Handle(absl::string_view body, const ipc::PeerIdentity& peer,
              Reply reply);

  // What to answer where no whole frame arrived; counts it.
  std::string AnswerFault(ipc::FrameFault fault);

 private:
  void HandleHello(const running_process::broker::v1::Frame& frame,
                   const ipc::PeerIdentity& peer, Reply reply);
  // The private lane (proto/zcbroker/v1/launcher.proto).
  void HandleLauncher(const running_process::broker::v1::Frame& frame,
                      Reply reply);
  // Asks the broker for what admin verbs tell of it.
  void WithFacts(std::function<void(const AdminFacts&)> tell);
  void HandleAdmin(const running_process::broker::v1::Frame& frame,
                   const Reply& reply);
  std::string EncodeOutcome(const running_process::broker::v1::Frame& frame,
                            uint64_t keepalive_secs, const Outcome& outcome);

  BrokerPort& port_;
  const WorldOf world_of_;
  const ServiceDefDir upstream_dir_;
  uint64_t next_connection_id_ = 1;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_FRAMED_FRAMED_ADAPTER_H_
