#include "service/core/machine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/message_differencer.h"
#include "ipc/escape.h"
#include "ipc/names.h"
#include "proto/zcbroker/v1/refusals.h"
#include "proto/zcbroker/v1/times.h"
#include "service/core/world.h"

namespace zcbroker::service {
namespace {

constexpr absl::Duration kStillStartingRetry = absl::Milliseconds(500);
// A report about one of these is answered "gone" and not "unknown".
constexpr size_t kEndedKept = 32;

Time operator+(Time time, absl::Duration duration) {
  return time + std::chrono::duration_cast<Time::duration>(
                    absl::ToChronoNanoseconds(duration));
}

absl::Duration Between(Time from, Time to) {
  return absl::FromChrono(to - from);
}

// In one sentence for people.
std::string Describe(const absl::optional<InFlight>& looked) {
  if (!looked.has_value()) return "not looked at yet";
  const InFlight& seen = *looked;
  if (!seen.unknown.empty()) {
    return absl::StrCat("what is in flight cannot be told: ", seen.unknown);
  }
  return absl::StrCat("in flight: ", seen.connections,
                      seen.connections == 1 ? " connection" : " connections",
                      seen.running_children ? ", running children" : "");
}

// Takes `id` out; false where it was answered already.
bool TakeOut(std::set<std::pair<Time, uint64_t>>* deadlines, uint64_t id) {
  const auto found =
      std::find_if(deadlines->begin(), deadlines->end(),
                   [id](const auto& entry) { return entry.second == id; });
  if (found == deadlines->end()) return false;
  deadlines->erase(found);
  return true;
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
                 uint64_t seed, StartId first_start)
    : limits_(limits),
      world_(std::move(world)),
      counters_(counters),
      random_(seed),
      next_start_(first_start) {}

void Machine::Negotiate(NegotiationId id, const v1::NegotiateRequest& request,
                        absl::optional<Time> deadline, Time now,
                        Effects* effects) {
  counters_->Add("negotiations");
  const Time answer_by = AnswerBy(deadline, now);
  if (!catalog_loaded_ && !shutting_down_) {
    Park(id, request, answer_by, effects);
  } else {
    Decide(id, request, answer_by, /*catalog_is_fresh=*/false, now, effects);
  }
  RefuseIfHurried(id, request, effects);
}

void Machine::NegotiateNewest(NegotiationId id,
                              const v1::NegotiateRequest& request,
                              absl::optional<Time> deadline, Time now,
                              Effects* effects) {
  newest_.insert(id);
  Negotiate(id, request, deadline, now, effects);
}

void Machine::PassedOn(NegotiationId id, const v1::NegotiateRequest& request,
                       Time answer_by, Time now, Effects* effects) {
  Decide(id, request, answer_by, /*catalog_is_fresh=*/false, now, effects);
  RefuseIfHurried(id, request, effects);
}

absl::optional<Refused> Machine::ChooseNewest(
    v1::NegotiateRequest* request) const {
  const auto known = catalog_.services.find(request->service());
  // The name's own refusals come first, with the words they always have.
  request->set_wanted_version("0.0.0");
  if (known == catalog_.services.end()) return absl::nullopt;
  for (const InstalledVersion& version : known->second.versions) {
    if (IsBlocked({request->service(), version.version})) continue;
    v1::BackendRoute offered;
    for (const v1::WireLane lane : version.lanes) offered.add_lanes(lane);
    if (AnyLaneAccepted(*request, offered)) {
      request->set_wanted_version(version.version);
      return absl::nullopt;
    }
  }
  const bool none = known->second.versions.empty();
  RefusalFacts facts;
  facts.installed_versions = VersionsOf(known->second);
  facts.evidence = known->second.unusable;
  return Refuse(
      none ? v1::REFUSAL_VERSION_NOT_INSTALLED : v1::REFUSAL_LANE_UNSUPPORTED,
      none ? absl::StrCat("no version of ", request->service(), " is installed")
           : absl::StrCat("no installed version of ", request->service(),
                          " speaks an accepted lane; installed: ",
                          absl::StrJoin(facts.installed_versions, ", ")),
      request->service(), "", std::move(facts));
}

Time Machine::AnswerBy(absl::optional<Time> deadline, Time now) const {
  const Time latest = now + limits_.answer_within;
  if (!deadline.has_value()) return latest;
  return std::min(latest, std::max(now, *deadline + -limits_.answer_margin));
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
    std::string text = absl::StrCat("no service is called ", name,
                                    "; add it with: zcbroker service add ",
                                    name, " --binary PATH");
    for (const v1::Problem& problem : catalog_.problems) {
      std::string mistake = absl::StrCat(problem.where(), ": ", problem.what());
      if (absl::StrContains(problem.where(),
                            absl::StrCat("/", name, ".textproto:"))) {
        text = absl::StrCat("the definition of ", name,
                            " has a mistake; mend it: ", mistake);
      }
      facts.evidence.push_back(std::move(mistake));
    }
    return refuse(v1::REFUSAL_SERVICE_UNKNOWN, std::move(text),
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
  if (IsBlocked({name, wanted})) {
    return refuse(v1::REFUSAL_VERSION_BLOCKED,
                  absl::StrCat(name, " ", wanted, " is ",
                               WhyBlocked(catalog_.versions, name, wanted)));
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
          "this broker serves another world: ",
          ipc::Escape(facts.evidence.front()),
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
                     "it speaks: ", absl::StrJoin(facts.evidence, ", "));
    return refuse(v1::REFUSAL_LANE_UNSUPPORTED, std::move(text),
                  std::move(facts));
  }
  return absl::nullopt;
}

void Machine::Decide(NegotiationId id, const v1::NegotiateRequest& asked,
                     Time answer_by, bool catalog_is_fresh, Time now,
                     Effects* effects) {
  if (shutting_down_) {
    RefuseForEnd(id, asked, effects);
    return;
  }
  const bool may_refresh =
      !catalog_is_fresh &&
      Between(catalog_loaded_at_, now) > limits_.catalog_freshness;
  const CatalogService* service = nullptr;
  const InstalledVersion* version = nullptr;
  v1::NegotiateRequest request = asked;
  absl::optional<Refused> refused;
  if (newest_.count(id) > 0) refused = ChooseNewest(&request);
  if (!refused.has_value()) {
    refused = CheckRequest(request, &service, &version);
  }
  if (refused.has_value()) {
    // It may have been installed since: look before saying no.
    if (may_refresh &&
        (refused->refusal() == v1::REFUSAL_VERSION_NOT_INSTALLED ||
         refused->refusal() == v1::REFUSAL_SERVICE_UNKNOWN)) {
      Park(id, asked, answer_by, effects);
      return;
    }
    if (refused->refusal() == v1::REFUSAL_WORLD_MISMATCH &&
        limits_.other_worlds > 0) {
      const absl::optional<v1::World> world =
          ServableWorld(world_, request.world());
      if (world.has_value()) {
        *request.mutable_world() = *world;
        newest_.erase(id);
        effects->push_back(PassOn{id, std::move(request), answer_by});
        return;
      }
    }
    AnswerWith(id, *std::move(refused), effects);
    return;
  }

  const Key key{request.service(), version->version};
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
        Park(id, asked, answer_by, effects);
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
    case State::kDraining:
    case State::kEnding:
    case State::kGone:
      break;
  }
  if (request.start_policy() == v1::START_POLICY_ONLY_IF_RUNNING) {
    Refused none = Refuse(v1::REFUSAL_BACKEND_START_FAILED,
                          "none is running and the caller allows none to be "
                          "started",
                          request.service(), request.wanted_version(),
                          {{}, {}, kStillStartingRetry});
    none.wanted = true;
    AnswerWith(id, std::move(none), effects);
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
  if (slot.state != State::kGone || slot.expected) {
    if (slot.waiters.size() >= WaitersPerStart()) {
      refuse_for_limit("waiters per starting backend");
      return;
    }
    Join(slot, key, id, asked, answer_by);
    // Somebody waits for its end now.
    if (slot.look_at.has_value() && slot.state == State::kDraining) {
      slot.look_pause = limits_.first_look;
      slot.look_at = std::min(*slot.look_at, now + slot.look_pause);
    }
    return;
  }
  if (StartsInProgress() >= ConcurrentStarts()) {
    refuse_for_limit("concurrent starts");
    return;
  }
  slot.definition = service->definition;
  slot.version = *version;
  Join(slot, key, id, asked, answer_by);
  Begin(slot, catalog_.versions.no_starts, now, effects, absl::nullopt,
        request.traceparent());
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

void Machine::Begin(Slot& slot, std::string only_adopt, Time now,
                    Effects* effects, absl::optional<Registration> registration,
                    const std::string& traceparent) {
  slot.state = State::kStarting;
  slot.since = now;
  slot.start = next_start_++;
  slot.adopting = false;
  slot.registrant = registration.has_value() ? registration->lease : 0;
  slot.failed_before = absl::nullopt;
  StartPlan plan;
  plan.id = slot.start;
  plan.definition = slot.definition;
  plan.version = slot.version;
  plan.generation = slot.generation + 1;
  plan.only_adopt = std::move(only_adopt);
  plan.registration = std::move(registration);
  plan.traceparent = traceparent;
  effects->push_back(StartBackend{std::move(plan)});
}

void Machine::Register(NegotiationId id, const v1::RegisterRequest& request,
                       Time now, Effects* effects) {
  v1::NegotiateRequest asked;
  asked.set_service(request.service());
  asked.set_wanted_version(request.version());
  if (request.has_world()) *asked.mutable_world() = request.world();
  const auto refuse = [&](v1::Refusal refusal, std::string text,
                          absl::Duration retry_after = absl::ZeroDuration()) {
    AnswerWith(id,
               Refuse(refusal, std::move(text), request.service(),
                      request.version(), {{}, {}, retry_after}),
               effects);
  };
  // It would be probed first, and nobody is to wait for that any more.
  if (shutting_down_ || hurried_) {
    RefuseForEnd(id, asked, effects);
    return;
  }
  const CatalogService* service = nullptr;
  const InstalledVersion* version = nullptr;
  absl::optional<Refused> refused = CheckRequest(asked, &service, &version);
  if (refused.has_value()) {
    AnswerWith(id, *std::move(refused), effects);
    return;
  }
  if (!catalog_.versions.no_starts.empty()) {
    refuse(v1::REFUSAL_VERSION_BLOCKED, catalog_.versions.no_starts);
    return;
  }
  const Key key{request.service(), request.version()};
  Slot& slot = slots_[key];
  switch (slot.state) {
    case State::kStarting:
    case State::kReady:
    case State::kDraining:
    case State::kEnding:
      refuse(v1::REFUSAL_BACKEND_EXISTS,
             absl::StrCat(key.first, " ", key.second, " has a backend already",
                          slot.state == State::kStarting
                              ? std::string(", which is starting")
                              : absl::StrCat(", process ", slot.backend.pid)));
      return;
    case State::kBackoff:
    case State::kBroken:
    case State::kGone:
      // It lives, whatever became of those we started.
      break;
  }
  if (StartsInProgress() >= ConcurrentStarts()) {
    refuse(v1::REFUSAL_RATE_LIMITED, "too many at once: concurrent starts",
           kStillStartingRetry);
    return;
  }
  absl::optional<FailedBefore> failed;
  if (slot.state != State::kGone) {
    failed = FailedBefore{slot.state, slot.definition, slot.version};
  }
  slot.definition = service->definition;
  slot.version = *version;
  Join(slot, key, id, asked, AnswerBy(absl::nullopt, now));
  Begin(slot, catalog_.versions.no_starts, now, effects,
        Registration{id, request.endpoint()});
  slot.failed_before = std::move(failed);
}

// It says nothing about the backends that we start: who waited has one of those
// started, or is refused where those have failed.
void Machine::RegistrationFailed(Slot& slot, const StartFailure& failure,
                                 Time now, Effects* effects) {
  const NegotiationId registrant = std::exchange(slot.registrant, 0);
  slot.state = State::kGone;
  slot.since = now;
  slot.leaving.clear();
  if (slot.failed_before.has_value()) {
    slot.state = slot.failed_before->state;
    slot.definition = std::move(slot.failed_before->definition);
    slot.version = std::move(slot.failed_before->version);
    slot.failed_before = absl::nullopt;
  }
  AnswerRetirers(slot, absl::nullopt, effects);
  const auto waits =
      std::find(slot.waiters.begin(), slot.waiters.end(), registrant);
  if (waits != slot.waiters.end()) {
    slot.waiters.erase(waits);
    RefusalFacts facts;
    facts.evidence = failure.evidence;
    if (failure.short_of_descriptors) facts.retry_after = kStillStartingRetry;
    AnswerWith(
        registrant,
        Refuse(failure.short_of_descriptors ? v1::REFUSAL_FD_PRESSURE
                                            : v1::REFUSAL_REGISTRATION_INVALID,
               failure.text, slot.definition.name(), slot.version.version,
               std::move(facts)),
        effects);
  }
  DecideAgain(slot, now, effects);
}

void Machine::AnswerWith(NegotiationId id, Outcome outcome, Effects* effects) {
  const auto found = waiting_.find(id);
  if (found != waiting_.end()) {
    deadlines_.erase({found->second.answer_by, id});
    waiting_.erase(found);
  }
  newest_.erase(id);
  if (const auto* refused = std::get_if<Refused>(&outcome);
      refused != nullptr && !refused->wanted) {
    counters_->Add(absl::StrCat("refused.", TraitsOf(refused->refusal()).name));
  }
  effects->push_back(Answer{id, std::move(outcome)});
}

void Machine::RefuseForEnd(NegotiationId id, const v1::NegotiateRequest& asked,
                           Effects* effects) {
  AnswerWith(id,
             Refuse(v1::REFUSAL_SHUTTING_DOWN, "the broker is shutting down",
                    asked.service(), asked.wanted_version(),
                    {{}, {}, limits_.first_backoff}),
             effects);
}

void Machine::RefuseIfHurried(NegotiationId id,
                              const v1::NegotiateRequest& asked,
                              Effects* effects) {
  if (!hurried_ || waiting_.count(id) == 0) return;
  Cancel(id);
  RefuseForEnd(id, asked, effects);
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
  newest_.erase(id);
}

void Machine::CatalogLoaded(Catalog catalog, bool forgive, Time now,
                            Effects* effects) {
  catalog_ = std::move(catalog);
  catalog_loaded_ = true;
  catalog_loaded_at_ = now;
  refreshing_ = false;
  effects->push_back(RoutesChanged{});
  for (auto& [key, slot] : slots_) {
    if (forgive && std::exchange(slot.failed_before, absl::nullopt)) {
      slot.failures.clear();
    }
    if (slot.state == State::kBroken || slot.state == State::kBackoff) {
      // A changed definition or binary is a new chance for what had failed.
      const auto known = catalog_.services.find(key.first);
      const InstalledVersion* installed = FindInstalled(key);
      if (!forgive && installed != nullptr &&
          installed->binary_identity == slot.version.binary_identity &&
          google::protobuf::util::MessageDifferencer::Equals(
              known->second.definition, slot.definition)) {
        continue;
      }
      slot.state = State::kGone;
      slot.since = now;
      slot.failures.clear();
    } else if (slot.state == State::kReady) {
      std::string why = ReasonToLeave(key, slot);
      if (!why.empty()) {
        BeginDrain(slot, std::move(why), now, effects);
      } else {
        LookWhenIdle(key, slot, now);
      }
    }
    if (IsBlocked(key)) DecideAgain(slot, now, effects);
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

void Machine::GoOnWith(const v1::ServiceDefinition& definition,
                       InstalledVersion version,
                       absl::optional<Leaving> leaving, Time now,
                       Effects* effects) {
  Slot& slot = slots_[{definition.name(), version.version}];
  if (slot.state != State::kGone || shutting_down_) return;
  slot.definition = definition;
  slot.version = std::move(version);
  Begin(slot, "the one that an earlier broker left has ended", now, effects);
  slot.adopting = true;
  if (!leaving.has_value()) return;
  std::get<StartBackend>(effects->back()).plan.leaving = true;
  counters_->Add("backends_adopted");
  slot.backend = std::move(leaving->backend);
  ++slot.generation;
  if (leaving->asked_to_end) {
    SetLeaving(slot, std::move(leaving->why), effects);
    End(slot, now, effects);
  } else {
    BeginDrain(slot, std::move(leaving->why), now, effects);
  }
}

void Machine::Expect(const std::string& service, const std::string& version) {
  Slot& slot = slots_[{service, version}];
  slot.expected = slot.state == State::kGone;
}

bool Machine::Expects(const std::string& service,
                      const std::string& version) const {
  const Slot* const slot = FindSlot({service, version});
  return slot != nullptr && slot->expected;
}

void Machine::ExpectNoMore(const std::string& service,
                           const std::string& version, Time now,
                           Effects* effects) {
  const auto found = slots_.find({service, version});
  if (found == slots_.end()) return;
  Slot& slot = found->second;
  if (!std::exchange(slot.expected, false)) return;
  // Where it is being registered this moment, that decides.
  if (slot.state == State::kGone) DecideAgain(slot, now, effects);
}

std::pair<const Machine::Key, Machine::Slot>* Machine::FindByStart(StartId id) {
  for (auto& entry : slots_) {
    if (entry.second.start == id) return &entry;
  }
  return nullptr;
}

const Machine::Slot* Machine::FindSlot(const Key& key) const {
  const auto found = slots_.find(key);
  return found != slots_.end() ? &found->second : nullptr;
}

const InstalledVersion* Machine::FindInstalled(const Key& key) const {
  const auto known = catalog_.services.find(key.first);
  if (known == catalog_.services.end()) return nullptr;
  for (const InstalledVersion& version : known->second.versions) {
    if (version.version == key.second) return &version;
  }
  return nullptr;
}

bool Machine::IsBlocked(const Key& key) const {
  return !WhyBlocked(catalog_.versions, key.first, key.second).empty();
}

std::string Machine::ReasonToLeave(const Key& key, const Slot& slot) const {
  // Whoever started it decides about it.
  if (slot.backend.foreign) return "";
  if (!slot.leaving.empty()) return slot.leaving;
  if (IsBlocked(key)) {
    return WhyBlocked(catalog_.versions, key.first, key.second);
  }
  // Without a successor it stays: nobody is served better by its end.
  const InstalledVersion* installed = FindInstalled(key);
  if (installed != nullptr &&
      installed->binary_identity != slot.version.binary_identity) {
    return "binary replaced";
  }
  return "";
}

absl::Duration Machine::IdleLimit(const Key& key, const Slot& slot) const {
  const VersionPolicy& policy = catalog_.versions;
  if (slot.backend.foreign || policy.pinned.count(key) > 0) {
    return absl::InfiniteDuration();
  }
  const auto known = catalog_.services.find(key.first);
  const v1::ServiceDefinition& definition = known != catalog_.services.end()
                                                ? known->second.definition
                                                : slot.definition;
  absl::Duration limit = FromProto(definition.idle_stop());
  if (limit == absl::ZeroDuration()) limit = absl::InfiniteDuration();
  if (policy.keep_newest == 0 || known == catalog_.services.end()) return limit;
  const auto& versions = known->second.versions;
  for (size_t i = 0; i < std::min(policy.keep_newest, versions.size()); ++i) {
    if (versions[i].version == key.second) return limit;
  }
  return std::min(limit, policy.keep_used_for);
}

void Machine::LookWhenIdle(const Key& key, Slot& slot, Time now) const {
  const absl::Duration limit = IdleLimit(key, slot);
  slot.look_at = absl::nullopt;
  if (limit != absl::InfiniteDuration()) {
    slot.look_at = std::max(now, slot.used_at + limit);
  }
}

void Machine::SetLeaving(Slot& slot, std::string why, Effects* effects) {
  slot.leaving = std::move(why);
  effects->push_back(NoteLeaving{slot.start, slot.leaving});
}

void Machine::BeginDrain(Slot& slot, std::string why, Time now,
                         Effects* effects) {
  if (shutting_down_) return;
  counters_->Add("backends_drained");
  slot.state = State::kDraining;
  slot.since = now;
  SetLeaving(slot, std::move(why), effects);
  slot.in_flight = absl::nullopt;
  slot.look_pause = limits_.first_look;
  slot.look_at = now + slot.look_pause;
  effects->push_back(RoutesChanged{});
  effects->push_back(WithdrawBackend{slot.start});
}

void Machine::End(Slot& slot, Time now, Effects* effects) {
  slot.state = State::kEnding;
  slot.since = now;
  slot.look_at = absl::nullopt;
  effects->push_back(RoutesChanged{});
  effects->push_back(StopBackend{slot.start});
}

void Machine::Looked(StartId id, InFlight seen, Time now, Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr) return;
  auto& [key, slot] = *found;
  if (slot.state == State::kReady) {
    // What was in flight at the last look has ended since, nobody knows when;
    // and so may have what was when it was adopted.
    const bool was_busy = slot.in_flight.has_value() ? slot.in_flight->any()
                                                     : slot.backend.adopted;
    slot.in_flight = seen;
    if (seen.any() || seen.used || was_busy) {
      slot.used_at = now;
      LookWhenIdle(key, slot, now);
      return;
    }
    // A limit that has grown meanwhile, or is none any more.
    const absl::Duration unused = Between(slot.used_at, now);
    if (unused < IdleLimit(key, slot)) {
      LookWhenIdle(key, slot, now);
      return;
    }
    counters_->Add("backends_idle");
    BeginDrain(slot, absl::StrCat("unused for ", absl::FormatDuration(unused)),
               now, effects);
  } else if (slot.state == State::kDraining) {
    if (!seen.any()) {
      End(slot, now, effects);
      return;
    }
    slot.in_flight = std::move(seen);
    slot.look_pause = std::min(slot.look_pause * 2, limits_.longest_look);
    slot.look_at = now + slot.look_pause;
  }
}

void Machine::StartSucceeded(StartId id, StartedBackend backend, Time now,
                             Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr || found->second.state != State::kStarting) return;
  Slot* const slot = &found->second;
  counters_->Add(backend.adopted ? "backends_adopted" : "backends_started");
  slot->state = State::kReady;
  slot->since = now;
  slot->backend = std::move(backend);
  slot->failures.clear();
  slot->last_failure = {};
  slot->registrant = 0;
  slot->expected = false;
  slot->used_at = now;
  slot->in_flight = absl::nullopt;
  LookWhenIdle(found->first, *slot, now);
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
  // Those who waited have their route; the next ones get its successor's.
  std::string why = ReasonToLeave(found->first, *slot);
  if (!slot->leaving.empty()) why = slot->leaving;
  if (!why.empty()) BeginDrain(*slot, std::move(why), now, effects);
}

void Machine::StartFailed(StartId id, StartFailure failure, Time now,
                          Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr) return;
  Slot* const slot = &found->second;
  if (slot->state == State::kEnding) {
    // It was stopped before it was ready, which is no failure of its own.
    slot->last_failure.log_file = failure.log_file;
    Ended(*slot, {std::move(failure.text)}, now, effects);
    return;
  }
  if (slot->state != State::kStarting) return;
  if (slot->registrant != 0) {
    RegistrationFailed(*slot, failure, now, effects);
    return;
  }
  if (failure.forbidden || failure.short_of_descriptors) {
    slot->state = State::kGone;
    slot->since = now;
    slot->leaving.clear();
    AnswerRetirers(*slot, absl::nullopt, effects);
    if (std::exchange(slot->adopting, false)) {
      // There was nothing to go on with; who wants one may have one started.
      DecideAgain(*slot, now, effects);
      return;
    }
    const v1::Refusal why = failure.forbidden ? v1::REFUSAL_VERSION_BLOCKED
                                              : v1::REFUSAL_FD_PRESSURE;
    RefusalFacts facts;
    if (!failure.forbidden) facts.retry_after = kStillStartingRetry;
    RefuseWaiters(*slot,
                  Refuse(why, failure.text, slot->definition.name(),
                         slot->version.version, std::move(facts)),
                  effects);
    return;
  }
  counters_->Add("start_failures");
  slot->leaving.clear();
  AnswerRetirers(*slot, absl::nullopt, effects);
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
  RefuseWaiters(*slot,
                StartRefusal(*slot, slot->last_failure.text, retry_after),
                effects);
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

void Machine::RefuseWaiters(Slot& slot, const Refused& refused,
                            Effects* effects) {
  for (const NegotiationId waiter : std::exchange(slot.waiters, {})) {
    AnswerWith(waiter, refused, effects);
  }
}

void Machine::BackendEnding(StartId id, std::vector<std::string> wedged,
                            Time now, Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr) return;
  Slot& slot = found->second;
  if (slot.state != State::kReady && slot.state != State::kDraining) return;
  if (!wedged.empty()) counters_->Add("backends_wedged");
  slot.state = State::kEnding;
  slot.since = now;
  slot.look_at = absl::nullopt;
  slot.wedged = std::move(wedged);
  effects->push_back(RoutesChanged{});
}

void Machine::BackendUnreachable(StartId id, std::string why, Time now,
                                 Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr || found->second.state != State::kReady) return;
  BeginDrain(found->second, std::move(why), now, effects);
}

void Machine::BackendGone(StartId id, std::vector<std::string> evidence,
                          Time now, Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr) return;
  Slot& slot = found->second;
  if (slot.state != State::kReady && slot.state != State::kDraining &&
      slot.state != State::kEnding) {
    return;
  }
  counters_->Add("backends_ended");
  slot.last_failure.log_file = slot.backend.log_file;
  slot.ended.emplace_back(slot.backend.pid, slot.backend.start_time);
  if (slot.ended.size() > kEndedKept) slot.ended.pop_front();
  Ended(slot, std::move(evidence), now, effects);
}

