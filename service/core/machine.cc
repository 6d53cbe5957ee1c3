#include "service/core/machine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/message_differencer.h"
#include "ipc/names.h"
#include "proto/zcbroker/v1/refusals.h"
#include "service/core/escape.h"
#include "service/core/world.h"

namespace zcbroker::service {
namespace {

constexpr absl::Duration kStillStartingRetry = absl::Milliseconds(500);

Time operator+(Time time, absl::Duration duration) {
  return time + std::chrono::duration_cast<Time::duration>(
                    absl::ToChronoNanoseconds(duration));
}

absl::Duration Between(Time from, Time to) {
  return absl::FromChrono(to - from);
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(time);
  out->set_seconds(nanos / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

std::vector<std::string> VersionsOf(const CatalogService& service) {
  std::vector<std::string> versions;
  for (const InstalledVersion& v : service.versions) {
    versions.push_back(v.version);
  }
  return versions;
}

}  // namespace

Machine::Machine(Limits limits, v1::World world, Counters* counters,
                 uint64_t seed)
    : limits_(limits),
      world_(std::move(world)),
      counters_(counters),
      random_(seed) {}

void Machine::Negotiate(NegotiationId id, const v1::NegotiateRequest& request,
                        absl::optional<Time> deadline, Time now,
                        Effects* effects) {
  counters_->Add("negotiations");
  Time answer_by = now + limits_.answer_within;
  if (deadline.has_value()) {
    answer_by =
        std::min(answer_by, std::max(now, *deadline + -limits_.answer_margin));
  }
  if (!catalog_loaded_ && !shutting_down_) {
    Park(id, request, answer_by, effects);
    return;
  }
  Decide(id, request, answer_by, /*catalog_is_fresh=*/false, now, effects);
}

absl::optional<Refused> Machine::CheckRequest(
    const v1::NegotiateRequest& request, const CatalogService** service,
    const InstalledVersion** version) const {
  const std::string& name = request.service();
  const std::string& wanted = request.wanted_version();
  const auto refuse = [&](v1::Refusal refusal, std::string text,
                          RefusalFacts facts = {}) {
    return Refuse(refusal, std::move(text), name, wanted, std::move(facts));
  };
  if (const absl::Status status = ipc::CheckServiceName(name); !status.ok()) {
    return refuse(v1::REFUSAL_SERVICE_NAME_INVALID,
                  std::string(status.message()));
  }
  if (const absl::Status status = ipc::CheckVersion(wanted); !status.ok()) {
    return refuse(v1::REFUSAL_VERSION_INVALID, std::string(status.message()));
  }
  const auto known = catalog_.services.find(name);
  if (known == catalog_.services.end()) {
    RefusalFacts facts;
    for (const v1::Problem& problem : catalog_.problems) {
      facts.evidence.push_back(
          absl::StrCat(problem.where(), ": ", problem.what()));
    }
    return refuse(v1::REFUSAL_SERVICE_UNKNOWN,
                  absl::StrCat("no service is called ", name,
                               "; add it with: zcbroker service add ", name,
                               " --binary PATH"),
                  std::move(facts));
  }
  *service = &known->second;
  const auto& allowed = known->second.allowed_versions;
  if (!allowed.empty() &&
      std::find(allowed.begin(), allowed.end(), wanted) == allowed.end()) {
    return refuse(v1::REFUSAL_VERSION_BLOCKED,
                  absl::StrCat(known->second.source, " allows only ",
                               absl::StrJoin(allowed, ", ")));
  }
  for (const InstalledVersion& installed : known->second.versions) {
    if (installed.version == wanted) *version = &installed;
  }
  if (*version == nullptr) {
    RefusalFacts facts;
    facts.installed_versions = VersionsOf(known->second);
    facts.evidence = known->second.unusable;
    const std::string have =
        facts.installed_versions.empty()
            ? std::string("no version of it is")
            : absl::StrCat("installed: ",
                           absl::StrJoin(facts.installed_versions, ", "));
    return refuse(v1::REFUSAL_VERSION_NOT_INSTALLED,
                  absl::StrCat(name, " ", wanted, " is not installed; ", have),
                  std::move(facts));
  }
  if (request.has_world()) {
    RefusalFacts facts;
    facts.evidence = WorldDifferences(world_, request.world(),
                                      known->second.definition.endpoint_rule());
    if (!facts.evidence.empty()) {
      std::string text = absl::StrCat(
          "this broker serves another world: ", facts.evidence.front(),
          "; connect directly, or start a broker in that environment");
      return refuse(v1::REFUSAL_WORLD_MISMATCH, std::move(text),
                    std::move(facts));
    }
  }
  v1::BackendRoute offered;
  for (const v1::WireLane lane : (*version)->lanes) offered.add_lanes(lane);
  if (!AnyLaneAccepted(request, offered)) {
    RefusalFacts facts;
    for (const v1::WireLane lane : (*version)->lanes) {
      facts.evidence.push_back(v1::WireLane_Name(lane));
    }
    std::string text =
        absl::StrCat(name, " ", wanted, " speaks none of the accepted lanes; ",
                     "it speaks ", absl::StrJoin(facts.evidence, ", "));
    return refuse(v1::REFUSAL_LANE_UNSUPPORTED, std::move(text),
                  std::move(facts));
  }
  return absl::nullopt;
}

void Machine::Decide(NegotiationId id, const v1::NegotiateRequest& request,
                     Time answer_by, bool catalog_is_fresh, Time now,
                     Effects* effects) {
  if (shutting_down_) {
    AnswerWith(id,
               Refuse(v1::REFUSAL_SHUTTING_DOWN, "the broker is shutting down",
                      request.service(), request.wanted_version(),
                      {{}, {}, limits_.first_backoff}),
               effects);
    return;
  }
  const bool may_refresh =
      !catalog_is_fresh &&
      Between(catalog_loaded_at_, now) > limits_.catalog_freshness;
  const CatalogService* service = nullptr;
  const InstalledVersion* version = nullptr;
  absl::optional<Refused> refused = CheckRequest(request, &service, &version);
  if (refused.has_value()) {
    // It may have been installed since: look before saying no.
    if (may_refresh &&
        (refused->refusal() == v1::REFUSAL_VERSION_NOT_INSTALLED ||
         refused->refusal() == v1::REFUSAL_SERVICE_UNKNOWN)) {
      Park(id, request, answer_by, effects);
      return;
    }
    AnswerWith(id, *std::move(refused), effects);
    return;
  }

  const Key key{request.service(), version->version, version->binary_identity};
  Slot& slot = slots_[key];
  if (slot.state == State::kBackoff && now >= slot.retry_at) {
    slot.state = State::kGone;
  }
  switch (slot.state) {
    case State::kReady: {
      v1::NegotiateResponse response;
      *response.mutable_route() = RouteOf(slot);
      response.set_origin(v1::ROUTE_ORIGIN_REUSED);
      AnswerWith(id, std::move(response), effects);
      return;
    }
    case State::kBroken:
      if (may_refresh) {
        Park(id, request, answer_by, effects);
        return;
      }
      AnswerWith(
          id, StartRefusal(slot, slot.last_failure.text, absl::ZeroDuration()),
          effects);
      return;
    case State::kBackoff:
      AnswerWith(id,
                 StartRefusal(slot, slot.last_failure.text,
                              Between(now, slot.retry_at)),
                 effects);
      return;
    case State::kStarting:
    case State::kEnding:
    case State::kGone:
      break;
  }
  if (request.start_policy() == v1::START_POLICY_ONLY_IF_RUNNING) {
    AnswerWith(id,
               Refuse(v1::REFUSAL_BACKEND_START_FAILED,
                      "none is running and the caller allows none to be "
                      "started",
                      request.service(), request.wanted_version(),
                      {{}, {}, kStillStartingRetry}),
               effects);
    return;
  }
  const auto refuse_for_limit = [&](absl::string_view limit) {
    AnswerWith(id,
               Refuse(v1::REFUSAL_RATE_LIMITED,
                      absl::StrCat("too many at once: ", limit),
                      request.service(), request.wanted_version(),
                      {{}, {std::string(limit)}, kStillStartingRetry}),
               effects);
  };
  if (slot.state == State::kStarting || slot.state == State::kEnding) {
    if (slot.waiters.size() >= limits_.waiters_per_start) {
      refuse_for_limit("waiters per starting backend");
      return;
    }
    Join(slot, key, id, request, answer_by);
    return;
  }
  if (StartsInProgress() >= limits_.concurrent_starts) {
    refuse_for_limit("concurrent starts");
    return;
  }
  slot.definition = service->definition;
  slot.version = *version;
  Join(slot, key, id, request, answer_by);
  Begin(slot, now, effects);
}

void Machine::Park(NegotiationId id, const v1::NegotiateRequest& request,
                   Time answer_by, Effects* effects) {
  waiting_[id] = Waiter{request, answer_by, absl::nullopt};
  deadlines_.emplace(answer_by, id);
  if (!refreshing_) {
    refreshing_ = true;
    effects->push_back(RefreshCatalog{});
  }
}

void Machine::Join(Slot& slot, const Key& key, NegotiationId id,
                   const v1::NegotiateRequest& request, Time answer_by) {
  slot.waiters.push_back(id);
  waiting_[id] = Waiter{request, answer_by, key};
  deadlines_.emplace(answer_by, id);
}

void Machine::Begin(Slot& slot, Time now, Effects* effects) {
  slot.state = State::kStarting;
  slot.since = now;
  slot.start = next_start_++;
  effects->push_back(
      StartBackend{StartPlan{slot.start, slot.definition, slot.version}});
}

void Machine::AnswerWith(NegotiationId id, Outcome outcome, Effects* effects) {
  const auto found = waiting_.find(id);
  if (found != waiting_.end()) {
    deadlines_.erase({found->second.answer_by, id});
    waiting_.erase(found);
  }
  if (const auto* refused = std::get_if<Refused>(&outcome)) {
    counters_->Add(absl::StrCat("refused.", TraitsOf(refused->refusal()).name));
  }
  effects->push_back(Answer{id, std::move(outcome)});
}

void Machine::Cancel(NegotiationId id) {
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) return;
  if (found->second.key.has_value()) {
    auto& waiters = slots_[*found->second.key].waiters;
    waiters.erase(std::remove(waiters.begin(), waiters.end(), id),
                  waiters.end());
  }
  deadlines_.erase({found->second.answer_by, id});
  waiting_.erase(found);
}

void Machine::CatalogLoaded(Catalog catalog, bool forgive, Time now,
                            Effects* effects) {
  catalog_ = std::move(catalog);
  catalog_loaded_ = true;
  catalog_loaded_at_ = now;
  refreshing_ = false;
  effects->push_back(RoutesChanged{});
  // A changed definition is a new chance for what had failed.
  for (auto& [key, slot] : slots_) {
    if (slot.state != State::kBroken && slot.state != State::kBackoff) continue;
    const auto known = catalog_.services.find(std::get<0>(key));
    if (!forgive && known != catalog_.services.end() &&
        google::protobuf::util::MessageDifferencer::Equals(
            known->second.definition, slot.definition)) {
      continue;
    }
    slot.state = State::kGone;
    slot.since = now;
    slot.failures.clear();
  }
  std::vector<std::pair<NegotiationId, Waiter>> parked;
  for (const auto& [id, waiter] : waiting_) {
    if (!waiter.key.has_value()) parked.emplace_back(id, waiter);
  }
  for (auto& [id, waiter] : parked) {
    deadlines_.erase({waiter.answer_by, id});
    waiting_.erase(id);
    Decide(id, waiter.request, waiter.answer_by, /*catalog_is_fresh=*/true, now,
           effects);
  }
}

Machine::Slot* Machine::FindByStart(StartId id) {
  for (auto& [key, slot] : slots_) {
    if (slot.start == id) return &slot;
  }
  return nullptr;
}

void Machine::StartSucceeded(StartId id, StartedBackend backend, Time now,
                             Effects* effects) {
  Slot* slot = FindByStart(id);
  if (slot == nullptr || slot->state != State::kStarting) return;
  counters_->Add(backend.adopted ? "backends_adopted" : "backends_started");
  slot->state = State::kReady;
  slot->since = now;
  slot->backend = std::move(backend);
  slot->failures.clear();
  slot->last_failure = {};
  ++slot->generation;
  effects->push_back(RoutesChanged{});
  v1::NegotiateResponse response;
  *response.mutable_route() = RouteOf(*slot);
  for (const v1::NegotiationStep& step : slot->backend.steps) {
    *response.add_steps() = step;
  }
  response.set_origin(slot->backend.adopted ? v1::ROUTE_ORIGIN_ADOPTED
                                            : v1::ROUTE_ORIGIN_STARTED);
  for (const NegotiationId waiter : std::exchange(slot->waiters, {})) {
    AnswerWith(waiter, response, effects);
    response.set_origin(v1::ROUTE_ORIGIN_JOINED);
  }
}

void Machine::StartFailed(StartId id, StartFailure failure, Time now,
                          Effects* effects) {
  Slot* slot = FindByStart(id);
  if (slot == nullptr || slot->state != State::kStarting) return;
  counters_->Add("start_failures");
  if (!failure.transient || slot->failures.empty()) {
    slot->failures.push_back(now);
  }
  while (Between(slot->failures.front(), now) > limits_.failure_window) {
    slot->failures.pop_front();
  }
  slot->since = now;
  slot->last_failure = std::move(failure);
  absl::Duration retry_after = absl::ZeroDuration();
  if (slot->failures.size() >= limits_.failures_until_broken) {
    slot->state = State::kBroken;
    counters_->Add("backends_broken");
  } else {
    absl::Duration backoff = limits_.first_backoff;
    for (size_t i = 1; i < slot->failures.size(); ++i) backoff *= 2;
    backoff = std::min(backoff, limits_.longest_backoff);
    // Up to a fifth more, so that many brokers do not try in step.
    std::uniform_real_distribution<double> jitter(1.0, 1.2);
    retry_after = backoff * jitter(random_);
    slot->state = State::kBackoff;
    slot->retry_at = now + retry_after;
  }
  RefuseWaiters(*slot, slot->last_failure, retry_after, effects);
}

Refused Machine::StartRefusal(const Slot& slot, const std::string& text,
                              absl::Duration retry_after) const {
  const std::string& name = slot.definition.name();
  const std::string& version = slot.version.version;
  RefusalFacts facts;
  facts.evidence = slot.last_failure.evidence;
  if (slot.state == State::kBroken) {
    return Refuse(v1::REFUSAL_BACKEND_BROKEN,
                  absl::StrCat(name, " ", version, " failed to start ",
                               slot.failures.size(),
                               " times within a minute, last: ", text,
                               "; mend its definition or binary (log: ",
                               slot.last_failure.log_file, ")"),
                  name, version, std::move(facts));
  }
  facts.retry_after = std::max(retry_after, absl::Milliseconds(1));
  return Refuse(v1::REFUSAL_BACKEND_START_FAILED,
                absl::StrCat(name, " ", version, ": ", text), name, version,
                std::move(facts));
}

void Machine::RefuseWaiters(Slot& slot, const StartFailure& failure,
                            absl::Duration retry_after, Effects* effects) {
  const Refused refused = StartRefusal(slot, failure.text, retry_after);
  for (const NegotiationId waiter : std::exchange(slot.waiters, {})) {
    AnswerWith(waiter, refused, effects);
  }
}

void Machine::BackendEnding(StartId id, Time now, Effects* effects) {
  Slot* slot = FindByStart(id);
  if (slot == nullptr || slot->state != State::kReady) return;
  slot->state = State::kEnding;
  slot->since = now;
  effects->push_back(RoutesChanged{});
}

void Machine::BackendGone(StartId id, std::vector<std::string> evidence,
                          Time now, Effects* effects) {
  Slot* slot = FindByStart(id);
  if (slot == nullptr ||
      (slot->state != State::kReady && slot->state != State::kEnding)) {
    return;
  }
  counters_->Add("backends_ended");
  slot->state = State::kGone;
  slot->since = now;
  slot->last_failure.evidence = std::move(evidence);
  slot->last_failure.log_file = slot->backend.log_file;
  effects->push_back(RoutesChanged{});
  // Who asked while it was ending gets the next one, of what is installed now.
  for (const NegotiationId waiting : std::exchange(slot->waiters, {})) {
    const Waiter waiter = waiting_[waiting];
    deadlines_.erase({waiter.answer_by, waiting});
    waiting_.erase(waiting);
    Decide(waiting, waiter.request, waiter.answer_by,
           /*catalog_is_fresh=*/false, now, effects);
  }
}

void Machine::Tick(Time now, Effects* effects) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const NegotiationId id = deadlines_.begin()->second;
    const Waiter waiter = waiting_[id];
    Cancel(id);
    const std::string text =
        waiter.key.has_value()
            ? "it is still starting; try again"
            : "the definitions are still being read; try again";
    AnswerWith(
        id,
        Refuse(v1::REFUSAL_BACKEND_START_FAILED, text, waiter.request.service(),
               waiter.request.wanted_version(), {{}, {}, kStillStartingRetry}),
        effects);
  }
}

