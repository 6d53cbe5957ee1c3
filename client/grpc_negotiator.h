// Negotiation over gRPC with zcbroker.v1.Broker: the library's default. The
// only place of the client that knows gRPC.
#ifndef ZCBROKER_CLIENT_GRPC_NEGOTIATOR_H_
#define ZCBROKER_CLIENT_GRPC_NEGOTIATOR_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/errors.pb.h"

namespace zcbroker::client {

// As the protocol has it.
zcbroker::v1::World ToProto(const World& world);

// Connects itself, checks the socket's owner, and only then hands the
// connection to gRPC; a connection per negotiation. The broker sends initial
// metadata at once. Without it by the contact budget its health is asked for
// on the framed lane (CheckBrokerHealth), for a gRPC server that is just being
// built may be late on a busy machine; only if that is silent for a contact
// budget, too, is the broker mute.
// Like all of gRPC's, not for use between fork and exec.
class GrpcNegotiator : public BrokerNegotiator {
 public:
  explicit GrpcNegotiator(ipc::Endpoint broker, NegotiationBudgets budgets = {})
      : broker_(std::move(broker)), budgets_(budgets) {}

  absl::StatusOr<BackendRoute> Negotiate(
      const NegotiationRequest& request) override;
  const ipc::Endpoint& broker() const override { return broker_; }

 private:
  bool IsAlive(ipc::Deadline deadline) const;

  const ipc::Endpoint broker_;
  const NegotiationBudgets budgets_;
};

// For ConnectOptions::negotiator: the broker of the runtime directory.
NegotiatorFactory GrpcBroker(NegotiationBudgets budgets = {});

// The broker's refusal as an error with its name and facts, from what a
// grpc::Status holds; nothing where that is no refusal.
absl::optional<absl::Status> RefusalFrom(int code, absl::string_view message,
                                         const std::string& error_details);

// The facts of a refusal that came over gRPC; nothing for other errors.
absl::optional<zcbroker::v1::RefusalDetail> RefusalDetailOf(
    const absl::Status& status);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_GRPC_NEGOTIATOR_H_