bool Machine::GiveUpLease(StartId id, Time now, Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr || (found->second.state != State::kReady &&
                           found->second.state != State::kDraining)) {
    return false;
  }
  BackendEnding(id, {}, now, effects);
  return true;
}

void Machine::LeaseEnded(StartId id, Time now, Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr || found->second.state != State::kEnding) return;
  Slot& slot = found->second;
  counters_->Add("leases_ended");
  AnswerReporters(slot, v1::BACKEND_VERDICT_UNKNOWN, {}, effects);
  slot.leaving = "its lease ended";
  Ended(slot, {}, now, effects);
}

void Machine::Ended(Slot& slot, std::vector<std::string> evidence, Time now,
                    Effects* effects) {
  slot.state = State::kGone;
  slot.since = now;
  slot.look_at = absl::nullopt;
  std::vector<std::string> all = std::exchange(slot.wedged, {});
  slot.last_end = std::exchange(slot.leaving, "");
  if (!all.empty()) slot.last_end = absl::StrCat("wedged: ", all.front());
  all.insert(all.end(), evidence.begin(), evidence.end());
  if (slot.last_end.empty() && !all.empty()) slot.last_end = all.front();
  slot.last_failure.evidence = all;
  effects->push_back(RoutesChanged{});
  AnswerReporters(slot, v1::BACKEND_VERDICT_GONE, all, effects);
  AnswerRetirers(slot, absl::nullopt, effects);
  // Who asked while it was ending gets the next one, of what is installed now.
  DecideAgain(slot, now, effects);
}

