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
#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "grpcpp/server_context.h"
#include "ipc/names.h"
#include "service/core/outcome.h"
#include "service/core/route_watch.h"
#include "service/core/trace_context.h"
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

// Empty where there is none.
std::string TraceparentOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find(kTraceparentHeader);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
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

// What the rules hold of a call that writes to its caller: they may have
// something to say when it has ended. Whoever finishes it first does. `Stream`
// is gRPC's base of the reactor. Thread-safe.
template <typename Stream, typename Response>
class WriteEnd {
 public:
  explicit WriteEnd(Stream* stream) : stream_(stream) {}

  // Writes what `fill` fills in, unless it says that there is nothing or the
  // call has ended; until this returns the reactor is there. One write at a
  // time.
  template <typename Fill>
  void Write(Fill fill) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stream_ == nullptr) return;
    response_.Clear();
    if (fill(&response_)) stream_->StartWrite(&response_);
  }

  void Finish(const grpc::Status& status) {
    Stream* finishing = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      finishing = std::exchange(stream_, nullptr);
    }
    if (finishing != nullptr) finishing->Finish(status);
  }

 private:
  std::mutex mutex_;
  Stream* stream_ ABSL_GUARDED_BY(mutex_);
  Response response_;
};

// One lease. gRPC owns it from construction to OnDone. The rules and the caller
// may end it at once, from two threads: whichever is first finishes the call.
class LeaseReactor final
    : public grpc::ServerBidiReactor<v1::RegisterRequest,
                                     v1::RegisterResponse> {
 public:
  explicit LeaseReactor(BrokerPort& port)
      : port_(port), end_(std::make_shared<End>(this)) {
    StartSendInitialMetadata();
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok && !asked_) {
      end_->Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
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
          [end = end_](v1::RegisterResponse said) {
            end->Write([&](v1::RegisterResponse* response) {
              *response = std::move(said);
              return true;
            });
          },
          [end = end_](const absl::optional<Refused>& why) {
            end->Finish(why.has_value() ? ToGrpcStatus(*why)
                                        : grpc::Status::OK);
          });
    }
    StartRead(&request_);
  }

  void OnCancel() override {
    const LeaseId lease = lease_;
    if (lease != 0) port_.EndLease(lease);
    end_->Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 private:
  using End = WriteEnd<
      grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>,
      v1::RegisterResponse>;

  BrokerPort& port_;
  const std::shared_ptr<End> end_;
  v1::RegisterRequest request_;
  // Of the reading side only.
  bool asked_ = false;
  // 0: none yet. A call that is cancelled at once is read to its end, too.
  std::atomic<LeaseId> lease_{0};
};

// The latest of what was asked: an answer may ask the next before this is
// known.
template <typename Id>
void Remember(std::atomic<Id>* latest, Id id) {
  Id before = *latest;
  while (before < id && !latest->compare_exchange_weak(before, id)) {
  }
}

grpc::Status GoingAway() {
  return ToGrpcStatus(
      Refuse(v1::REFUSAL_SHUTTING_DOWN, "the broker is going away", "", ""));
}

// Somebody who reads events, at its own pace: what is next is asked for when
// the last was written. gRPC owns it from construction to OnDone.
class EventsReactor final
    : public grpc::ServerWriteReactor<v1::StreamEventsResponse> {
 public:
  EventsReactor(BrokerPort& port, const v1::StreamEventsRequest& request)
      : port_(port),
        follow_(request.follow()),
        after_(request.after()),
        end_(std::make_shared<End>(this)) {
    StartSendInitialMetadata();
    ReadOn();
  }

  void OnWriteDone(bool ok) override {
    if (ok) ReadOn();
  }

  void OnCancel() override {
    port_.ForgetEvents(read_);
    end_->Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 private:
  using End = WriteEnd<grpc::ServerWriteReactor<v1::StreamEventsResponse>,
                       v1::StreamEventsResponse>;

  void ReadOn() {
    const EventLog::ReadId id = port_.ReadEvents(
        after_, follow_,
        [this, end = end_, follow = follow_](v1::StreamEventsResponse said) {
          if (said.events().empty()) {
            end->Finish(follow ? GoingAway() : grpc::Status::OK);
            return;
          }
          end->Write([&](v1::StreamEventsResponse* response) {
            after_ = said.events(said.events_size() - 1).sequence();
            *response = std::move(said);
            return true;
          });
        });
    Remember(&read_, id);
  }

  BrokerPort& port_;
  const bool follow_;
  // Written before the write that calls ReadOn again.
  uint64_t after_;
  const std::shared_ptr<End> end_;
  std::atomic<EventLog::ReadId> read_{0};
};

// Somebody who watches routes: told what differs from what it was told last.
// gRPC owns it from construction to OnDone.
class RoutesReactor final
    : public grpc::ServerWriteReactor<v1::WatchRoutesResponse> {
 public:
  RoutesReactor(BrokerPort& port, std::string service)
      : port_(port),
        service_(std::move(service)),
        end_(std::make_shared<End>(this)) {
    StartSendInitialMetadata();
    if (service_.empty()) {
      ReadOn();
      return;
    }
    const absl::Status name = ipc::CheckServiceName(service_);
    if (name.ok()) {
      ReadOn();
    } else {
      end_->Finish(
          ToGrpcStatus(Refuse(v1::REFUSAL_SERVICE_NAME_INVALID,
                              std::string(name.message()), service_, "")));
    }
  }

  void OnWriteDone(bool ok) override {
    if (ok) ReadOn();
  }

  void OnCancel() override {
    port_.ForgetRoutes(read_);
    end_->Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 private:
  using End = WriteEnd<grpc::ServerWriteReactor<v1::WatchRoutesResponse>,
                       v1::WatchRoutesResponse>;

  void ReadOn() {
    const RouteWatch::ReadId id =
        port_.ReadRoutes(told_, [this, end = end_](RouteWatch::Table now) {
          if (now == nullptr) {
            end->Finish(GoingAway());
            return;
          }
          end->Write([&](v1::WatchRoutesResponse* response) {
            const bool first = told_ == nullptr;
            const RouteTable none;
            *response = now->ChangesSince(first ? none : *told_, service_);
            told_ = std::move(now);
            if (first || !response->changes().empty()) return true;
            ReadOn();
            return false;
          });
        });
    Remember(&read_, id);
  }

  BrokerPort& port_;
  const std::string service_;
  // Written before the write that calls ReadOn again.
  RouteWatch::Table told_;
  const std::shared_ptr<End> end_;
  std::atomic<RouteWatch::ReadId> read_{0};
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
        v1::NegotiateRequest asked = *request;
        if (asked.traceparent().empty()) {
          asked.set_traceparent(TraceparentOf(*context));
        }
        *id = port_.Negotiate(std::move(asked), DeadlineOf(*context),
                              std::move(done));
      },
      [&port = port_, id] {
        if (*id != 0) port.Cancel(*id);
      });
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchRoutesResponse>* BrokerService::WatchRoutes(
    grpc::CallbackServerContext*, const v1::WatchRoutesRequest* request) {
  return new RoutesReactor(port_, request->service());
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