void Machine::Shutdown(bool stop_backends, Time now, Effects* effects) {
  shutting_down_ = true;
  const std::map<NegotiationId, Waiter> waiting = waiting_;
  for (const auto& [id, waiter] : waiting) {
    Cancel(id);
    Decide(id, waiter.request, waiter.answer_by, true, now, effects);
  }
  if (!stop_backends) return;
  for (const auto& [key, slot] : slots_) {
    if (slot.state == State::kReady || slot.state == State::kStarting ||
        slot.state == State::kEnding) {
      effects->push_back(StopBackend{slot.start});
    }
  }
}

absl::optional<Time> Machine::NextDeadline() const {
  if (deadlines_.empty()) return absl::nullopt;
  return deadlines_.begin()->first;
}

v1::BackendRoute Machine::RouteOf(const Slot& slot) const {
  v1::BackendRoute route;
  route.set_endpoint(slot.backend.endpoint);
  for (const v1::WireLane lane : slot.version.lanes) route.add_lanes(lane);
  route.set_version(slot.version.version);
  route.set_pid(slot.backend.pid);
  route.set_start_time(slot.backend.start_time);
  route.set_boot_id(slot.backend.boot_id);
  route.set_generation(slot.generation);
  return route;
}

RouteTable Machine::Routes() const {
  RouteTable table(world_);
  if (shutting_down_) return table;
  for (const auto& [name, service] : catalog_.services) {
    table.AddService(name);
    for (const InstalledVersion& version : service.versions) {
      const auto found =
          slots_.find({name, version.version, version.binary_identity});
      if (found == slots_.end() || found->second.state != State::kReady) {
        continue;
      }
      table.Add(name, service.definition.endpoint_rule(),
                RouteOf(found->second));
    }
  }
  return table;
}