void Machine::DecideAgain(Slot& slot, Time now, Effects* effects) {
  for (const NegotiationId waiting : std::exchange(slot.waiters, {})) {
    const Waiter waiter = waiting_[waiting];
    deadlines_.erase({waiter.answer_by, waiting});
    waiting_.erase(waiting);
    Decide(waiting, waiter.request, waiter.answer_by,
           /*catalog_is_fresh=*/false, now, effects);
  }
}

void Machine::Start(NegotiationId id, const v1::NegotiateRequest& request,
                    absl::optional<Time> deadline, Time now, Effects* effects) {
  const auto found = slots_.find({request.service(), request.wanted_version()});
  if (found != slots_.end() && (found->second.state == State::kBroken ||
                                found->second.state == State::kBackoff)) {
    found->second.state = State::kGone;
    found->second.since = now;
    found->second.failures.clear();
  }
  Negotiate(id, request, deadline, now, effects);
}

void Machine::Stop(RetireId id, const std::string& service,
                   const std::string& version, absl::optional<Time> deadline,
                   Time now, Effects* effects) {
  const Key key{service, version};
  const auto found = slots_.find(key);
  if (found != slots_.end() && !shutting_down_) {
    Slot& slot = found->second;
    if (slot.state == State::kStarting || slot.state == State::kReady ||
        slot.state == State::kDraining) {
      SetLeaving(slot, "stop asked for", effects);
      End(slot, now, effects);
    }
  }
  Retire(id, key, deadline, now, effects);
}

