#include "service/rpc/services.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/types/optional.h"
#include "grpcpp/server_context.h"
#include "service/core/outcome.h"
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

// One call that had to ask the rules, which may refuse. gRPC owns it from
// construction to OnDone. The answer and the cancellation may come at once,
// from two threads: whichever is first finishes the call.
template <typename Response>
class RulesReactor final : public grpc::ServerUnaryReactor {
 public:
  using Answered = std::variant<Response, Refused>;

  explicit RulesReactor(Response* response)
      : shared_(std::make_shared<Shared>()) {
    shared_->reactor = this;
    shared_->response = response;
    // Tells the caller that somebody is there, however long the start takes.
    StartSendInitialMetadata();
  }

  // `ask` asks the rules with the callback it is given; `cancel` takes the
  // question back.
  template <typename Ask>
  void Begin(Ask ask, std::function<void()> cancel) {
    cancel_ = std::move(cancel);
    const auto shared = shared_;
    ask([shared](Answered answered) { shared->Finish(std::move(answered)); });
  }

  void OnCancel() override {
    if (cancel_) cancel_();
    shared_->Finish(absl::nullopt);
  }

  void OnDone() override { delete this; }

 private:
  // Outlives the reactor for as long as the rules may still answer.
  struct Shared {
    void Finish(absl::optional<Answered> outcome) {
      RulesReactor* finishing = nullptr;
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
        *response = std::get<Response>(*std::move(outcome));
        finishing->grpc::ServerUnaryReactor::Finish(grpc::Status::OK);
      }
    }

    std::mutex mutex;
    RulesReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;
    // gRPC's; valid until the reactor is finished.
    Response* response = nullptr;
  };

  const std::shared_ptr<Shared> shared_;
  std::function<void()> cancel_;
};

// One lease. gRPC owns it from construction to OnDone. The rules and the caller
// may end it at once, from two threads: whichever is first finishes the call.
class LeaseReactor final
    : public grpc::ServerBidiReactor<v1::RegisterRequest,
                                     v1::RegisterResponse> {
 public:
  explicit LeaseReactor(BrokerPort& port)
      : port_(port), shared_(std::make_shared<Shared>()) {
    shared_->reactor = this;
    StartSendInitialMetadata();
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok && !asked_) {
      shared_->Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                                   "ended before it said what it registers"));
      return;
    }
    if (!ok) {
      // Finished when its route is gone.
      port_.EndLease(lease_);
      return;
    }
    if (!std::exchange(asked_, true)) {
      lease_ = port_.Register(
          std::move(request_),
          [shared = shared_](v1::RegisterResponse response) {
            shared->Write(std::move(response));
          },
          [shared = shared_](const absl::optional<Refused>& why) {
            shared->Finish(why.has_value() ? ToGrpcStatus(*why)
                                           : grpc::Status::OK);
          });
    }
    StartRead(&request_);
  }

  void OnCancel() override {
    const LeaseId lease = lease_;
    if (lease != 0) port_.EndLease(lease);
    shared_->Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 private:
  // Outlives the reactor for as long as the rules may have something to say.
  struct Shared {
    void Write(v1::RegisterResponse said) {
      // Finishing waits, so that the reactor is there.
      std::lock_guard<std::mutex> lock(mutex);
      if (reactor == nullptr) return;
      response = std::move(said);
      reactor->StartWrite(&response);
    }
    void Finish(const grpc::Status& status) {
      LeaseReactor* finishing = nullptr;
      {
        std::lock_guard<std::mutex> lock(mutex);
        finishing = std::exchange(reactor, nullptr);
      }
      if (finishing != nullptr) {
        finishing->grpc::ServerBidiReactor<
            v1::RegisterRequest, v1::RegisterResponse>::Finish(status);
      }
    }

    std::mutex mutex;
    LeaseReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;
    v1::RegisterResponse response;
  };

  BrokerPort& port_;
  const std::shared_ptr<Shared> shared_;
  v1::RegisterRequest request_;
  // Of the reading side only.
  bool asked_ = false;
  // 0: none yet. A call that is cancelled at once is read to its end, too.
  std::atomic<LeaseId> lease_{0};
};

