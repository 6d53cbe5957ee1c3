#include "service/host/host.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "asio/dispatch.hpp"
#include "asio/post.hpp"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/escape.h"
#include "ipc/listener.h"
#include "ipc/process.h"
#include "ipc/route_info.h"
#include "ipc/socket.h"
#include "ipc/spare_memory.h"
#include "ipc/status_macros.h"
#include "ipc/zccache_rules.h"
#include "proto/zcbroker/v1/refusals.h"
#include "proto/zcbroker/v1/times.h"
#include "proto/zcbroker/version.h"
#include "service/core/definition.h"
#include "service/core/trace_context.h"
#include "service/host/descriptors.h"
#include "service/host/journal.h"
#include "service/host/log.h"
#include "service/host/process_group.h"

namespace zcbroker::service {
namespace {

// Beyond the longest grace a definition may have (60 s).
constexpr std::chrono::seconds kStopPatience(62);

// Whoever stops a daemon looks whether its name is gone; zccache does so every
// 100 ms (seen).
constexpr std::chrono::milliseconds kHideAfterStop(1000);
// How long clients of a dead broker may take to act on its end.
constexpr std::chrono::seconds kElders(10);
// How long a client that distrusts a backend takes to kill it.
constexpr std::chrono::seconds kDistrust(3);
// Replies under way when the broker is told to end.
constexpr std::chrono::milliseconds kRelayPatience(5000);
// The same when it is replaced: nobody waits for its end.
constexpr std::chrono::minutes kRelayPatienceAfterHandOver(10);
constexpr std::chrono::seconds kIdleAfterHandOver(10);
constexpr size_t kMaxReasonBytes = 200;
// Until a backend of another world may have ended.
constexpr absl::Duration kOtherWorldRetry = absl::Seconds(1);
constexpr absl::Duration kShortRetry = absl::Milliseconds(500);
// When a backend that gave up its lease is taken for one that lives on.
constexpr std::chrono::milliseconds kAfterLease(250);
// How long a backend that had registered itself with an earlier broker is
// waited for, longer than the longest pause between its attempts
// (client/lease.h), and how often it is looked at meanwhile.
constexpr std::chrono::seconds kRegistrantReturns(6);
constexpr std::chrono::milliseconds kLookAtRegistrant(100);
constexpr char kShortText[] = "the broker is out of file descriptors";

Time Now() { return std::chrono::steady_clock::now(); }

// What an earlier broker had begun with a backend; nothing: it goes on.
absl::optional<Leaving> LeavingOf(const v1::JournalEntry& entry) {
  const v1::RouteInfo& left = entry.backend();
  Leaving leaving;
  leaving.why = entry.leaving();
  leaving.asked_to_end = entry.asked_to_end();
  if (leaving.why.empty() && leaving.asked_to_end) {
    leaving.why = "stopped with an earlier broker";
  }
  if (leaving.why.empty() && entry.served() &&
      absl::IsNotFound(ipc::IdentifyFile(left.endpoint()).status())) {
    leaving.why = absl::StrCat("its socket ", left.endpoint(), " was removed");
  }
  if (leaving.why.empty()) return absl::nullopt;
  leaving.backend.endpoint = left.endpoint();
  leaving.backend.pid = left.pid();
  leaving.backend.start_time = left.start_time();
  leaving.backend.boot_id = left.boot_id();
  leaving.backend.adopted = true;
  leaving.backend.foreign = entry.adopted();
  leaving.backend.log_file = entry.log_file();
  return leaving;
}

// Only the end of another broker makes victims.
RelayLimits WithElders(RelayLimits limits, bool took_over) {
  if (took_over) limits.elders_for = kElders;
  return limits;
}

v1::Event EventAbout(v1::EventKind kind, const std::string& service,
                     const std::string& version, uint32_t pid,
                     std::string text) {
  v1::Event event;
  event.set_kind(kind);
  event.set_service(service);
  event.set_version(version);
  event.set_pid(pid);
  event.set_text(std::move(text));
  return event;
}

void SetEvidence(const std::vector<std::string>& lines, v1::Event* event) {
  const size_t first = lines.size() - std::min(lines.size(), kMaxEvidenceLines);
  for (size_t i = first; i < lines.size(); ++i) {
    event->add_evidence(ipc::Escape(lines[i]));
  }
}

}  // namespace

Host::Host(asio::io_context& loop, Reaper& reaper, KeeperLine& keeper,
           HostOptions options, std::map<std::string, ipc::UniqueFd> held)
    : loop_(loop),
      reaper_(reaper),
      options_(std::move(options)),
      surroundings_([this] {
        Surroundings around = options_.surroundings;
        around.world = options_.world;
        around.is_public_name = [this](const std::string& path) {
          return names_ != nullptr && names_->Holds(path);
        };
        around.is_connected = [this](int pid) {
          return is_connected_ && is_connected_(pid);
        };
        around.public_names_of = [this](const std::string& service,
                                        const std::string& version) {
          return names_ != nullptr ? names_->PathsOf(service, version)
                                   : std::vector<std::string>();
        };
        return around;
      }()),
      started_at_(absl::Now()),
      started_(Now()),
      machine_(options_.limits, options_.world, &counters_,
               std::random_device()()),
      other_worlds_(options_.limits, surroundings_, &counters_),
      loader_(loop, reaper, options_.definitions),
      timer_(loop),
      stop_timer_(loop),
      limit_timer_(loop),
      relay_(Relay::Create(
          loop, WithElders(options_.relay_limits, /*took_over=*/!held.empty()),
          *this, counters_, options_.world)),
      routes_(std::make_shared<RouteTable>(options_.world)),
      route_watch_(routes_) {
  counters_.OnReached([this](const std::string& counter, uint64_t count) {
    asio::post(loop_, [this, counter, count] {
      auto event = limit_notes_.Note(counter, count, Now());
      if (event.has_value()) {
        Note(*std::move(event));
      } else {
        TellOfLimitsLater();
      }
    });
  });
  other_worlds_.has_runs = [this](const OtherWorld& world) {
    return std::any_of(runs_.begin(), runs_.end(), [&](const auto& run) {
      return other_worlds_.WhoseStart(run.first) == &world;
    });
  };
  PublicNameEvents events;
  events.accepted = [this](ipc::UniqueFd fd, const ipc::PeerIdentity& peer,
                           const PublicName& name) {
    relay_->Admit(std::move(fd), peer.pid,
                  {name.path, name.service, name.version,
                   name.probe == v1::PROBE_ZCCACHE_PING});
  };
  events.make_room = [this] { relay_->EndIdle(1); };
  events.occupied = [this](const PublicName& name, const Probed& occupant) {
    AdoptOccupant(name, occupant);
  };
  events.has_backend = [this](const PublicName& name) {
    return PresenceOf(name.service, name.version) != Presence::kNone;
  };
  events.removed = [this] { LookAtFiles(); };
  names_ = PublicNames::Create(loop, *surroundings_.runtime,
                               options_.served_uid, keeper, counters_,
                               std::move(held), std::move(events));
}

Host::~Host() = default;

template <typename Event>
void Host::With(Machine& machine, Event event) {
  Effects effects;
  event(machine, Now(), &effects);
  Apply(std::move(effects));
}

template <typename Event>
void Host::WithAll(Event event) {
  With(machine_, event);
  for (const auto& other : other_worlds_.all()) With(other->machine, event);
}

template <typename Event>
void Host::WithStarter(StartId id, Event event) {
  OtherWorld* const other = other_worlds_.WhoseStart(id);
  With(other != nullptr ? other->machine : machine_, std::move(event));
}

Machine* Host::MachineOf(const BackendName& name) {
  const auto& services = machine_.catalog().services;
  const auto known = services.find(name.service);
  const bool has_worlds =
      known != services.end() &&
      known->second.definition.endpoint_rule() == v1::ENDPOINT_RULE_ZCCACHE;
  if (!name.world.has_value()) return &machine_;
  v1::World theirs = *name.world;
  if (!has_worlds) {
    theirs.clear_cache_root();
    theirs.clear_daemon_namespace();
  }
  if (other_worlds_.IsOwn(theirs)) return &machine_;
  OtherWorld* const other = other_worlds_.Find(theirs);
  return other != nullptr ? &other->machine : nullptr;
}

size_t Host::waiters() const {
  size_t waiters = machine_.waiters();
  for (const auto& other : other_worlds_.all()) {
    waiters += other->machine.waiters();
  }
  return waiters;
}

void Host::Note(v1::Event event) {
  LogEvent(events_.Add(std::move(event), absl::Now()));
}

void Host::TellOfLimitsLater() {
  const absl::optional<Time> due = limit_notes_.NextDue();
  if (!due.has_value() || limit_timer_.expiry() == *due) return;
  limit_timer_.expires_at(*due);
  limit_timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    for (v1::Event& event : limit_notes_.Overdue(Now())) Note(std::move(event));
    TellOfLimitsLater();
  });
}