void Machine::Drain(RetireId id, const std::string& service,
                    const std::string& version, absl::optional<Time> deadline,
                    Time now, Effects* effects) {
  const Key key{service, version};
  const auto found = slots_.find(key);
  if (found != slots_.end() && !shutting_down_) {
    Slot& slot = found->second;
    // One that starts has its callers served first.
    if (slot.state == State::kStarting) {
      SetLeaving(slot, "drain asked for", effects);
    }
    if (slot.state == State::kReady) {
      BeginDrain(slot, "drain asked for", now, effects);
    }
  }
  Retire(id, key, deadline, now, effects);
}

void Machine::Retire(RetireId id, const Key& key, absl::optional<Time> deadline,
                     Time now, Effects* effects) {
  const auto refuse = [&](Refused refused) {
    counters_->Add(absl::StrCat("refused.", TraitsOf(refused.refusal()).name));
    effects->push_back(AnswerRetire{id, std::move(refused)});
  };
  if (shutting_down_) {
    refuse(Refuse(v1::REFUSAL_SHUTTING_DOWN, "the broker is shutting down",
                  key.first, key.second));
    return;
  }
  const auto found = slots_.find(key);
  if (found == slots_.end() || found->second.start == 0) {
    // Nothing of it was ever there: a slip of the pen is told.
    v1::NegotiateRequest request;
    request.set_service(key.first);
    request.set_wanted_version(key.second);
    const CatalogService* service = nullptr;
    const InstalledVersion* version = nullptr;
    absl::optional<Refused> refused = CheckRequest(request, &service, &version);
    if (refused.has_value()) {
      refuse(*std::move(refused));
    } else {
      effects->push_back(AnswerRetire{id, absl::nullopt});
    }
    return;
  }
  Slot& slot = found->second;
  if (slot.state != State::kStarting && slot.state != State::kDraining &&
      slot.state != State::kEnding) {
    effects->push_back(AnswerRetire{id, absl::nullopt});
    return;
  }
  slot.retirers.push_back(id);
  retire_deadlines_.emplace(AnswerBy(deadline, now), id);
  if (hurried_) AnswerRetirers(slot, absl::nullopt, effects);
}

