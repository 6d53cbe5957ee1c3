#include "service/host/host.h"

#include <unistd.h>

#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "asio/dispatch.hpp"
#include "asio/post.hpp"
#include "proto/zcbroker/version.h"
#include "service/core/definition.h"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

// Beyond the longest grace a definition may have (60 s).
constexpr std::chrono::seconds kStopPatience(62);

Time Now() { return std::chrono::steady_clock::now(); }

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(time);
  out->set_seconds(nanos / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

}  // namespace

Host::Host(asio::io_context& loop, Reaper& reaper, HostOptions options)
    : loop_(loop),
      reaper_(reaper),
      options_(std::move(options)),
      started_at_(absl::Now()),
      started_(Now()),
      machine_(options_.limits, options_.world, &counters_,
               std::random_device()()),
      loader_(loop, reaper, options_.definitions),
      timer_(loop),
      stop_timer_(loop),
      routes_(std::make_shared<RouteTable>(options_.world)) {}

Host::~Host() = default;

template <typename Event>
void Host::With(Event event) {
  Effects effects;
  event(machine_, Now(), &effects);
  Apply(std::move(effects));
}

void Host::Start() {
  WatchDefinitions();
  LoadCatalog(/*forgive=*/false, [] {});
}

void Host::WatchDefinitions() {
  auto watch = DirectoryWatch::Create(
      loop_, options_.definitions.services_dir,
      [this](const std::string& name) {
        // Editors and `service add` write beside the file and rename.
        if (name.empty() || absl::EndsWith(name, ".textproto")) {
          LoadCatalog(/*forgive=*/false, [] {});
        }
      });
  // Without the directory there is nothing to watch: ReloadDefinitions, which
  // `service add` calls, begins again here.
  definitions_watch_ = watch.ok() ? *std::move(watch) : nullptr;
}

void Host::LoadCatalog(bool forgive, std::function<void()> then) {
  loader_.Load([this, forgive, then = std::move(then)](Catalog catalog) {
    std::string problems;
    for (const v1::Problem& problem : catalog.problems) {
      absl::StrAppend(&problems, problem.where(), ": ", problem.what(), "\n");
    }
    // Definitions are read often; their mistakes are news once.
    if (problems != std::exchange(logged_problems_, problems)) {
      for (const absl::string_view line :
           absl::StrSplit(problems, '\n', absl::SkipEmpty())) {
        LogWarning(line);
      }
    }
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.CatalogLoaded(std::move(catalog), forgive, now, effects);
    });
    definitions_read_ = true;
    then();
  });
}

void Host::OnStopping(std::function<void()> stopping) {
  stopping_begins_ = std::move(stopping);
}

void Host::OnStopped(std::function<void()> stopped) {
  stopped_ = std::move(stopped);
}

void Host::SetConnectionCounter(std::function<size_t()> connections) {
  connections_ = std::move(connections);
}

void Host::Stop(bool stop_backends) {
  if (stopping_) return;
  stopping_ = true;
  LogInfo(absl::StrCat("stopping; backends ",
                       stop_backends ? "end too" : "go on running"));
  definitions_watch_.reset();
  if (stopping_begins_) stopping_begins_();
  With([&](Machine& machine, Time now, Effects* effects) {
    machine.Shutdown(stop_backends, now, effects);
  });
  timer_.cancel();
  if (!stop_backends) runs_.clear();
  stop_timer_.expires_after(kStopPatience);
  stop_timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    LogError("backends did not end in time; leaving them");
    runs_.clear();
    MaybeStopped();
  });
  MaybeStopped();
}

void Host::MaybeStopped() {
  if (!stopping_ || !runs_.empty()) return;
  stop_timer_.cancel();
  if (auto stopped = std::exchange(stopped_, nullptr)) {
    asio::post(loop_, std::move(stopped));
  }
}

// --- Effects

void Host::Apply(Effects effects) {
  for (Effect& effect : effects) {
    std::visit([this](auto& e) { Carry(std::move(e)); }, effect);
  }
  ArmTimer();
}

void Host::Carry(Answer answer) {
  const auto found = callers_.find(answer.id);
  if (found == callers_.end()) return;
  const auto done = std::move(found->second);
  callers_.erase(found);
  done(std::move(answer.outcome));
}

void Host::Carry(const StartBackend& start) {
  const StartId id = start.plan.id;
  BackendEvents events;
  events.started = [this, id](StartedBackend backend) {
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.StartSucceeded(id, std::move(backend), now, effects);
    });
  };
  events.failed = [this, id](StartFailure failure) {
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.StartFailed(id, std::move(failure), now, effects);
    });
    RunEnded(id);
  };
  events.ending = [this, id] {
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.BackendEnding(id, now, effects);
    });
  };
  events.gone = [this, id](std::vector<std::string> evidence) {
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.BackendGone(id, std::move(evidence), now, effects);
    });
    RunEnded(id);
  };
  runs_[id] = BackendRun::Create(loop_, reaper_, options_.surroundings,
                                 start.plan, std::move(events));
}

void Host::RunEnded(StartId id) {
  // Not from within the run's own callback.
  asio::post(loop_, [this, id] {
    runs_.erase(id);
    MaybeStopped();
  });
}