void Host::Start() {
  Note(EventAbout(
      v1::EVENT_KIND_BROKER_STARTED, "", "", static_cast<uint32_t>(getpid()),
      absl::StrCat("zcbrokerd ", kVersion, " serves ", options_.endpoint)));
  WatchDefinitions();
  WatchPolicy();
  LoadCatalog(/*forgive=*/false, [] {});
}

void Host::WatchDefinitions() {
  auto watch = DirectoryWatch::Create(
      loop_, options_.definitions.services_dir, /*writes=*/true,
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

// As above; without the directory there is no policy.
void Host::WatchPolicy() {
  const std::string& file = options_.definitions.policy_file;
  const size_t slash = file.rfind('/');
  if (slash == std::string::npos) return;
  auto watch = DirectoryWatch::Create(
      loop_, file.substr(0, std::max<size_t>(slash, 1)), /*writes=*/true,
      [this, leaf = file.substr(slash + 1)](const std::string& name) {
        if (name.empty() || name == leaf) {
          LoadCatalog(/*forgive=*/false, [] {});
        }
      });
  policy_watch_ = watch.ok() ? *std::move(watch) : nullptr;
}

// A binary that is replaced is noticed when it happens: its backend drains, or
// what was broken gets a new chance.
void Host::WatchBinaries() {
  std::set<std::string> binaries;
  for (const auto& [name, service] : machine_.catalog().services) {
    for (const v1::Binary& binary : service.definition.binaries()) {
      binaries.insert(binary.path());
    }
    for (const InstalledVersion& version : service.versions) {
      binaries.insert(version.binary);
    }
  }
  // What a link leads to may be replaced, too.
  for (const std::string& path : std::set<std::string>(binaries)) {
    char resolved[PATH_MAX];
    if (realpath(path.c_str(), resolved) != nullptr) binaries.insert(resolved);
  }
  if (binaries == binaries_ && binaries_watch_ != nullptr) return;
  binaries_ = std::move(binaries);
  std::set<std::string> directories;
  std::set<std::string> names;
  for (const std::string& path : binaries_) {
    const size_t slash = path.rfind('/');
    directories.insert(path.substr(0, std::max<size_t>(slash, 1)));
    names.insert(path.substr(slash + 1));
  }
  auto watch = DirectoryWatch::CreateForAll(
      loop_, directories, /*writes=*/true,
      [this, names = std::move(names)](const std::string& name) {
        if (!name.empty() && names.count(name) == 0) return;
        // A directory that is gone may come back: watched anew after reading.
        if (name.empty()) binaries_.clear();
        LoadCatalog(/*forgive=*/false, [] {});
      });
  if (!watch.ok()) {
    LogWarning(absl::StrCat("replaced binaries are noticed late: ",
                            std::string(watch.status().message())));
  }
  binaries_watch_ = watch.ok() ? *std::move(watch) : nullptr;
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
    if (!stopping_) GoOnWithJournals(catalog);
    if (!definitions_read_) other_worlds_.RemoveForgotten();
    WithAll([&](Machine& machine, Time now, Effects* effects) {
      machine.CatalogLoaded(catalog, forgive, now, effects);
    });
    // The broker is about to wait, and starting took most of its code.
    if (!definitions_read_.exchange(true)) ipc::GiveBackCodePages();
    NoteDefinitions();
    const ConnectionLimits& limits = machine_.catalog().connection_limits;
    relay_->SetLimit(limits.relayed_connections);
    if (limits_) limits_(limits);
    for (const auto& [id, request] : std::exchange(early_leases_, {})) {
      BeginLease(id, request);
    }
    AnswerEarlyQuestions();
    if (!stopping_) {
      WatchBinaries();
      ServePublicNames();
    }
    then();
  });
}

void Host::NoteDefinitions() {
  std::vector<std::string> services;
  for (const v1::ServiceSummary& service : machine_.Services()) {
    services.push_back(absl::StrCat(
        service.name(), " (",
        service.versions().empty() ? "no usable binary"
                                   : absl::StrJoin(service.versions(), ", "),
        ")"));
  }
  const size_t problems = machine_.catalog().problems.size();
  std::string text = absl::StrCat(
      services.empty() ? "no services" : absl::StrJoin(services, ", "), "; ",
      problems, problems == 1 ? " problem" : " problems");
  if (text == noted_definitions_) return;
  noted_definitions_ = text;
  Note(EventAbout(v1::EVENT_KIND_DEFINITIONS_CHANGED, "", "", 0,
                  std::move(text)));
}