void Machine::AnswerRetirers(Slot& slot, const absl::optional<Refused>& refused,
                             Effects* effects) {
  for (const RetireId retirer : std::exchange(slot.retirers, {})) {
    TakeOut(&retire_deadlines_, retirer);
    effects->push_back(AnswerRetire{retirer, refused});
  }
}

Machine::Slot* Machine::FindReported(const v1::ReportBackendRequest& report) {
  const std::pair<uint32_t, uint64_t> reported{report.pid(),
                                               report.start_time()};
  for (auto& [key, slot] : slots_) {
    if (key != Key(report.service(), report.version())) continue;
    const bool lives =
        (slot.state == State::kReady || slot.state == State::kDraining ||
         slot.state == State::kEnding) &&
        std::make_pair(slot.backend.pid, slot.backend.start_time) == reported;
    if (lives || std::find(slot.ended.begin(), slot.ended.end(), reported) !=
                     slot.ended.end()) {
      return &slot;
    }
  }
  return nullptr;
}

void Machine::Report(ReportId id, const v1::ReportBackendRequest& report,
                     absl::optional<Time> deadline, Time now,
                     Effects* effects) {
  const auto refuse = [&](v1::Refusal refusal, absl::string_view text) {
    counters_->Add(absl::StrCat("refused.", TraitsOf(refusal).name));
    effects->push_back(
        AnswerReport{id, Refuse(refusal, std::string(text), report.service(),
                                report.version())});
  };
  counters_->Add("reports");
  if (const absl::Status status = ipc::CheckServiceName(report.service());
      !status.ok()) {
    refuse(v1::REFUSAL_SERVICE_NAME_INVALID, status.message());
    return;
  }
  if (const absl::Status status = ipc::CheckVersion(report.version());
      !status.ok()) {
    refuse(v1::REFUSAL_VERSION_INVALID, status.message());
    return;
  }
  if (shutting_down_) {
    refuse(v1::REFUSAL_SHUTTING_DOWN, "the broker is shutting down");
    return;
  }
  Slot* const slot = FindReported(report);
  const auto answer = [&](v1::BackendVerdict verdict) {
    v1::ReportBackendResponse response;
    response.set_verdict(verdict);
    effects->push_back(AnswerReport{id, std::move(response)});
  };
  if (slot == nullptr) {
    answer(v1::BACKEND_VERDICT_UNKNOWN);
    return;
  }
  const bool lives =
      (slot->state == State::kReady || slot->state == State::kDraining ||
       slot->state == State::kEnding) &&
      slot->backend.pid == report.pid() &&
      slot->backend.start_time == report.start_time();
  if (!lives) {
    answer(v1::BACKEND_VERDICT_GONE);
    return;
  }
  const bool first = slot->reporters.empty();
  slot->reporters.push_back(id);
  report_deadlines_.emplace(AnswerBy(deadline, now), id);
  if (first && slot->state != State::kEnding) {
    effects->push_back(ExamineBackend{slot->start});
  }
  if (hurried_) AnswerReporters(*slot, v1::BACKEND_VERDICT_BUSY, {}, effects);
}

