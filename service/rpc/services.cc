#include "service/rpc/services.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/types/optional.h"
#include "grpcpp/server_context.h"
#include "service/rpc/refusal_status.h"

namespace zcbroker::service {
namespace {

// The caller's deadline on the clock of the rules.
absl::optional<Time> DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return absl::nullopt;
  }
  const auto left = deadline - std::chrono::system_clock::now();
  // A deadline of centuries would overflow the sum below.
  if (left > std::chrono::hours(24)) return absl::nullopt;
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<Time::duration>(left);
}

// One negotiation that had to ask the rules. gRPC owns it from construction to
// OnDone. The answer and the cancellation may come at once, from two threads:
// whichever is first finishes the call.
class NegotiateReactor final : public grpc::ServerUnaryReactor {
 public:
  explicit NegotiateReactor(v1::NegotiateResponse* response)
      : shared_(std::make_shared<Shared>()) {
    shared_->reactor = this;
    shared_->response = response;
    // Tells the caller that somebody is there, however long the start takes.
    StartSendInitialMetadata();
  }

  void Ask(BrokerPort& port, v1::NegotiateRequest request,
           absl::optional<Time> deadline) {
    port_ = &port;
    const auto shared = shared_;
    id_ = port.Negotiate(
        std::move(request), deadline,
        [shared](Outcome outcome) { shared->Finish(std::move(outcome)); });
  }

  void OnCancel() override {
    // The id may not be stored yet when the call is cancelled at once; the
    // rules then answer a call that has ended, which is harmless.
    if (port_ != nullptr && id_ != 0) port_->Cancel(id_);
    shared_->Finish(absl::nullopt);
  }

  void OnDone() override { delete this; }

 private:
  // Outlives the reactor for as long as the rules may still answer.
  struct Shared {
    void Finish(absl::optional<Outcome> outcome) {
      NegotiateReactor* finishing = nullptr;
      {
        std::lock_guard<std::mutex> lock(mutex);
        finishing = std::exchange(reactor, nullptr);
      }
      if (finishing == nullptr) return;
      if (!outcome.has_value()) {
        finishing->grpc::ServerUnaryReactor::Finish(grpc::Status::CANCELLED);
      } else if (const auto* refused = std::get_if<Refused>(&*outcome)) {
        finishing->grpc::ServerUnaryReactor::Finish(ToGrpcStatus(*refused));
      } else {
        *response = std::get<v1::NegotiateResponse>(*std::move(outcome));
        finishing->grpc::ServerUnaryReactor::Finish(grpc::Status::OK);
      }
    }

    std::mutex mutex;
    NegotiateReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;
    // gRPC's; valid until the reactor is finished.
    v1::NegotiateResponse* response = nullptr;
  };

  const std::shared_ptr<Shared> shared_;
  BrokerPort* port_ = nullptr;
  std::atomic<NegotiationId> id_{0};
};

// Asks with `ask` and finishes the call with the answer. The question is not
// taken back when the caller leaves: it is short.
template <typename Response, typename Ask>
grpc::ServerUnaryReactor* Relay(grpc::CallbackServerContext* context,
                                Response* response, Ask ask) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  ask([reactor, response](Response answer) {
    *response = std::move(answer);
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* BrokerService::Negotiate(
    grpc::CallbackServerContext* context, const v1::NegotiateRequest* request,
    v1::NegotiateResponse* response) {
  if (auto ready = port_.TryRoute(*request)) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    *response = *std::move(ready);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  auto* reactor = new NegotiateReactor(response);
  reactor->Ask(port_, *request, DeadlineOf(*context));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetStatus(
    grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
    v1::GetStatusResponse* response) {
  return Relay(context, response,
               [this](auto done) { port_.GetStatus(std::move(done)); });
}

grpc::ServerUnaryReactor* AdminService::ListBackends(
    grpc::CallbackServerContext* context, const v1::ListBackendsRequest*,
    v1::ListBackendsResponse* response) {
  return Relay(context, response,
               [this](auto done) { port_.ListBackends(std::move(done)); });
}

grpc::ServerUnaryReactor* AdminService::ReloadDefinitions(
    grpc::CallbackServerContext* context, const v1::ReloadDefinitionsRequest*,
    v1::ReloadDefinitionsResponse* response) {
  return Relay(context, response,
               [this](auto done) { port_.ReloadDefinitions(std::move(done)); });
}

grpc::ServerUnaryReactor* AdminService::Shutdown(
    grpc::CallbackServerContext* context, const v1::ShutdownRequest* request,
    v1::ShutdownResponse* response) {
  return Relay(context, response, [this, request](auto done) {
    port_.Shutdown(*request, std::move(done));
  });
}

}  // namespace zcbroker::service