// --- Public names

void Host::ServePublicNames() {
  names_->Serve(NamesOf(machine_.catalog(), surroundings_, options_.claim));
}

void Host::RestoreFiles() {
  if (stopping_) return;
  names_->Restore();
  other_worlds_.ReopenDirectories();
  LookAtFiles();
}

void Host::LookAtFiles() {
  for (auto& [id, run] : runs_) run->LookAtFiles();
}

// A client's own daemon, or one that an earlier broker left a link to: it
// becomes a backend, if it is one that we know.
void Host::AdoptOccupant(const PublicName& name, const Probed& occupant) {
  const std::string version =
      occupant.version.empty() ? name.version : occupant.version;
  Route(name.service, version, /*may_start=*/true,
        [this, path = name.path](const Outcome& outcome) {
          const auto* routed = std::get_if<v1::NegotiateResponse>(&outcome);
          if (routed == nullptr || stopping_) return;
          const std::string& endpoint = routed->route().endpoint();
          const auto own = ipc::IdentifyFile(endpoint);
          const auto there = ipc::IdentifyFile(path);
          if (endpoint != path && own.ok() && there.ok() && *own == *there) {
            names_->TakeOver(path);
          }
        });
}

// What an earlier broker left running is gone on with before anybody asks,
// however much it is, since nothing is started for it, and whatever is
// installed now: nobody else would look where it listens, and a second one
// would write its cache. What it left of backends that have ended is cleaned
// up.
void Host::GoOnWithJournals(const Catalog& catalog) {
  if (!std::exchange(journals_read_, true)) {
    left_ = ReadJournals(surroundings_.backends_dir);
    WithdrawStaleRoutes();
  }
  for (const auto& [id, entry] : std::exchange(left_, {})) {
    const v1::RouteInfo& left = entry.backend();
    if (left.pid() == 0) continue;
    const ipc::ProcessIdentity process{static_cast<int>(left.pid()),
                                       left.start_time(), left.boot_id()};
    if (!ipc::IsAlive(process)) {
      ForgetWithGroup(id, entry);
      continue;
    }
    const auto known = catalog.services.find(left.service());
    if (known == catalog.services.end()) {
      // Its definition may have a mistake now, and be mended.
      left_.emplace_back(id, entry);
      continue;
    }
    if (entry.registered() && entry.leaving().empty() &&
        !entry.asked_to_end()) {
      const absl::StatusOr<Machine*> its =
          MachineFor(entry, known->second.definition.endpoint_rule());
      if (its.ok() && *its == &machine_) {
        machine_.Expect(left.service(), left.version());
        AwaitRegistrant(id, entry, Now() + kRegistrantReturns);
      } else {
        // It cannot register with this broker, whose world is another.
        Forget(id, entry);
      }
      continue;
    }
    LogInfo(absl::StrCat("an earlier broker left ", left.service(), " ",
                         left.version(), ", process ", left.pid()));
    InstalledVersion version;
    version.version = left.version();
    version.binary = left.binary();
    version.binary_identity = entry.binary_identity();
    for (const uint32_t lane : left.lanes()) {
      version.lanes.push_back(static_cast<v1::WireLane>(lane));
    }
    const absl::StatusOr<Machine*> machine =
        MachineFor(entry, known->second.definition.endpoint_rule());
    if (!machine.ok()) {
      LogWarning(absl::StrCat("process ", left.pid(), " is left alone: ",
                              std::string(machine.status().message())));
      left_.emplace_back(id, entry);
      continue;
    }
    absl::optional<Leaving> leaving = LeavingOf(entry);
    With(**machine, [&](Machine& its, Time now, Effects* effects) {
      its.GoOnWith(known->second.definition, std::move(version),
                   std::move(leaving), now, effects);
    });
  }
}

// A broker that was killed withdraws nothing, and where its backend's journal
// is gone, too, nobody else would. Only the own world's: in others nobody
// registers, so each info has its journal.
void Host::WithdrawStaleRoutes() {
  const ipc::RuntimeDir& dir = *surroundings_.runtime;
  const auto is_left = [this](const v1::RouteInfo& info) {
    return std::any_of(left_.begin(), left_.end(), [&](const auto& left) {
      const v1::RouteInfo& backend = left.second.backend();
      return backend.service() == info.service() &&
             backend.version() == info.version() &&
             backend.pid() == info.pid() &&
             backend.start_time() == info.start_time();
    });
  };
  const auto services = ipc::ListRouteServices(dir);
  if (!services.ok()) return;
  for (const std::string& service : *services) {
    const auto versions = ipc::ListRouteVersions(dir, service);
    if (!versions.ok()) continue;
    for (const std::string& version : *versions) {
      const auto info = ipc::ReadRouteInfo(dir, service, version);
      // Of one that has ended it goes with its journal.
      if (!info.ok() || is_left(*info)) continue;
      LogInfo(absl::StrCat("withdrawing the route of ", service, " ", version,
                           " to process ", info->pid(),
                           ", of which no journal tells"));
      ipc::RemoveRouteInfo(dir, service, version).IgnoreError();
    }
  }
}

// Until it is there again, has ended, or does not come. Looked at by the clock:
// it takes no descriptor for each, and lasts a few seconds of a broker's life.
void Host::AwaitRegistrant(const std::string& id, const v1::JournalEntry& entry,
                           Time until) {
  const auto timer = std::make_shared<asio::steady_timer>(loop_);
  timer->expires_after(kLookAtRegistrant);
  timer->async_wait(
      [this, id, entry, until, timer](const asio::error_code& error) {
        const v1::RouteInfo& left = entry.backend();
        if (error || stopping_ ||
            !machine_.Expects(left.service(), left.version())) {
          return;
        }
        const ipc::ProcessIdentity process{static_cast<int>(left.pid()),
                                           left.start_time(), left.boot_id()};
        const bool lives = ipc::IsAlive(process);
        if (lives && Now() < until) {
          AwaitRegistrant(id, entry, until);
          return;
        }
        LogInfo(absl::StrCat(left.service(), " ", left.version(), ": process ",
                             left.pid(),
                             lives ? " did not register again"
                                   : " ended without registering again"));
        if (lives) {
          Forget(id, entry);
        } else {
          ForgetWithGroup(id, entry);
        }
        With([&](Machine& machine, Time now, Effects* effects) {
          machine.ExpectNoMore(left.service(), left.version(), now, effects);
        });
      });
}