void Machine::Examined(StartId id, const std::vector<std::string>& evidence,
                       Time, Effects* effects) {
  auto* const found = FindByStart(id);
  if (found == nullptr || (found->second.state != State::kReady &&
                           found->second.state != State::kDraining)) {
    return;
  }
  AnswerReporters(found->second, v1::BACKEND_VERDICT_BUSY, evidence, effects);
}

void Machine::AnswerReporters(Slot& slot, v1::BackendVerdict verdict,
                              const std::vector<std::string>& evidence,
                              Effects* effects) {
  v1::ReportBackendResponse response;
  response.set_verdict(verdict);
  for (const std::string& line : evidence) {
    response.add_evidence(ipc::Escape(line));
  }
  for (const ReportId reporter : std::exchange(slot.reporters, {})) {
    if (!TakeOut(&report_deadlines_, reporter)) continue;
    effects->push_back(AnswerReport{reporter, response});
  }
}

void Machine::Tick(Time now, Effects* effects) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const NegotiationId id = deadlines_.begin()->second;
    const Waiter waiter = waiting_[id];
    std::string text = "the definitions are still being read; try again";
    if (waiter.key.has_value()) {
      const Slot& slot = slots_[*waiter.key];
      text =
          slot.expected ? "the one that had registered itself with the broker "
                          "before this one is awaited; try again"
          : slot.state == State::kDraining
              ? absl::StrCat("the one before it still drains (", slot.leaving,
                             "; ", Describe(slot.in_flight), "); try again")
              : "it is still starting; try again";
    }
    Cancel(id);
    AnswerWith(
        id,
        Refuse(v1::REFUSAL_BACKEND_START_FAILED, text, waiter.request.service(),
               waiter.request.wanted_version(), {{}, {}, kStillStartingRetry}),
        effects);
  }
  while (!report_deadlines_.empty() &&
         report_deadlines_.begin()->first <= now) {
    // It stays in its slot's list and is not answered from there again.
    const ReportId id = report_deadlines_.begin()->second;
    report_deadlines_.erase(report_deadlines_.begin());
    v1::ReportBackendResponse response;
    response.set_verdict(v1::BACKEND_VERDICT_BUSY);
    effects->push_back(AnswerReport{id, std::move(response)});
  }
  while (!retire_deadlines_.empty() &&
         retire_deadlines_.begin()->first <= now) {
    const RetireId id = retire_deadlines_.begin()->second;
    retire_deadlines_.erase(retire_deadlines_.begin());
    for (auto& [key, slot] : slots_) {
      auto& retirers = slot.retirers;
      retirers.erase(std::remove(retirers.begin(), retirers.end(), id),
                     retirers.end());
    }
    effects->push_back(AnswerRetire{id, absl::nullopt});
  }
  if (shutting_down_) return;
  for (auto& [key, slot] : slots_) {
    if (!slot.look_at.has_value() || *slot.look_at > now) continue;
    slot.look_at = absl::nullopt;
    effects->push_back(
        LookAtBackend{slot.start, slot.backend.pid, slot.backend.start_time});
  }
}

