// Negotiation over the framed v1 protocol: one Hello, one reply. Spoken by our
// broker and by upstream's; needs no gRPC. Source: spec broker-v1 1 to 5.
#ifndef ZCBROKER_CLIENT_FRAMED_NEGOTIATOR_H_
#define ZCBROKER_CLIENT_FRAMED_NEGOTIATOR_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"

namespace zcbroker::client {

// The second opinion on a silent broker: OK if its admin lane answers HEALTHZ
// by `contact`, over a connection of its own. Its loop answers that itself,
// however busy the machine is. Errors: those of ConnectBroker, kBrokerMute,
// kBrokerClosed, kBrokerGarbage, kBrokerWrongReply.
absl::Status CheckBrokerHealth(const ipc::Endpoint& broker,
                               ipc::Deadline contact);

// A Hello has no early sign of life, so after the contact budget in silence
// the broker's health is asked for on a second connection, with a contact
// budget of its own; only if that is silent too is the broker mute.
// The protocol has no field for accepted lanes, start policy and world: the
// broker reads a framed client's world from its environment.
class FramedNegotiator : public BrokerNegotiator {
 public:
  explicit FramedNegotiator(ipc::Endpoint broker,
                            NegotiationBudgets budgets = {})
      : broker_(std::move(broker)), budgets_(budgets) {}

  absl::StatusOr<BackendRoute> Negotiate(
      const NegotiationRequest& request) override;
  const ipc::Endpoint& broker() const override { return broker_; }

 private:
  const ipc::Endpoint broker_;
  const NegotiationBudgets budgets_;
};

// For ConnectOptions::negotiator: the broker of the runtime directory.
NegotiatorFactory FramedBroker(NegotiationBudgets budgets = {});

// The same for whoever serves running-process clients: upstream's broker, or
// ours under that name.
NegotiatorFactory SharedFramedBroker(NegotiationBudgets budgets = {});

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_FRAMED_NEGOTIATOR_H_