// Of the world it was started for, which may be another one than this broker's
// even where it was its predecessor's own.
absl::StatusOr<Machine*> Host::MachineFor(const v1::JournalEntry& entry,
                                          v1::EndpointRule rule) {
  if (entry.backend().mount_namespace() != options_.world.mount_namespace()) {
    return absl::FailedPreconditionError("it lives in another mount namespace");
  }
  if (rule != v1::ENDPOINT_RULE_ZCCACHE) return &machine_;
  v1::World world;
  world.set_cache_root(entry.backend().cache_root());
  world.set_daemon_namespace(entry.backend().daemon_namespace());
  world.set_mount_namespace(entry.backend().mount_namespace());
  if (other_worlds_.IsOwn(world)) return &machine_;
  ZCB_ASSIGN_OR_RETURN(OtherWorld* const other, other_worlds_.Open(world));
  return &other->machine;
}

void Host::ForgetWithGroup(const std::string& id,
                           const v1::JournalEntry& ended) {
  if (ended.backend().group() == 0) {
    Forget(id, ended);
    return;
  }
  EndOrphanedGroup(loop_, static_cast<pid_t>(ended.backend().group()),
                   ended.backend().start_time(),
                   [this, id, ended] { Forget(id, ended); });
}

// What a backend left that ended while no broker was there. Its successor may
// have begun meanwhile: it has written its own.
void Host::Forget(const std::string& id, const v1::JournalEntry& ended) {
  const Journal journal(surroundings_.backends_dir, id);
  const absl::StatusOr<v1::JournalEntry> now = journal.Read();
  if (!now.ok() || now->backend().pid() != ended.backend().pid()) return;
  journal.Remove();
  const v1::RouteInfo& left = ended.backend();
  const auto forget_route = [&](const ipc::RuntimeDir& dir) {
    const auto info = ipc::ReadRouteInfo(dir, left.service(), left.version());
    if (info.ok() && info->pid() == left.pid()) {
      ipc::RemoveRouteInfo(dir, left.service(), left.version()).IgnoreError();
    }
  };
  forget_route(*surroundings_.runtime);
  const absl::StatusOr<ipc::RuntimeDir> other =
      surroundings_.runtime->FindWorld(
          ipc::ZccacheWorldId({left.cache_root(), left.daemon_namespace()}));
  if (other.ok()) forget_route(*other);
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(left.endpoint());
  if (!ended.adopted() && endpoint.ok() &&
      absl::IsUnavailable(
          ipc::Connect(*endpoint, ipc::Deadline::After(absl::ZeroDuration()))
              .status())) {
    RemoveSocket(*endpoint).IgnoreError();
  }
}

// --- What the relay asks

absl::optional<v1::BackendRoute> Host::Ready(const std::string& service,
                                             const std::string& version) {
  if (successor_.has_value()) return successor_->Route(service, version);
  v1::NegotiateRequest request;
  request.set_service(service);
  request.set_wanted_version(version);
  auto response = TryRoute(request);
  if (!response.has_value()) return absl::nullopt;
  return std::move(*response->mutable_route());
}

NegotiationId Host::Route(const std::string& service,
                          const std::string& version, bool may_start,
                          std::function<void(Outcome)> done) {
  v1::NegotiateRequest request;
  request.set_service(service);
  request.set_wanted_version(version);
  request.set_start_policy(may_start ? v1::START_POLICY_IF_NEEDED
                                     : v1::START_POLICY_ONLY_IF_RUNNING);
  const NegotiationId id = next_negotiation_++;
  callers_[id].done = std::move(done);
  asio::post(loop_, [this, id, request = std::move(request)] {
    // Given up meanwhile.
    if (callers_.count(id) == 0) return;
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.Negotiate(id, request, absl::nullopt, now, effects);
    });
  });
  return id;
}

void Host::GiveUp(NegotiationId id) { Cancel(id); }

void Host::Report(const v1::ReportBackendRequest& report,
                  std::function<void(v1::BackendVerdict)> done) {
  if (successor_.has_value()) {
    successor_->Report(report, std::move(done));
    return;
  }
  ReportBackend(report, absl::nullopt,
                [done = std::move(done)](const ReportOutcome& outcome) {
                  const auto* response =
                      std::get_if<v1::ReportBackendResponse>(&outcome);
                  done(response != nullptr ? response->verdict()
                                           : v1::BACKEND_VERDICT_UNKNOWN);
                });
}

Presence Host::PresenceOf(const std::string& service,
                          const std::string& version) {
  // Whatever it is, the successor knows better.
  if (successor_.has_value()) return Presence::kReady;
  switch (machine_.StateOf(service, version)) {
    case v1::BACKEND_STATE_READY:
      return Presence::kReady;
    case v1::BACKEND_STATE_STARTING:
      return Presence::kStarting;
    case v1::BACKEND_STATE_DRAINING:
    case v1::BACKEND_STATE_ENDING:
      return Presence::kLeaving;
    default:
      return Presence::kNone;
  }
}

void Host::Distrusted(const std::string& service, const std::string& version) {
  distrusted_until_[{service, version}] = Now() + kDistrust;
}

void Host::Stopped(const std::string& service, const std::string& version) {
  names_->Hide(service, version, kHideAfterStop);
}

void Host::Replayed(const std::string& service, const std::string& version,
                    uint32_t lost_pid) {
  Note(EventAbout(v1::EVENT_KIND_REQUEST_REPLAYED, service, version, lost_pid,
                  "a request that it had not answered is sent again"));
}

EventLog::ReadId Host::ReadEvents(uint64_t after, bool wait,
                                  EventLog::Done done) {
  const EventLog::ReadId id = next_negotiation_++;
  asio::post(loop_, [this, id, after, wait, done = std::move(done)]() mutable {
    events_.Read(id, after, wait && !streams_ended_, std::move(done));
  });
  return id;
}

void Host::ForgetEvents(EventLog::ReadId id) {
  asio::post(loop_, [this, id] { events_.Forget(id); });
}

RouteWatch::ReadId Host::ReadRoutes(RouteWatch::Table seen,
                                    RouteWatch::Done done) {
  const RouteWatch::ReadId id = next_negotiation_++;
  asio::post(loop_, [this, id, seen = std::move(seen), done = std::move(done)] {
    route_watch_.Read(id, seen, done);
  });
  return id;
}

void Host::ForgetRoutes(RouteWatch::ReadId id) {
  asio::post(loop_, [this, id] { route_watch_.Forget(id); });
}

void Host::OnStopping(std::function<void()> stopping) {
  stopping_begins_ = std::move(stopping);
}