void Machine::Hurry(Effects* effects) {
  hurried_ = true;
  const std::map<NegotiationId, Waiter> waiting = waiting_;
  for (const auto& [id, waiter] : waiting) {
    Cancel(id);
    RefuseForEnd(id, waiter.request, effects);
  }
  for (auto& [key, slot] : slots_) {
    AnswerReporters(slot, v1::BACKEND_VERDICT_BUSY, {}, effects);
    AnswerRetirers(slot, absl::nullopt, effects);
  }
}

void Machine::Shutdown(bool stop_backends, Time now, Effects* effects) {
  shutting_down_ = true;
  effects->push_back(RoutesChanged{});
  const std::map<NegotiationId, Waiter> waiting = waiting_;
  for (const auto& [id, waiter] : waiting) {
    Cancel(id);
    Decide(id, waiter.request, waiter.answer_by, true, now, effects);
  }
  for (auto& [key, slot] : slots_) {
    AnswerReporters(slot, v1::BACKEND_VERDICT_BUSY, {}, effects);
    AnswerRetirers(slot,
                   Refuse(v1::REFUSAL_SHUTTING_DOWN,
                          "the broker is shutting down", key.first, key.second),
                   effects);
  }
  if (!stop_backends) return;
  for (const auto& [key, slot] : slots_) {
    if (slot.state == State::kReady || slot.state == State::kStarting ||
        slot.state == State::kDraining || slot.state == State::kEnding) {
      effects->push_back(StopBackend{slot.start});
    }
  }
}

absl::optional<Time> Machine::NextDeadline() const {
  absl::optional<Time> next;
  const auto at = [&next](Time time) {
    next = next.has_value() ? std::min(*next, time) : time;
  };
  if (!deadlines_.empty()) at(deadlines_.begin()->first);
  if (!report_deadlines_.empty()) at(report_deadlines_.begin()->first);
  if (!retire_deadlines_.empty()) at(retire_deadlines_.begin()->first);
  if (shutting_down_) return next;
  for (const auto& [key, slot] : slots_) {
    if (slot.look_at.has_value()) at(*slot.look_at);
  }
  return next;
}

v1::BackendState Machine::StateOf(const std::string& service,
                                  const std::string& version) const {
  const Slot* slot = FindSlot({service, version});
  if (slot == nullptr) return v1::BACKEND_STATE_UNSPECIFIED;
  switch (slot->state) {
    case State::kStarting:
      return v1::BACKEND_STATE_STARTING;
    case State::kReady:
      return v1::BACKEND_STATE_READY;
    case State::kDraining:
      return v1::BACKEND_STATE_DRAINING;
    case State::kEnding:
      return v1::BACKEND_STATE_ENDING;
    default:
      return v1::BACKEND_STATE_UNSPECIFIED;
  }
}