size_t Machine::StartsInProgress() const {
  return std::count_if(slots_.begin(), slots_.end(), [](const auto& entry) {
    return entry.second.state == State::kStarting;
  });
}

v1::ListBackendsResponse Machine::ListBackends(Time now,
                                               absl::Time wall_now) const {
  v1::ListBackendsResponse response;
  for (const auto& [key, slot] : slots_) {
    if (slot.start == 0) continue;
    v1::Backend* backend = response.add_backends();
    backend->set_service(std::get<0>(key));
    backend->set_version(std::get<1>(key));
    backend->set_binary(slot.version.binary);
    backend->set_failed_starts(static_cast<uint32_t>(slot.failures.size()));
    SetTimestamp(wall_now - Between(slot.since, now), backend->mutable_since());
    if (!slot.last_failure.text.empty()) {
      backend->add_evidence(Escape(slot.last_failure.text));
    }
    for (const std::string& line : slot.last_failure.evidence) {
      backend->add_evidence(Escape(line));
    }
    backend->set_log_file(slot.last_failure.log_file);
    switch (slot.state) {
      case State::kStarting:
        backend->set_state(v1::BACKEND_STATE_STARTING);
        break;
      case State::kReady:
        backend->set_state(v1::BACKEND_STATE_READY);
        *backend->mutable_route() = RouteOf(slot);
        backend->set_origin(slot.backend.adopted ? v1::ROUTE_ORIGIN_ADOPTED
                                                 : v1::ROUTE_ORIGIN_STARTED);
        backend->set_log_file(slot.backend.log_file);
        backend->set_direct_endpoint(slot.backend.direct_endpoint);
        break;
      case State::kEnding:
        backend->set_state(v1::BACKEND_STATE_ENDING);
        break;
      case State::kBackoff:
        backend->set_state(v1::BACKEND_STATE_BACKOFF);
        SetTimestamp(wall_now + Between(now, slot.retry_at),
                     backend->mutable_retry_at());
        break;
      case State::kBroken:
        backend->set_state(v1::BACKEND_STATE_BROKEN);
        break;
      case State::kGone:
        backend->set_state(v1::BACKEND_STATE_GONE);
        break;
    }
  }
  return response;
}

std::vector<v1::ServiceSummary> Machine::Services() const {
  std::vector<v1::ServiceSummary> services;
  for (const auto& [name, service] : catalog_.services) {
    v1::ServiceSummary summary;
    summary.set_name(name);
    summary.set_source(service.source);
    for (const std::string& version : VersionsOf(service)) {
      summary.add_versions(version);
    }
    services.push_back(std::move(summary));
  }
  return services;
}

}  // namespace zcbroker::service