void Host::Carry(const StopBackend& stop) {
  const auto found = runs_.find(stop.id);
  if (found != runs_.end()) found->second->Stop();
}

void Host::Carry(const RefreshCatalog&) {
  LoadCatalog(/*forgive=*/false, [] {});
}

void Host::Carry(const RoutesChanged&) {
  auto routes = std::make_shared<const RouteTable>(machine_.Routes());
  std::lock_guard<std::mutex> lock(routes_mutex_);
  routes_ = std::move(routes);
}

void Host::ArmTimer() {
  const absl::optional<Time> deadline = machine_.NextDeadline();
  if (!deadline.has_value()) {
    timer_.cancel();
    return;
  }
  if (timer_.expiry() == *deadline && *deadline > Now()) return;
  timer_.expires_at(*deadline);
  timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    With([](Machine& machine, Time now, Effects* effects) {
      machine.Tick(now, effects);
    });
  });
}

// --- BrokerPort

std::shared_ptr<const RouteTable> Host::Routes() const {
  std::lock_guard<std::mutex> lock(routes_mutex_);
  return routes_;
}

absl::optional<v1::NegotiateResponse> Host::TryRoute(
    const v1::NegotiateRequest& request) {
  auto response = Routes()->Find(request);
  if (response.has_value()) counters_.Add("negotiations");
  return response;
}

bool Host::KnowsService(const std::string& name) {
  // Before the first reading any service may turn out to have one.
  // zccache may be installed at any time.
  return !definitions_read_ || name == BuiltInZccache().name() ||
         Routes()->KnowsService(name);
}

NegotiationId Host::Negotiate(v1::NegotiateRequest request,
                              absl::optional<Time> deadline,
                              std::function<void(Outcome)> done) {
  const NegotiationId id = next_negotiation_++;
  asio::dispatch(loop_, [this, id, request = std::move(request), deadline,
                         done = std::move(done)]() mutable {
    callers_[id] = std::move(done);
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.Negotiate(id, request, deadline, now, effects);
    });
  });
  return id;
}

void Host::Cancel(NegotiationId id) {
  asio::dispatch(loop_, [this, id] {
    machine_.Cancel(id);
    callers_.erase(id);
  });
}

void Host::GetStatus(std::function<void(v1::GetStatusResponse)> done) {
  asio::dispatch(loop_, [this, done = std::move(done)] {
    v1::GetStatusResponse status;
    status.set_version(kVersion);
    status.set_pid(static_cast<uint32_t>(getpid()));
    SetTimestamp(started_at_, status.mutable_started_at());
    const auto uptime = Now() - started_;
    status.mutable_uptime()->set_seconds(
        std::chrono::duration_cast<std::chrono::seconds>(uptime).count());
    status.set_endpoint(options_.endpoint);
    status.set_framed_endpoint(options_.framed_endpoint);
    for (v1::ServiceSummary& service : machine_.Services()) {
      *status.add_services() = std::move(service);
    }
    if (connections_) {
      status.set_connections(static_cast<uint32_t>(connections_()));
    }
    for (const auto& [name, count] : counters_.Snapshot()) {
      (*status.mutable_counters())[name] = count;
    }
    for (const v1::Problem& problem : options_.problems) {
      *status.add_problems() = problem;
    }
    for (const v1::Problem& problem : machine_.catalog().problems) {
      *status.add_problems() = problem;
    }
    *status.mutable_world() = options_.world;
    done(std::move(status));
  });
}

void Host::ListBackends(std::function<void(v1::ListBackendsResponse)> done) {
  asio::dispatch(loop_, [this, done = std::move(done)] {
    done(machine_.ListBackends(Now(), absl::Now()));
  });
}

void Host::ReloadDefinitions(
    std::function<void(v1::ReloadDefinitionsResponse)> done) {
  asio::dispatch(loop_, [this, done = std::move(done)] {
    WatchDefinitions();
    LoadCatalog(/*forgive=*/true, [this, done] {
      v1::ReloadDefinitionsResponse response;
      for (v1::ServiceSummary& service : machine_.Services()) {
        *response.add_services() = std::move(service);
      }
      for (const v1::Problem& problem : machine_.catalog().problems) {
        *response.add_problems() = problem;
      }
      done(std::move(response));
    });
  });
}

void Host::Shutdown(const v1::ShutdownRequest& request,
                    std::function<void(v1::ShutdownResponse)> done) {
  const bool stop_backends =
      request.backends() == v1::ShutdownRequest::BACKENDS_STOP;
  asio::dispatch(loop_, [this, stop_backends, done = std::move(done)] {
    v1::ShutdownResponse response;
    response.set_refusal_for_waiters(v1::REFUSAL_SHUTTING_DOWN);
    response.set_waiters(static_cast<uint32_t>(machine_.waiters()));
    if (stop_backends) {
      response.set_backends_to_stop(static_cast<uint32_t>(runs_.size()));
    }
    done(std::move(response));
    asio::post(loop_, [this, stop_backends] { Stop(stop_backends); });
  });
}

}  // namespace zcbroker::service