bool Machine::idle() const {
  return waiting_.empty() &&
         std::all_of(slots_.begin(), slots_.end(), [](const auto& entry) {
           return entry.second.state == State::kGone ||
                  entry.second.state == State::kBackoff ||
                  entry.second.state == State::kBroken;
         });
}

absl::optional<std::string> Machine::EndpointToLeave(
    const std::string& service, const std::string& version) const {
  const Slot* slot = FindSlot({service, version});
  if (slot == nullptr || slot->backend.registered ||
      (slot->state != State::kReady && slot->state != State::kDraining)) {
    return absl::nullopt;
  }
  return slot->backend.endpoint;
}

v1::BackendRoute Machine::RouteOf(const Slot& slot) const {
  v1::BackendRoute route;
  route.set_endpoint(slot.backend.endpoint);
  for (const v1::WireLane lane : slot.version.lanes) route.add_lanes(lane);
  route.set_version(slot.version.version);
  route.set_pid(slot.backend.pid);
  route.set_start_time(slot.backend.start_time);
  route.set_boot_id(slot.backend.boot_id);
  route.set_named_route(slot.backend.named_route);
  route.set_generation(slot.generation);
  return route;
}

RouteTable Machine::Routes() const {
  RouteTable table(world_);
  if (shutting_down_) return table;
  for (const auto& [name, service] : catalog_.services) {
    table.AddService(name);
    for (const InstalledVersion& version : service.versions) {
      const Slot* slot = FindSlot({name, version.version});
      if (slot == nullptr || slot->state != State::kReady ||
          IsBlocked({name, version.version})) {
        continue;
      }
      table.Add(name, service.definition.endpoint_rule(), RouteOf(*slot));
    }
  }
  return table;
}

size_t Machine::ConcurrentStarts() const {
  return std::min(
      limits_.concurrent_starts,
      catalog_.versions.concurrent_starts.value_or(limits_.concurrent_starts));
}

size_t Machine::WaitersPerStart() const {
  return std::min(
      limits_.waiters_per_start,
      catalog_.versions.waiters_per_start.value_or(limits_.waiters_per_start));
}

size_t Machine::StartsInProgress() const {
  return std::count_if(slots_.begin(), slots_.end(), [](const auto& entry) {
    return entry.second.state == State::kStarting && !entry.second.adopting;
  });
}

v1::Backend Machine::RowOf(const Key& key, const Slot& slot, Time now,
                           absl::Time wall_now) const {
  v1::Backend row;
  row.set_service(key.first);
  row.set_version(key.second);
  row.set_binary(slot.version.binary);
  row.set_failed_starts(static_cast<uint32_t>(slot.failures.size()));
  row.set_last_end(ipc::Escape(slot.last_end));
  *row.mutable_since() = ToProto(wall_now - Between(slot.since, now));
  if (!slot.last_failure.text.empty()) {
    row.add_evidence(ipc::Escape(slot.last_failure.text));
  }
  for (const std::string& line : slot.last_failure.evidence) {
    row.add_evidence(ipc::Escape(line));
  }
  row.set_log_file(slot.last_failure.log_file);
  switch (slot.state) {
    case State::kStarting:
      row.set_state(v1::BACKEND_STATE_STARTING);
      break;
    case State::kReady:
    case State::kDraining:
      row.set_state(slot.reporters.empty() ? v1::BACKEND_STATE_READY
                                           : v1::BACKEND_STATE_SUSPECT);
      *row.mutable_route() = RouteOf(slot);
      row.set_origin(slot.backend.adopted ? v1::ROUTE_ORIGIN_ADOPTED
                                          : v1::ROUTE_ORIGIN_STARTED);
      row.set_log_file(slot.backend.log_file);
      row.set_direct_endpoint(slot.backend.direct_endpoint);
      if (slot.state == State::kReady) break;
      row.set_state(v1::BACKEND_STATE_DRAINING);
      row.add_evidence(ipc::Escape(slot.leaving));
      row.add_evidence(ipc::Escape(Describe(slot.in_flight)));
      break;
    case State::kEnding:
      row.set_state(slot.wedged.empty() ? v1::BACKEND_STATE_ENDING
                                        : v1::BACKEND_STATE_WEDGED);
      if (!slot.leaving.empty()) row.add_evidence(ipc::Escape(slot.leaving));
      for (const std::string& line : slot.wedged) {
        row.add_evidence(ipc::Escape(line));
      }
      break;
    case State::kBackoff:
      row.set_state(v1::BACKEND_STATE_BACKOFF);
      *row.mutable_retry_at() = ToProto(wall_now + Between(now, slot.retry_at));
      break;
    case State::kBroken:
      row.set_state(v1::BACKEND_STATE_BROKEN);
      break;
    case State::kGone:
      row.set_state(v1::BACKEND_STATE_GONE);
      break;
  }
  return row;
}

v1::Backend Machine::DescribeBackend(const std::string& service,
                                     const std::string& version, Time now,
                                     absl::Time wall_now) const {
  const Key key{service, version};
  const Slot* slot = FindSlot(key);
  if (slot != nullptr && slot->start != 0) {
    return RowOf(key, *slot, now, wall_now);
  }
  v1::Backend row;
  row.set_service(service);
  row.set_version(version);
  row.set_state(v1::BACKEND_STATE_GONE);
  return row;
}

v1::ListBackendsResponse Machine::ListBackends(Time now,
                                               absl::Time wall_now) const {
  v1::ListBackendsResponse response;
  for (const auto& [key, slot] : slots_) {
    if (slot.start == 0) continue;
    *response.add_backends() = RowOf(key, slot, now, wall_now);
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