void Host::OnStopped(std::function<void()> stopped) {
  stopped_ = std::move(stopped);
}

void Host::AddProblem(absl::string_view where, absl::string_view what) {
  v1::Problem& problem = problems_.emplace_back();
  problem.set_where(ipc::Escape(where));
  problem.set_what(ipc::Escape(what));
  LogWarning(absl::StrCat(problem.where(), ": ", problem.what()));
}

void Host::SetConnectionCounter(std::function<size_t()> connections) {
  connections_ = std::move(connections);
}

void Host::SetConnectedCheck(std::function<bool(int pid)> is_connected) {
  is_connected_ = std::move(is_connected);
}

void Host::OnLimits(std::function<void(const ConnectionLimits&)> limits) {
  limits_ = std::move(limits);
}

void Host::BeginStop() {
  stopping_ = true;
  Note(EventAbout(v1::EVENT_KIND_BROKER_STOPPING, "", "",
                  static_cast<uint32_t>(getpid()), "the broker goes away"));
  definitions_watch_.reset();
  policy_watch_.reset();
  binaries_watch_.reset();
  EndStreams();
  AnswerEarlyQuestions();
  if (stopping_begins_) stopping_begins_();
}

void Host::Stop(bool stop_backends) {
  if (successor_.has_value()) {
    relay_->Drain(kRelayPatience, [this] { RelayDrained(); });
  }
  if (stopping_) return;
  LogInfo(absl::StrCat("stopping; backends ",
                       stop_backends ? "end too" : "go on running"));
  BeginStop();
  WithAll([&](Machine& machine, Time now, Effects* effects) {
    machine.Shutdown(stop_backends, now, effects);
  });
  timer_.cancel();
  armed_for_ = absl::nullopt;
  names_->Leave([&](const PublicName& name) -> absl::optional<std::string> {
    if (stop_backends) return absl::nullopt;
    return machine_.EndpointToLeave(name.service, name.version);
  });
  relay_->Drain(kRelayPatience, [this] { RelayDrained(); });
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

void Host::StopAccepting() {
  if (!stopping_) names_->StopAccepting();
}

void Host::Hurry() {
  WithAll(
      [](Machine& machine, Time, Effects* effects) { machine.Hurry(effects); });
}

void Host::HandOver() {
  if (stopping_) return;
  LogInfo(absl::StrCat("handed over; serving ", relay_->connections(),
                       " relayed connections on"));
  BeginStop();
  // Before anything else happens to them.
  runs_.clear();
  WithAll([](Machine& machine, Time now, Effects* effects) {
    machine.Shutdown(/*stop_backends=*/false, now, effects);
  });
  timer_.cancel();
  armed_for_ = absl::nullopt;
  names_->HandOver();
  successor_.emplace(loop_, *surroundings_.runtime, options_.endpoint);
  relay_->ServeOn(kIdleAfterHandOver, kRelayPatienceAfterHandOver,
                  [this] { RelayDrained(); });
}

void Host::RelayDrained() {
  relay_drained_ = true;
  MaybeStopped();
}

void Host::MaybeStopped() {
  if (!stopping_ || !runs_.empty() || !relay_drained_) return;
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
  if (const auto* refused = std::get_if<Refused>(&answer.outcome);
      refused != nullptr && !refused->wanted) {
    v1::Event event =
        EventAbout(v1::EVENT_KIND_REFUSED, refused->detail.service(),
                   refused->detail.version(), 0, refused->text);
    event.set_refusal(refused->refusal());
    *event.mutable_evidence() = refused->detail.evidence();
    if (found != callers_.end()) {
      event.set_traceparent(found->second.traceparent);
    }
    Note(std::move(event));
  }
  if (found == callers_.end()) return;
  const auto done = std::move(found->second.done);
  callers_.erase(found);
  done(std::move(answer.outcome));
}

void Host::Carry(const service::StartBackend& start) {
  const StartId id = start.plan.id;
  if (!RoomForDescriptors(kDescriptorsOfStart)) {
    // Later, since this is within an event.
    asio::post(loop_, [this, id] {
      StartFailure failure;
      failure.text = kShortText;
      failure.short_of_descriptors = true;
      WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
        machine.StartFailed(id, std::move(failure), now, effects);
      });
    });
    return;
  }
  if (start.plan.registration.has_value()) {
    const auto lease = leases_.find(start.plan.registration->lease);
    if (lease != leases_.end()) lease->second.start = id;
  }
  // What is noted of it.
  const auto about = std::make_shared<v1::Event>(
      EventAbout(v1::EVENT_KIND_BACKEND_STARTING, start.plan.definition.name(),
                 start.plan.version.version, 0, start.plan.version.binary));
  about->set_traceparent(start.plan.traceparent);
  // Whoever asks what runs starts nothing.
  if (start.plan.only_adopt.empty()) Note(*about);
  const auto note = [this, about](v1::EventKind kind, std::string text,
                                  const std::vector<std::string>& evidence) {
    v1::Event event = EventAbout(kind, about->service(), about->version(),
                                 about->pid(), std::move(text));
    SetEvidence(evidence, &event);
    Note(std::move(event));
  };
  BackendEvents events;
  events.started = [this, id, about, registration = start.plan.registration](
                       StartedBackend backend) {
    about->set_pid(backend.pid);
    v1::Event ready =
        EventAbout(v1::EVENT_KIND_BACKEND_READY, about->service(),
                   about->version(), backend.pid, backend.endpoint);
    ready.set_traceparent(about->traceparent());
    ready.set_origin(backend.adopted ? v1::ROUTE_ORIGIN_ADOPTED
                                     : v1::ROUTE_ORIGIN_STARTED);
    for (const v1::NegotiationStep& step : backend.steps) {
      metrics_.Observe(step);
      *ready.add_steps() = step;
    }
    Note(std::move(ready));
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.StartSucceeded(id, std::move(backend), now, effects);
    });
    // It was given up meanwhile.
    if (registration.has_value() && leases_.count(registration->lease) == 0) {
      LetGo(id);
    }
  };
  events.failed = [this, id, about](StartFailure failure) {
    if (!failure.forbidden) {
      v1::Event failed =
          EventAbout(v1::EVENT_KIND_BACKEND_START_FAILED, about->service(),
                     about->version(), 0, failure.text);
      failed.set_traceparent(about->traceparent());
      SetEvidence(failure.evidence, &failed);
      Note(std::move(failed));
    }
    failure.short_of_descriptors |= !RoomForDescriptors(kDescriptorsOfStart);
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.StartFailed(id, std::move(failure), now, effects);
    });
    RunEnded(id);
  };
  events.ending = [this, id, note](std::vector<std::string> wedged) {
    if (!wedged.empty()) {
      note(v1::EVENT_KIND_BACKEND_WEDGED, "found wedged; it is being ended",
           wedged);
    }
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.BackendEnding(id, std::move(wedged), now, effects);
    });
  };
  events.unreachable = [this, id](std::string why) {
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.BackendUnreachable(id, std::move(why), now, effects);
    });
  };
  events.looked = [this, id](InFlight seen) {
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.Looked(id, std::move(seen), now, effects);
    });
  };
  events.examined = [this, id](const std::vector<std::string>& evidence) {
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.Examined(id, evidence, now, effects);
    });
  };
  const std::pair<std::string, std::string> key{start.plan.definition.name(),
                                                start.plan.version.version};
  events.gone = [this, id, key, note](std::vector<std::string> evidence) {
    note(v1::EVENT_KIND_BACKEND_ENDED,
         evidence.empty() ? "it has ended" : evidence.front(), evidence);
    LeaseOver(id, absl::nullopt);
    WithStarter(id, [&](Machine& machine, Time now, Effects* effects) {
      machine.BackendGone(id, std::move(evidence), now, effects);
    });
    const auto distrusted = distrusted_until_.find(key);
    if (distrusted != distrusted_until_.end() && !stopping_) {
      const bool still = Now() < distrusted->second;
      if (!still) distrusted_until_.erase(distrusted);
      if (still) {
        Route(key.first, key.second, /*may_start=*/true, [](const Outcome&) {});
      }
    }
    RunEnded(id);
  };
  const OtherWorld* const other = other_worlds_.WhoseStart(id);
  runs_[id] = BackendRun::Create(
      loop_, reaper_, other != nullptr ? other->surroundings : surroundings_,
      start.plan, std::move(events));
}