// Somebody who reads events, at its own pace: what is next is asked for when
// the last was written. gRPC owns it from construction to OnDone.
class EventsReactor final
    : public grpc::ServerWriteReactor<v1::StreamEventsResponse> {
 public:
  EventsReactor(BrokerPort& port, const v1::StreamEventsRequest& request)
      : port_(port),
        follow_(request.follow()),
        after_(request.after()),
        shared_(std::make_shared<Shared>()) {
    shared_->reactor = this;
    StartSendInitialMetadata();
    ReadOn();
  }

  void OnWriteDone(bool ok) override {
    if (ok) ReadOn();
  }

  void OnCancel() override {
    port_.ForgetEvents(read_);
    shared_->Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 private:
  // Outlives the reactor for as long as there may be an answer.
  struct Shared {
    void Write(v1::StreamEventsResponse said) {
      // Finishing waits, so that the reactor is there.
      std::lock_guard<std::mutex> lock(mutex);
      if (reactor == nullptr) return;
      reactor->after_ = said.events(said.events_size() - 1).sequence();
      response = std::move(said);
      reactor->StartWrite(&response);
    }
    void Finish(const grpc::Status& status) {
      EventsReactor* finishing = nullptr;
      {
        std::lock_guard<std::mutex> lock(mutex);
        finishing = std::exchange(reactor, nullptr);
      }
      if (finishing != nullptr) {
        finishing->grpc::ServerWriteReactor<v1::StreamEventsResponse>::Finish(
            status);
      }
    }

    std::mutex mutex;
    EventsReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;
    v1::StreamEventsResponse response;
  };

  void ReadOn() {
    read_ = port_.ReadEvents(
        after_, follow_,
        [shared = shared_, follow = follow_](v1::StreamEventsResponse said) {
          if (!said.events().empty()) {
            shared->Write(std::move(said));
          } else if (follow) {
            shared->Finish(
                ToGrpcStatus(Refuse(v1::REFUSAL_SHUTTING_DOWN,
                                    "the broker is going away", "", "")));
          } else {
            shared->Finish(grpc::Status::OK);
          }
        });
  }

  BrokerPort& port_;
  const bool follow_;
  // Written before the write that calls ReadOn again.
  uint64_t after_;
  const std::shared_ptr<Shared> shared_;
  std::atomic<EventLog::ReadId> read_{0};
};

// A call about one backend: asks with `ask`, a method of BrokerPort. What it
// asks for is carried out also when the caller leaves.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* AskAboutBackend(
    BrokerPort& port,
    void (BrokerPort::*ask)(BackendName, absl::optional<Time>,
                            std::function<void(BackendOutcome)>),
    const grpc::CallbackServerContext& context, const Request& request,
    Response* response) {
  auto* reactor = new RulesReactor<Response>(response);
  reactor->Begin(
      [&](auto done) {
        BackendName name{request.service(), request.version(), absl::nullopt};
        if (request.has_world()) name.world = request.world();
        (port.*ask)(std::move(name), DeadlineOf(context),
                    [done = std::move(done)](BackendOutcome outcome) {
                      if (auto* refused = std::get_if<Refused>(&outcome)) {
                        done(std::move(*refused));
                        return;
                      }
                      Response answer;
                      *answer.mutable_backend() =
                          std::get<v1::Backend>(std::move(outcome));
                      done(std::move(answer));
                    });
      },
      nullptr);
  return reactor;
}

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
  auto* reactor = new RulesReactor<v1::NegotiateResponse>(response);
  // The id may not be stored yet when the call is cancelled at once; the rules
  // then answer a call that has ended, which is harmless.
  const auto id = std::make_shared<std::atomic<NegotiationId>>(0);
  reactor->Begin(
      [&](auto done) {
        *id = port_.Negotiate(*request, DeadlineOf(*context), std::move(done));
      },
      [&port = port_, id] {
        if (*id != 0) port.Cancel(*id);
      });
  return reactor;
}

grpc::ServerUnaryReactor* BrokerService::ReportBackend(
    grpc::CallbackServerContext* context,
    const v1::ReportBackendRequest* request,
    v1::ReportBackendResponse* response) {
  auto* reactor = new RulesReactor<v1::ReportBackendResponse>(response);
  reactor->Begin(
      [&](auto done) {
        port_.ReportBackend(*request, DeadlineOf(*context), std::move(done));
      },
      nullptr);
  return reactor;
}

grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>*
BrokerService::Register(grpc::CallbackServerContext*) {
  return new LeaseReactor(port_);
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

grpc::ServerUnaryReactor* AdminService::StartBackend(
    grpc::CallbackServerContext* context,
    const v1::StartBackendRequest* request,
    v1::StartBackendResponse* response) {
  return AskAboutBackend(port_, &BrokerPort::StartBackend, *context, *request,
                         response);
}

grpc::ServerUnaryReactor* AdminService::StopBackend(
    grpc::CallbackServerContext* context, const v1::StopBackendRequest* request,
    v1::StopBackendResponse* response) {
  return AskAboutBackend(port_, &BrokerPort::StopBackend, *context, *request,
                         response);
}

grpc::ServerUnaryReactor* AdminService::DrainBackend(
    grpc::CallbackServerContext* context,
    const v1::DrainBackendRequest* request,
    v1::DrainBackendResponse* response) {
  return AskAboutBackend(port_, &BrokerPort::DrainBackend, *context, *request,
                         response);
}

grpc::ServerUnaryReactor* AdminService::GetMetrics(
    grpc::CallbackServerContext* context, const v1::GetMetricsRequest*,
    v1::GetMetricsResponse* response) {
  return Relay(context, response,
               [this](auto done) { port_.GetMetrics(std::move(done)); });
}

grpc::ServerUnaryReactor* AdminService::ReloadDefinitions(
    grpc::CallbackServerContext* context, const v1::ReloadDefinitionsRequest*,
    v1::ReloadDefinitionsResponse* response) {
  return Relay(context, response,
               [this](auto done) { port_.ReloadDefinitions(std::move(done)); });
}

grpc::ServerWriteReactor<v1::StreamEventsResponse>* AdminService::StreamEvents(
    grpc::CallbackServerContext*, const v1::StreamEventsRequest* request) {
  return new EventsReactor(port_, *request);
}

grpc::ServerUnaryReactor* AdminService::Shutdown(
    grpc::CallbackServerContext* context, const v1::ShutdownRequest* request,
    v1::ShutdownResponse* response) {
  return Relay(context, response, [this, request](auto done) {
    port_.Shutdown(*request, std::move(done));
  });
}

}  // namespace zcbroker::service