void Host::RunEnded(StartId id) {
  // Not from within the run's own callback.
  asio::post(loop_, [this, id] {
    runs_.erase(id);
    MaybeStopped();
  });
}

void Host::Carry(const service::StopBackend& stop) {
  const auto found = runs_.find(stop.id);
  if (found != runs_.end()) found->second->Stop();
}

void Host::Carry(const WithdrawBackend& withdraw) {
  const auto found = runs_.find(withdraw.id);
  if (found != runs_.end()) found->second->Withdraw();
}

void Host::Carry(const NoteLeaving& note) {
  const auto found = runs_.find(note.id);
  if (found == runs_.end()) return;
  found->second->NoteLeaving(note.why);
  const StartPlan& plan = found->second->plan();
  Note(EventAbout(v1::EVENT_KIND_BACKEND_DRAINING, plan.definition.name(),
                  plan.version.version, found->second->pid(), note.why));
}

void Host::Carry(const LookAtBackend& look) {
  relay_->LetGo(look.pid, look.start_time);
  const auto found = runs_.find(look.id);
  if (found != runs_.end()) found->second->LookInside();
}

void Host::Carry(const ExamineBackend& examine) {
  const auto found = runs_.find(examine.id);
  if (found != runs_.end()) found->second->Examine();
}

void Host::Carry(AnswerReport answer) {
  const auto found = reporters_.find(answer.id);
  if (found == reporters_.end()) return;
  const auto done = std::move(found->second);
  reporters_.erase(found);
  done(std::move(answer.outcome));
}

void Host::Carry(AnswerRetire answer) {
  const auto found = retirers_.find(answer.id);
  if (found == retirers_.end()) return;
  const auto done = std::move(found->second);
  retirers_.erase(found);
  done(std::move(answer.refused));
}

void Host::Carry(const PassOn& pass) {
  const std::string& service = pass.request.service();
  const std::string& version = pass.request.wanted_version();
  const bool is_new = other_worlds_.Find(pass.request.world()) == nullptr;
  const absl::StatusOr<OtherWorld*> other =
      other_worlds_.Open(pass.request.world());
  if (!other.ok()) {
    const v1::Refusal refusal = absl::IsFailedPrecondition(other.status())
                                    ? v1::REFUSAL_RATE_LIMITED
                                : absl::IsResourceExhausted(other.status())
                                    ? v1::REFUSAL_FD_PRESSURE
                                    : v1::REFUSAL_BACKEND_START_FAILED;
    counters_.Add(absl::StrCat("refused.", TraitsOf(refusal).name));
    Carry(Answer{
        pass.id,
        Refuse(
            refusal,
            absl::StrCat("your world: ", std::string(other.status().message())),
            service, version, {{}, {"other worlds"}, kOtherWorldRetry})});
    return;
  }
  Machine& machine = (*other)->machine;
  if (is_new) {
    With(machine, [&](Machine& its, Time now, Effects* effects) {
      its.CatalogLoaded(machine_.catalog(), /*forgive=*/false, now, effects);
      if (machine_.hurried()) its.Hurry(effects);
    });
  }
  With(machine, [&](Machine& its, Time now, Effects* effects) {
    its.PassedOn(pass.id, pass.request, pass.answer_by, now, effects);
  });
}

void Host::Carry(const RefreshCatalog&) {
  LoadCatalog(/*forgive=*/false, [] {});
}

void Host::Carry(const RoutesChanged&) {
  const auto routes = std::make_shared<const RouteTable>(machine_.Routes());
  {
    std::lock_guard<std::mutex> lock(routes_mutex_);
    routes_ = routes;
  }
  route_watch_.Publish(routes);
}

void Host::ArmTimer() {
  absl::optional<Time> deadline = machine_.NextDeadline();
  for (const auto& other : other_worlds_.all()) {
    const absl::optional<Time> its = other->machine.NextDeadline();
    if (its.has_value()) deadline = std::min(deadline.value_or(*its), *its);
  }
  if (deadline == armed_for_) return;
  armed_for_ = deadline;
  if (!deadline.has_value()) {
    timer_.cancel();
    return;
  }
  timer_.expires_at(*deadline);
  timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    armed_for_ = absl::nullopt;
    WithAll([](Machine& machine, Time now, Effects* effects) {
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
  if (!IsTraceparent(request.traceparent())) request.clear_traceparent();
  asio::dispatch(loop_, [this, id, request = std::move(request), deadline,
                         done = std::move(done), asked = Now()]() mutable {
    callers_[id] = {[this, asked, done = std::move(done)](Outcome outcome) {
                      metrics_.ObserveAnswer(absl::FromChrono(Now() - asked));
                      done(std::move(outcome));
                    },
                    request.traceparent()};
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.Negotiate(id, request, deadline, now, effects);
    });
    RefuseWaitingIfShort(id, request);
  });
  return id;
}

// Who waits has a connection meanwhile, perhaps of the reserve, which is there
// for the next ones.
void Host::RefuseWaitingIfShort(NegotiationId id,
                                const v1::NegotiateRequest& request) {
  if (callers_.count(id) == 0 || RoomForDescriptors(1)) return;
  CancelInAll(id);
  ArmTimer();
  counters_.Add("refused.FD_PRESSURE");
  Carry(
      Answer{id, Refuse(v1::REFUSAL_FD_PRESSURE, kShortText, request.service(),
                        request.wanted_version(), {{}, {}, kShortRetry})});
}

void Host::Cancel(NegotiationId id) {
  asio::dispatch(loop_, [this, id] {
    CancelInAll(id);
    callers_.erase(id);
  });
}

// It may have been passed on.
void Host::CancelInAll(NegotiationId id) {
  machine_.Cancel(id);
  for (const auto& other : other_worlds_.all()) other->machine.Cancel(id);
}

void Host::LookUp(v1::NegotiateRequest request,
                  std::function<void(LookupOutcome)> done) {
  if (!IsTraceparent(request.traceparent())) request.clear_traceparent();
  asio::dispatch(
      loop_, [this, request = std::move(request), done = std::move(done)] {
        const NegotiationId id = next_negotiation_++;
        callers_[id].traceparent = request.traceparent();
        callers_[id].done = [this, service = request.service(),
                             world = request.world(),
                             done](const Outcome& outcome) {
          if (const auto* refused = std::get_if<Refused>(&outcome)) {
            done(*refused);
            return;
          }
          const v1::BackendRoute& route =
              std::get<v1::NegotiateResponse>(outcome).route();
          // The run has written it by now; without it the launcher has less.
          const OtherWorld* const other = other_worlds_.Find(world);
          const Surroundings& around =
              other != nullptr ? other->surroundings : surroundings_;
          const auto written =
              ipc::ReadRouteInfo(*around.runtime, service, route.version());
          if (written.ok() && written->pid() == route.pid()) {
            done(*written);
            return;
          }
          v1::RouteInfo info;
          info.set_service(service);
          info.set_version(route.version());
          info.set_endpoint(route.endpoint());
          for (const int lane : route.lanes()) info.add_lanes(lane);
          info.set_pid(route.pid());
          info.set_start_time(route.start_time());
          info.set_boot_id(route.boot_id());
          info.set_cache_root(around.world.cache_root());
          info.set_daemon_namespace(around.world.daemon_namespace());
          info.set_mount_namespace(around.world.mount_namespace());
          info.set_generation(route.generation());
          done(std::move(info));
        };
        With([&](Machine& machine, Time now, Effects* effects) {
          if (request.wanted_version().empty()) {
            machine.NegotiateNewest(id, request, absl::nullopt, now, effects);
          } else {
            machine.Negotiate(id, request, absl::nullopt, now, effects);
          }
        });
        RefuseWaitingIfShort(id, request);
      });
}

void Host::ReportBackend(v1::ReportBackendRequest report,
                         absl::optional<Time> deadline,
                         std::function<void(ReportOutcome)> done) {
  asio::post(loop_, [this, report = std::move(report), deadline,
                     done = std::move(done)]() mutable {
    const ReportId id = next_report_++;
    reporters_[id] = std::move(done);
    if (report.reason().size() > kMaxReasonBytes) {
      report.mutable_reason()->resize(kMaxReasonBytes);
    }
    LogDebug(absl::StrCat("reported: ", ipc::Escape(report.service()), " ",
                          ipc::Escape(report.version()), ", process ",
                          report.pid(), ": ", ipc::Escape(report.reason())));
    Machine* its = &machine_;
    for (const auto& other : other_worlds_.all()) {
      if (other->machine.Knows(report)) its = &other->machine;
    }
    With(*its, [&](Machine& machine, Time now, Effects* effects) {
      machine.Report(id, report, deadline, now, effects);
    });
  });
}

LeaseId Host::Register(v1::RegisterRequest request,
                       std::function<void(v1::RegisterResponse)> registered,
                       std::function<void(absl::optional<Refused>)> ended) {
  const LeaseId id = next_negotiation_++;
  asio::post(loop_, [this, id, request = std::move(request),
                     registered = std::move(registered),
                     ended = std::move(ended)]() mutable {
    leases_[id] = Lease{std::move(registered), std::move(ended), 0};
    if (definitions_read_ || stopping_) {
      BeginLease(id, request);
    } else {
      early_leases_.emplace_back(id, std::move(request));
    }
  });
  return id;
}

void Host::BeginLease(LeaseId id, const v1::RegisterRequest& request) {
  if (leases_.count(id) == 0) return;
  callers_[id].done = [this, id](Outcome outcome) {
    LeaseDecided(id, std::move(outcome));
  };
  With([&](Machine& machine, Time now, Effects* effects) {
    machine.Register(id, request, now, effects);
  });
}

void Host::LeaseDecided(LeaseId id, Outcome outcome) {
  const auto found = leases_.find(id);
  if (found == leases_.end()) return;
  if (auto* refused = std::get_if<Refused>(&outcome)) {
    const auto ended = std::move(found->second.ended);
    leases_.erase(found);
    ended(std::move(*refused));
    return;
  }
  counters_.Add("backends_registered");
  v1::RegisterResponse response;
  *response.mutable_route() =
      std::move(*std::get<v1::NegotiateResponse>(outcome).mutable_route());
  found->second.registered(std::move(response));
}

void Host::EndLease(LeaseId id) {
  asio::post(loop_, [this, id] {
    const auto found = leases_.find(id);
    if (found == leases_.end()) return;
    const StartId start = found->second.start;
    const auto ended = std::move(found->second.ended);
    leases_.erase(found);
    if (callers_.erase(id) > 0) {
      // Not there yet: let go when it is.
      machine_.Cancel(id);
      ArmTimer();
    } else {
      LetGo(start);
    }
    ended(absl::nullopt);
  });
}

// The backend of a lease has ended.
void Host::LeaseOver(StartId id, absl::optional<Refused> why) {
  const auto found = std::find_if(
      leases_.begin(), leases_.end(),
      [id](const auto& entry) { return entry.second.start == id; });
  if (found == leases_.end()) return;
  const auto ended = std::move(found->second.ended);
  leases_.erase(found);
  ended(std::move(why));
}

// A connection ends a moment before the process that had it does, so it is not
// taken for one that lives at once.
void Host::LetGo(StartId id) {
  const auto found = runs_.find(id);
  if (found == runs_.end() || stopping_) return;
  bool given_up = false;
  With([&](Machine& machine, Time now, Effects* effects) {
    given_up = machine.GiveUpLease(id, now, effects);
  });
  if (!given_up) return;
  found->second->Release();
  const auto timer = std::make_shared<asio::steady_timer>(loop_, kAfterLease);
  timer->async_wait([this, id, timer](const asio::error_code& error) {
    if (error || stopping_ || runs_.erase(id) == 0) return;
    With([&](Machine& machine, Time now, Effects* effects) {
      machine.LeaseEnded(id, now, effects);
    });
  });
}

void Host::EndStreams() {
  streams_ended_ = true;
  events_.End();
  route_watch_.End();
  for (const auto& [id, lease] : std::exchange(leases_, {})) {
    if (callers_.erase(id) > 0) machine_.Cancel(id);
    lease.ended(Refuse(v1::REFUSAL_SHUTTING_DOWN, "the broker is going away",
                       "", "", {{}, {}, kShortRetry}));
  }
}

void Host::StartBackend(BackendName name, absl::optional<Time> deadline,
                        std::function<void(BackendOutcome)> done) {
  asio::dispatch(
      loop_, [this, name = std::move(name), deadline, done = std::move(done)] {
        v1::NegotiateRequest request;
        request.set_service(name.service);
        request.set_wanted_version(name.version);
        if (name.world.has_value()) *request.mutable_world() = *name.world;
        const NegotiationId id = next_negotiation_++;
        callers_[id].done = [this, name, done](const Outcome& outcome) {
          if (const auto* refused = std::get_if<Refused>(&outcome)) {
            done(*refused);
            return;
          }
          done(Describe(name));
        };
        Machine* const its = MachineOf(name);
        With(its != nullptr ? *its : machine_,
             [&](Machine& machine, Time now, Effects* effects) {
               machine.Start(id, request, deadline, now, effects);
             });
        RefuseWaitingIfShort(id, request);
      });
}

void Host::StopBackend(BackendName name, absl::optional<Time> deadline,
                       std::function<void(BackendOutcome)> done) {
  Retire(&Machine::Stop, std::move(name), deadline, std::move(done));
}

void Host::DrainBackend(BackendName name, absl::optional<Time> deadline,
                        std::function<void(BackendOutcome)> done) {
  Retire(&Machine::Drain, std::move(name), deadline, std::move(done));
}

void Host::Retire(RetireEvent event, BackendName name,
                  absl::optional<Time> deadline,
                  std::function<void(BackendOutcome)> done) {
  asio::dispatch(loop_, [this, event, name = std::move(name), deadline,
                         done = std::move(done)] {
    Machine* const its = MachineOf(name);
    if (its == nullptr) {
      done(Describe(name));
      return;
    }
    const RetireId id = next_retire_++;
    retirers_[id] = [this, name, done](absl::optional<Refused> refused) {
      if (refused.has_value()) {
        done(*std::move(refused));
        return;
      }
      done(Describe(name));
    };
    With(*its, [&](Machine& machine, Time now, Effects* effects) {
      (machine.*event)(id, name.service, name.version, deadline, now, effects);
    });
  });
}

v1::Backend Host::Describe(const BackendName& name) {
  const Machine* const its = MachineOf(name);
  v1::Backend row;
  if (its != nullptr) {
    row = its->DescribeBackend(name.service, name.version, Now(), absl::Now());
  } else {
    row.set_service(name.service);
    row.set_version(name.version);
    row.set_state(v1::BACKEND_STATE_GONE);
  }
  if (its != &machine_) *row.mutable_world() = *name.world;
  return row;
}

void Host::AnswerEarlyQuestions() {
  for (const auto& answer : std::exchange(early_questions_, {})) answer();
}

void Host::GetStatus(std::function<void(v1::GetStatusResponse)> done) {
  asio::dispatch(loop_, [this, done = std::move(done)] {
    if (!definitions_read_ && !stopping_) {
      early_questions_.push_back([this, done] { GetStatus(done); });
      return;
    }
    v1::GetStatusResponse status;
    status.set_version(kVersion);
    status.set_pid(static_cast<uint32_t>(getpid()));
    *status.mutable_started_at() = ToProto(started_at_);
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
    for (const v1::Problem& problem : problems_) {
      *status.add_problems() = problem;
    }
    for (const v1::Problem& problem : names_->problems()) {
      *status.add_problems() = problem;
    }
    for (const v1::Problem& problem : machine_.catalog().problems) {
      *status.add_problems() = problem;
    }
    *status.mutable_world() = options_.world;
    for (const v1::Setting& setting : machine_.catalog().settings) {
      *status.add_settings() = setting;
    }
    done(std::move(status));
  });
}

void Host::ListBackends(std::function<void(v1::ListBackendsResponse)> done) {
  asio::dispatch(loop_, [this, done = std::move(done)] {
    v1::ListBackendsResponse all = machine_.ListBackends(Now(), absl::Now());
    for (const auto& other : other_worlds_.all()) {
      v1::ListBackendsResponse theirs =
          other->machine.ListBackends(Now(), absl::Now());
      for (v1::Backend& row : *theirs.mutable_backends()) {
        *row.mutable_world() = other->world();
        *all.add_backends() = std::move(row);
      }
    }
    done(std::move(all));
  });
}

void Host::GetMetrics(std::function<void(v1::GetMetricsResponse)> done) {
  GetStatus([this, done = std::move(done)](v1::GetStatusResponse status) {
    ListBackends([this, done, status = std::move(status)](
                     const v1::ListBackendsResponse& backends) {
      v1::GetMetricsResponse response;
      response.set_open_metrics(metrics_.Render(status, backends));
      done(std::move(response));
    });
  });
}

void Host::ReloadDefinitions(
    std::function<void(v1::ReloadDefinitionsResponse)> done) {
  asio::dispatch(loop_, [this, done = std::move(done)] {
    WatchDefinitions();
    WatchPolicy();
    LoadCatalog(/*forgive=*/true, [this, done] {
      v1::ReloadDefinitionsResponse response;
      for (v1::ServiceSummary& service : machine_.Services()) {
        *response.add_services() = std::move(service);
      }
      for (const v1::Problem& problem : machine_.catalog().problems) {
        *response.add_problems() = problem;
      }
      for (const v1::Setting& setting : machine_.catalog().settings) {
        *response.add_settings() = setting;
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
    response.set_waiters(static_cast<uint32_t>(waiters()));
    if (stop_backends) {
      response.set_backends_to_stop(static_cast<uint32_t>(runs_.size()));
    }
    done(std::move(response));
    asio::post(loop_, [this, stop_backends] { Stop(stop_backends); });
  });
}

}  // namespace zcbroker::service
