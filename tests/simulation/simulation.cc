#include "tests/simulation/simulation.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "proto/zcbroker/v1/errors.pb.h"
#include "service/core/machine.h"

namespace zcbroker::simulation {
namespace {

using service::Answer;
using service::AnswerReport;
using service::AnswerRetire;
using service::Catalog;
using service::Effects;
using service::ExamineBackend;
using service::InFlight;
using service::LookAtBackend;
using service::Machine;
using service::NegotiationId;
using service::NoteLeaving;
using service::RefreshCatalog;
using service::Refused;
using service::StartBackend;
using service::StartId;
using service::StopBackend;
using service::Time;
using service::VersionPolicy;
using service::WithdrawBackend;
using std::chrono::milliseconds;

constexpr char kService[] = "demo";
constexpr uint32_t kVersions = 3;
constexpr int kIdleSeconds = 20;
constexpr int kKeepSeconds = 8;
// Within which everything wanted gets there once nothing fails any more.
constexpr int kSettleSeconds = 120;
constexpr milliseconds kSettleStep(50);

service::Limits SmallLimits() {
  service::Limits limits;
  limits.waiters_per_start = 6;
  limits.concurrent_starts = 2;
  return limits;
}

std::string VersionName(uint32_t a) {
  return absl::StrCat("1.0.", a % kVersions);
}

std::string EndpointName(uint32_t pid) { return absl::StrCat("/b/", pid); }

struct Process {
  StartId id = 0;
  uint32_t pid = 0;
  std::string version;
  std::string identity;
  enum {
    // It started itself and has asked for a lease.
    kRegistering,
    kStarting,
    // Serving, and not adopted yet by the broker that found it.
    kLeft,
    kServing,
    // It had a lease of the broker before, and is about to ask for another.
    kAwaited,
    // It has given its lease up, and may live on.
    kReleased,
    kLeaderDead,
    kOver
  } state = kStarting;
  // Of one that started itself: its last question for a lease; and whether that
  // is answered with a refusal, or taken back.
  NegotiationId lease = 0;
  bool lease_over = false;
  // How often it has come back to a next broker.
  int returns = 0;
  bool foreign = false;
  bool told_to_stop = false;
  // Whoever asks for its end may have it ended.
  bool end_asked = false;
  bool drain_asked = false;
  bool withdrawn = false;
  // Its start was only to go on with it.
  bool adopting = false;
  // What its journal says.
  std::string noted;
  // An earlier broker had begun to have it leave.
  bool left_leaving = false;
  bool socket_gone = false;
  bool unlinked = false;
  bool look_asked = false;
  bool examination_asked = false;
  // What it is doing for clients.
  size_t connections = 0;
  bool children = false;
  bool touched = false;
  Time last_used;
  // Of the looks at it while it is ready; nothing: something has changed since
  // that makes the next one come earlier.
  absl::optional<Time> looked_at;

  bool over() const { return state == kOver; }
  bool registers() const { return lease != 0; }
  bool busy() const { return connections > 0 || children; }
};

// What the file system and the policy say; the machine knows what it said when
// it was last read.
struct Files {
  std::vector<bool> installed = std::vector<bool>(kVersions, true);
  std::vector<uint32_t> build = std::vector<uint32_t>(kVersions, 1);
  // Versions and identities of those that do not start.
  std::set<std::pair<std::string, std::string>> spoiled;
  uint32_t definition = 1;
  VersionPolicy policy;

  std::string Identity(uint32_t version) const {
    return absl::StrCat("build-", build[version]);
  }

  Catalog Read() const {
    Catalog catalog;
    service::CatalogService& demo = catalog.services[kService];
    demo.definition.set_name(kService);
    demo.definition.add_args(absl::StrCat(definition));
    demo.definition.mutable_idle_stop()->set_seconds(kIdleSeconds);
    for (uint32_t v = kVersions; v-- > 0;) {
      if (!installed[v]) continue;
      demo.versions.push_back(
          {VersionName(v), "/bin/demo", Identity(v), {v1::WIRE_LANE_FRAME_V1}});
    }
    catalog.versions = policy;
    return catalog;
  }
};

class World {
 public:
  World(const History& history, std::vector<std::string>* steps)
      : history_(history), steps_(steps) {
    MakeMachine();
  }

  std::string Run() {
    if (history_.seed % 4 == 0) {
      // What an earlier broker left running, of a binary that is gone.
      Note("a backend of an older binary runs");
      With([&](Effects* effects) {
        const Catalog catalog = files_.Read();
        service::InstalledVersion old =
            catalog.services.at(kService).versions[0];
        old.binary_identity = "build-0";
        machine_->GoOnWith(catalog.services.at(kService).definition, old,
                           absl::nullopt, now_, effects);
      });
    }
    ReadFiles(/*forgive=*/false);
    for (const Event& event : history_.events) {
      if (broken_.empty()) Pass(milliseconds(event.pause_ms));
      if (broken_.empty()) Happen(event);
    }
    if (broken_.empty()) Settle();
    return broken_;
  }

 private:
  void MakeMachine() {
    machine_ = std::make_unique<Machine>(SmallLimits(), v1::World(), &counters_,
                                         history_.seed);
  }

  // --- What is written down

  void Note(const std::string& what) {
    if (steps_ == nullptr) return;
    const auto since =
        std::chrono::duration_cast<milliseconds>(now_ - kBegin).count();
    steps_->push_back(absl::StrCat(since, " ms: ", what));
  }

  void Break(std::string what) {
    if (!broken_.empty()) return;
    broken_ = std::move(what);
    Note(absl::StrCat("BROKEN: ", broken_));
  }

  // --- Time

  void Pass(milliseconds pause) {
    const Time until = now_ + pause;
    AnswerLooks();
    // A timer that is due for ever would never let time pass.
    for (int i = 0; broken_.empty(); ++i) {
      const absl::optional<Time> next = machine_->NextDeadline();
      if (!next.has_value() || *next > until) break;
      if (i > 10'000) {
        Break("a timer is due for ever");
        return;
      }
      now_ = std::max(now_, *next);
      With([&](Effects* effects) { machine_->Tick(now_, effects); });
      AnswerLooks();
    }
    now_ = until;
    for (Process& process : processes_) {
      if (process.busy()) process.last_used = now_;
    }
  }

  // The host looks at once and tells in the next turn of its loop.
  void AnswerLooks() {
    for (size_t i = 0; i < processes_.size(); ++i) {
      if (!std::exchange(processes_[i].look_asked, false)) continue;
      Process& process = processes_[i];
      if (process.state != Process::kServing || process.told_to_stop) continue;
      InFlight seen;
      seen.connections = process.connections;
      seen.running_children = process.children;
      seen.used = std::exchange(process.touched, false);
      if (process.withdrawn && !seen.any()) process.socket_gone = true;
      Note(absl::StrCat("process ", process.id, ": ", seen.connections,
                        " connections",
                        seen.running_children ? ", children" : "",
                        seen.used ? ", was used" : ""));
      const StartId id = process.id;
      With(
          [&](Effects* effects) { machine_->Looked(id, seen, now_, effects); });
    }
  }

  // --- What happens

  void Happen(const Event& event) {
    switch (event.kind) {
      case Kind::kAsk:
        Ask(event.a, event.b, event.b % 8 == 0);
        break;
      case Kind::kGiveUp: {
        if (unanswered_.empty()) break;
        auto it = unanswered_.begin();
        std::advance(it, event.a % unanswered_.size());
        Note(absl::StrCat("client ", it->first, " goes away"));
        machine_->Cancel(it->first);
        if (Process* process = FindLease(it->first)) {
          process->lease_over = true;
        }
        unanswered_.erase(it);
        Check();
        break;
      }
      case Kind::kProceed:
        if (Process* process = PickLiving(event.a)) Proceed(*process, event.b);
        break;
      case Kind::kFail:
        if (Process* process = PickLiving(event.a)) Fail(*process, event.b);
        break;
      case Kind::kDie:
        if (Process* process = PickLiving(event.a)) Die(*process);
        break;
      case Kind::kKill:
        if (Process* process = PickLiving(event.a)) Gone(*process);
        break;
      case Kind::kUse:
        if (Process* process = PickLiving(event.a)) Use(*process, event.b);
        break;
      case Kind::kReport:
        Report(event.a, event.b);
        break;
      case Kind::kStart:
        Start(event.a);
        break;
      case Kind::kStop:
      case Kind::kDrain:
        Retire(event.a, event.b, event.kind == Kind::kStop);
        break;
      case Kind::kReplace:
        ++files_.build[event.a % kVersions];
        Note(absl::StrCat(VersionName(event.a), " is rebuilt"));
        break;
      case Kind::kSpoil:
        files_.spoiled.insert(
            {VersionName(event.a), files_.Identity(event.a % kVersions)});
        Note(absl::StrCat(VersionName(event.a), " is spoiled"));
        break;
      case Kind::kRedefine:
        ++files_.definition;
        Note("the definition changes");
        break;
      case Kind::kInstall:
        files_.installed[event.a % kVersions] = event.b % 2 == 0;
        Note(absl::StrCat(VersionName(event.a),
                          event.b % 2 == 0 ? " is installed" : " is removed"));
        break;
      case Kind::kPolicy:
        ChangePolicy(event.a, event.b);
        break;
      case Kind::kCatalog:
        ReadFiles(event.a % 4 == 0);
        break;
      case Kind::kUnlink:
        if (Process* process = PickLiving(event.a)) Unlink(*process);
        break;
      case Kind::kRegister:
        Register(event.a);
        break;
      case Kind::kRelease:
        if (Process* process = PickLiving(event.a)) Release(*process);
        break;
      case Kind::kRestart:
        Restart();
        break;
      case Kind::kShutdown:
        Shutdown(event.a % 2 == 0);
        break;
    }
  }

  void Ask(uint32_t a, uint32_t b, bool only_if_running) {
    v1::NegotiateRequest request;
    request.set_service(kService);
    request.set_wanted_version(VersionName(a));
    request.set_start_policy(only_if_running ? v1::START_POLICY_ONLY_IF_RUNNING
                                             : v1::START_POLICY_IF_NEEDED);
    const Time deadline = now_ + milliseconds(b % 6000);
    const NegotiationId id = ++last_negotiation_;
    unanswered_[id] = {request.wanted_version(), AnswerBy(deadline)};
    Note(absl::StrCat("client ", id, " asks for ", request.wanted_version(),
                      only_if_running ? " if it runs" : ""));
    With([&](Effects* effects) {
      machine_->Negotiate(id, request, deadline, now_, effects);
    });
  }

  void Start(uint32_t a) {
    v1::NegotiateRequest request;
    request.set_service(kService);
    request.set_wanted_version(VersionName(a));
    const NegotiationId id = ++last_negotiation_;
    const Time deadline = now_ + std::chrono::seconds(5);
    unanswered_[id] = {request.wanted_version(), AnswerBy(deadline)};
    Note(absl::StrCat("client ", id, " wants ", request.wanted_version(),
                      " started"));
    With([&](Effects* effects) {
      machine_->Start(id, request, deadline, now_, effects);
    });
  }

  void Register(uint32_t a) {
    Process process;
    process.state = Process::kRegistering;
    process.version = VersionName(a);
    process.pid = ++last_pid_;
    process.foreign = true;
    process.last_used = now_;
    processes_.push_back(process);
    AskForLease(processes_.back());
  }

  void AskForLease(Process& process) {
    const NegotiationId id = ++last_negotiation_;
    process.lease = id;
    process.lease_over = false;
    unanswered_[id] = {process.version, now_ + std::chrono::seconds(10)};
    v1::RegisterRequest request;
    request.set_service(kService);
    request.set_version(process.version);
    request.set_endpoint(EndpointName(process.pid));
    Note(absl::StrCat("client ", id, " registers process of ", process.version,
                      " at ", request.endpoint()));
    With([&](Effects* effects) {
      machine_->Register(id, request, now_, effects);
    });
  }

  void Release(Process& process) {
    if (!process.registers() || process.state != Process::kServing) return;
    process.lease_over = true;
    Note(absl::StrCat("process ", process.id, " gives up its lease"));
    const StartId id = process.id;
    With([&](Effects* effects) {
      // What is being ended goes on ending.
      if (machine_->GiveUpLease(id, now_, effects)) {
        Find(id)->state = Process::kReleased;
      }
    });
  }

  // It does not come back to this broker.
  void StaysAway(Process& process) {
    process.state = Process::kOver;
    Note(absl::StrCat("the process at ", EndpointName(process.pid),
                      " does not register again"));
    const std::string version = process.version;
    With([&](Effects* effects) {
      machine_->ExpectNoMore(kService, version, now_, effects);
    });
  }

  void Retire(uint32_t a, uint32_t b, bool stop) {
    const std::string version = VersionName(a);
    const Time deadline = now_ + milliseconds(b % 6000);
    const uint64_t id = ++last_retire_;
    unretired_[id] = AnswerBy(deadline);
    Note(absl::StrCat(version, stop ? " is to stop" : " is to drain"));
    for (Process& process : processes_) {
      if (process.over() || process.version != version) continue;
      process.end_asked |= stop;
      process.drain_asked = true;
    }
    With([&](Effects* effects) {
      if (stop) {
        machine_->Stop(id, kService, version, deadline, now_, effects);
      } else {
        machine_->Drain(id, kService, version, deadline, now_, effects);
      }
    });
  }

  void Report(uint32_t a, uint32_t b) {
    if (processes_.empty()) return;
    const Process& process = processes_[a % processes_.size()];
    v1::ReportBackendRequest report;
    report.set_service(kService);
    report.set_version(process.version);
    report.set_pid(process.pid);
    report.set_start_time(process.pid);
    const Time deadline = now_ + milliseconds(b % 6000);
    const uint64_t id = ++last_report_;
    unreported_[id] = AnswerBy(deadline);
    Note(absl::StrCat("process ", process.id, " is reported"));
    With([&](Effects* effects) {
      machine_->Report(id, report, deadline, now_, effects);
    });
  }

  void ChangePolicy(uint32_t a, uint32_t b) {
    const std::pair<std::string, std::string> key{kService, VersionName(a)};
    VersionPolicy& policy = files_.policy;
    switch (b % 5) {
      case 0:
        policy.pinned.insert(key);
        break;
      case 1:
        policy.blocked.insert(key);
        break;
      case 2:
        policy.keep_newest = 1 + a % 2;
        policy.keep_used_for = absl::Seconds(kKeepSeconds);
        break;
      default:
        policy = VersionPolicy();
        break;
    }
    Note(absl::StrCat("policy: ", b % 5 == 0   ? "pin " + key.second
                                  : b % 5 == 1 ? "block " + key.second
                                  : b % 5 == 2 ? "keep the newest"
                                               : "none"));
  }

  void ReadFiles(bool forgive) {
    if (down_) return;
    known_ = files_;
    Note("the broker reads definitions and policy");
    for (Process& process : processes_) process.looked_at = absl::nullopt;
    With([&](Effects* effects) {
      machine_->CatalogLoaded(known_.Read(), forgive, now_, effects);
    });
  }

  void Shutdown(bool stop_backends) {
    if (down_) return;
    down_ = true;
    stop_all_ = stop_backends;
    Note(absl::StrCat("the broker shuts down",
                      stop_backends ? ", and all backends" : ""));
    With([&](Effects* effects) {
      machine_->Shutdown(stop_backends, now_, effects);
    });
  }

  // Who was on the line is cut off. What the next broker knows is in the
  // journals.
  void Restart() {
    if (down_) return;
    Note("the broker is gone; the next one begins");
    unanswered_.clear();
    unreported_.clear();
    unretired_.clear();
    routes_ = service::RouteTable();
    reading_ = false;
    MakeMachine();
    for (Process& process : processes_) process.id = 0;
    for (Process& process : processes_) {
      if (process.over()) continue;
      process.look_asked = process.examination_asked = false;
      process.looked_at = absl::nullopt;
      if (process.state == Process::kLeaderDead) {
        // Its group is ended before anything is started in its place.
        process.state = Process::kOver;
        process.connections = 0;
        process.children = false;
        continue;
      }
      if (process.registers() && process.noted.empty() &&
          !process.told_to_stop) {
        ComeBack(process);
        continue;
      }
      process.lease = 0;
      GoOnWith(process);
    }
    if (broken_.empty()) ReadFiles(/*forgive=*/false);
  }

  // One that had a lease; of others no journal says that they had.
  void ComeBack(Process& process) {
    if (process.state != Process::kServing &&
        process.state != Process::kAwaited) {
      process.state = Process::kOver;
      return;
    }
    Note(absl::StrCat("the process at ", EndpointName(process.pid),
                      " is to register again"));
    process.state = Process::kAwaited;
    process.returns = 1;
    machine_->Expect(kService, process.version);
  }

  void GoOnWith(Process& process) {
    const bool leaving = !process.noted.empty() || process.told_to_stop;
    process.left_leaving = process.withdrawn || process.drain_asked ||
                           process.end_asked || process.told_to_stop;
    service::Leaving left;
    left.why = process.noted.empty() ? "stopped" : process.noted;
    left.asked_to_end = process.told_to_stop;
    left.backend.endpoint = EndpointName(process.pid);
    left.backend.pid = process.pid;
    left.backend.start_time = process.pid;
    left.backend.foreign = process.foreign;
    resumed_ = &process;
    With([&](Effects* effects) {
      machine_->GoOnWith(known_.Read().services.at(kService).definition,
                         {process.version,
                          "/bin/demo",
                          process.identity,
                          {v1::WIRE_LANE_FRAME_V1}},
                         leaving ? absl::make_optional(left) : absl::nullopt,
                         now_, effects);
    });
    if (resumed_ != nullptr) Break("what runs is not gone on with");
    resumed_ = nullptr;
  }

  // --- Processes

  void Unlink(Process& process) {
    if (process.state != Process::kServing || process.foreign) return;
    process.unlinked = true;
    Note(absl::StrCat("the socket of process ", process.id, " is removed"));
    const StartId id = process.id;
    With([&](Effects* effects) {
      machine_->BackendUnreachable(id, "its socket was removed", now_, effects);
    });
  }

  Process* PickLiving(uint32_t a) {
    std::vector<Process*> living;
    for (Process& process : processes_) {
      if (!process.over()) living.push_back(&process);
    }
    return living.empty() ? nullptr : living[a % living.size()];
  }

  void Proceed(Process& process, uint32_t b) {
    const StartId id = process.id;
    switch (process.state) {
      case Process::kStarting:
        if (process.told_to_stop ||
            (!process.registers() &&
             files_.spoiled.count({process.version, process.identity}) > 0)) {
          FailStart(process, /*transient=*/false);
        } else {
          Succeed(process, b);
        }
        break;
      case Process::kLeft:
        Adopted(process);
        break;
      case Process::kServing:
        if (process.told_to_stop) {
          Gone(process);
        } else if (std::exchange(process.examination_asked, false)) {
          Note(absl::StrCat("process ", id, " was looked at and works"));
          With([&](Effects* effects) {
            machine_->Examined(id, {"it answers"}, now_, effects);
          });
        }
        break;
      case Process::kLeaderDead:
        Gone(process);
        break;
      case Process::kAwaited:
        // It tries a few times.
        if (++process.returns > 4) {
          StaysAway(process);
        } else {
          AskForLease(process);
        }
        break;
      case Process::kReleased:
        process.state = Process::kOver;
        Note(absl::StrCat("process ", id, " lives on without a lease"));
        With(
            [&](Effects* effects) { machine_->LeaseEnded(id, now_, effects); });
        break;
      case Process::kRegistering:
      case Process::kOver:
        break;
    }
  }

  void Succeed(Process& process, uint32_t b) {
    service::StartedBackend started;
    started.endpoint = EndpointName(process.pid);
    started.pid = process.pid;
    started.start_time = process.pid;
    started.registered = process.registers();
    started.adopted = started.registered || b % 5 == 0;
    started.foreign = started.registered || b % 10 == 0;
    process.state = Process::kServing;
    process.foreign = started.foreign;
    process.last_used = now_;
    for (Process& other : processes_) {
      // Its place is taken.
      if (other.state == Process::kAwaited &&
          other.version == process.version) {
        other.state = Process::kOver;
      }
    }
    Note(absl::StrCat("process ", process.id, " is ready",
                      started.registered ? ", registered"
                      : started.foreign  ? ", a stranger's"
                                         : ""));
    const StartId id = process.id;
    With([&](Effects* effects) {
      machine_->StartSucceeded(id, started, now_, effects);
    });
    // It was given up meanwhile.
    Process* const there = Find(id);
    if (there != nullptr && there->registers() && there->lease_over) {
      Release(*there);
    }
  }

  void Adopted(Process& process) {
    service::StartedBackend started;
    started.endpoint = EndpointName(process.pid);
    started.pid = process.pid;
    started.start_time = process.pid;
    started.adopted = true;
    started.foreign = process.foreign;
    process.state = Process::kServing;
    Note(absl::StrCat("process ", process.id, " is adopted"));
    const StartId id = process.id;
    With([&](Effects* effects) {
      machine_->StartSucceeded(id, started, now_, effects);
    });
  }

  void FailStart(Process& process, bool transient) {
    const StartId id = process.id;
    const bool adopting = process.adopting;
    // One that comes back lives, and tries again.
    const bool comes_back =
        process.registers() && process.returns > 0 && !process.told_to_stop;
    process.state = comes_back ? Process::kAwaited : Process::kOver;
    process.connections = 0;
    process.children = false;
    Note(absl::StrCat("process ", id, " ended before it was ready"));
    With([&](Effects* effects) {
      machine_->StartFailed(id,
                            {"no start", {"boom"}, "/log", transient, adopting},
                            now_, effects);
    });
    if (process.over() && process.registers() && process.returns > 0) {
      StaysAway(process);
    }
  }

  void Fail(Process& process, uint32_t b) {
    if (process.state == Process::kStarting) {
      FailStart(process, b % 4 == 0);
    } else if (process.state == Process::kServing &&
               std::exchange(process.examination_asked, false)) {
      process.state = Process::kLeaderDead;
      const StartId id = process.id;
      Note(absl::StrCat("process ", id, " is wedged"));
      With([&](Effects* effects) {
        machine_->BackendEnding(id, {"it is stopped"}, now_, effects);
      });
    }
  }

  void Die(Process& process) {
    if (process.state == Process::kReleased) {
      Gone(process);
      return;
    }
    if (process.state != Process::kServing) return;
    const StartId id = process.id;
    process.state = Process::kLeaderDead;
    process.connections = 0;
    Note(absl::StrCat("process ", id, " dies; its group lives"));
    With([&](Effects* effects) {
      machine_->BackendEnding(id, {}, now_, effects);
    });
  }

  void Gone(Process& process) {
    if (process.state == Process::kStarting ||
        process.state == Process::kRegistering) {
      return;
    }
    if (process.state == Process::kAwaited) {
      StaysAway(process);
      return;
    }
    if (process.state == Process::kLeft) {
      FailStart(process, /*transient=*/false);
      return;
    }
    const StartId id = process.id;
    process.state = Process::kOver;
    process.connections = 0;
    process.children = false;
    Note(absl::StrCat("process ", id, " is gone with its group"));
    With([&](Effects* effects) {
      machine_->BackendGone(id, {"gone"}, now_, effects);
    });
  }

  void Use(Process& process, uint32_t b) {
    if (process.state != Process::kServing && process.state != Process::kLeft) {
      return;
    }
    const bool reachable = !process.socket_gone && !process.unlinked;
    switch (b % 5) {
      case 0:
      case 1:
        if (!reachable) return;
        ++process.connections;
        process.touched = true;
        break;
      case 2:
        if (process.connections == 0) return;
        --process.connections;
        break;
      case 3:
        if (!reachable) return;
        process.touched = true;  // came and went
        break;
      default:
        // Only a connected client's request makes it run something.
        if (!process.children && process.connections == 0) return;
        process.children = !process.children;
        break;
    }
    process.last_used = now_;
    Note(absl::StrCat("process ", process.id, " has ", process.connections,
                      " connections", process.children ? ", children" : ""));
  }

  // --- What the machine decides

  template <typename Event>
  void With(Event event) {
    Effects effects;
    event(&effects);
    for (service::Effect& effect : effects) {
      std::visit([this](auto& e) { this->Carry(e); }, effect);
    }
    Check();
  }

  Process* Find(StartId id) {
    for (Process& process : processes_) {
      if (process.id == id && !process.over()) return &process;
    }
    return nullptr;
  }

  Process* FindLease(NegotiationId lease) {
    for (Process& process : processes_) {
      if (process.lease == lease && !process.over()) return &process;
    }
    return nullptr;
  }

  void Carry(const StartBackend& start) {
    const std::string& version = start.plan.version.version;
    if (Process* process = std::exchange(resumed_, nullptr)) {
      Note(absl::StrCat("  go on with process ", process->id, " as ",
                        start.plan.id, start.plan.leaving ? ", leaving" : ""));
      process->id = start.plan.id;
      process->adopting = true;
      // A run does not wait for one that is leaving to become ready.
      if (start.plan.leaving) {
        process->state = Process::kServing;
      } else if (process->state == Process::kServing) {
        process->state = Process::kLeft;
      }
      return;
    }
    Process* const registering = start.plan.registration.has_value()
                                     ? FindLease(start.plan.registration->lease)
                                     : nullptr;
    Note(absl::StrCat(
        registering != nullptr ? "  look at process " : "  start process ",
        start.plan.id, " of ", version));
    size_t starting = 1;
    for (const Process& process : processes_) {
      if (process.over() || &process == registering) continue;
      // Both had started themselves: the broker can only choose one.
      if (registering != nullptr && process.state == Process::kAwaited) {
        continue;
      }
      if (process.version == version) {
        Break(absl::StrCat("process ", process.id, " and process ",
                           start.plan.id, " write one cache"));
      }
      starting += process.state == Process::kStarting && !process.adopting;
    }
    if (starting > SmallLimits().concurrent_starts + stopping_starts()) {
      Break("too many starts at once");
    }
    if (down_) Break("something is started while the broker shuts down");
    if (known_.policy.blocked.count({kService, version}) > 0) {
      Break("a blocked version is started");
    }
    if (start.plan.registration.has_value()) {
      if (registering == nullptr) {
        Break("a lease that nobody asked for");
        return;
      }
      registering->id = start.plan.id;
      registering->identity = start.plan.version.binary_identity;
      registering->state = Process::kStarting;
      return;
    }
    Process process;
    process.id = start.plan.id;
    process.version = version;
    process.identity = start.plan.version.binary_identity;
    process.pid = ++last_pid_;
    process.adopting = !start.plan.only_adopt.empty();
    processes_.push_back(std::move(process));
  }

  // Those count no more: they are on their way out.
  size_t stopping_starts() const {
    return std::count_if(processes_.begin(), processes_.end(),
                         [](const Process& process) {
                           return process.state == Process::kStarting &&
                                  process.told_to_stop && !process.adopting;
                         });
  }

  void Carry(const StopBackend& stop) {
    Note(absl::StrCat("  stop process ", stop.id));
    Process* process = Find(stop.id);
    if (process == nullptr || process->over()) {
      Break("something is ended that does not run");
      return;
    }
    if (process->foreign && !process->drain_asked && !stop_all_) {
      Break("a stranger's process is ended unasked");
    }
    if (!process->end_asked && !stop_all_ && process->busy()) {
      Break(absl::StrCat("process ", stop.id, " is ended with work in flight"));
    }
    if (!process->end_asked && !stop_all_ && !process->socket_gone) {
      Break("a process is ended that clients can still reach");
    }
    process->told_to_stop = true;
  }

  void Carry(const NoteLeaving& note) {
    Process* process = Find(note.id);
    if (process == nullptr || process->over()) {
      Break("something is to leave that does not run");
      return;
    }
    process->noted = note.why;
  }

  void Carry(const WithdrawBackend& withdraw) {
    Note(absl::StrCat("  withdraw process ", withdraw.id));
    Process* process = Find(withdraw.id);
    if (process == nullptr || process->over()) {
      Break("something is withdrawn that does not run");
      return;
    }
    const bool again = std::exchange(process->withdrawn, true);
    if (process->drain_asked || process->unlinked || again) return;
    if (process->foreign) Break("a stranger's process is drained unasked");
    const auto version =
        static_cast<uint32_t>(process->version.back() - '0') % kVersions;
    const std::pair<std::string, std::string> key{kService, process->version};
    if (known_.policy.blocked.count(key) > 0 ||
        (known_.installed[version] &&
         known_.Identity(version) != process->identity)) {
      return;
    }
    // So it is for want of use.
    if (known_.policy.pinned.count(key) > 0) {
      Break("a pinned version idles out");
    }
    if (now_ - process->last_used < IdleLimit(version)) {
      Break(absl::StrCat("process ", process->id, " is drained while used"));
    }
  }

  // As the policy's documentation says it.
  std::chrono::seconds IdleLimit(uint32_t version) const {
    if (known_.policy.keep_newest == 0) {
      return std::chrono::seconds(kIdleSeconds);
    }
    size_t newer = 0;
    for (uint32_t v = version + 1; v < kVersions; ++v) {
      newer += known_.installed[v] ? 1 : 0;
    }
    const bool kept =
        known_.installed[version] && newer < known_.policy.keep_newest;
    return std::chrono::seconds(kept ? kIdleSeconds : kKeepSeconds);
  }

  void Carry(const LookAtBackend& look) {
    Process* process = Find(look.id);
    if (process == nullptr || process->over()) {
      Break("something is looked at that does not run");
      return;
    }
    Note(absl::StrCat("  look at process ", look.id));
    process->look_asked = true;
    if (process->withdrawn) return;
    if (process->looked_at.has_value() &&
        now_ - *process->looked_at < std::chrono::seconds(kKeepSeconds)) {
      Break("an idle process is looked at too often");
    }
    process->looked_at = now_;
  }

  void Carry(const ExamineBackend& examine) {
    Process* process = Find(examine.id);
    if (process == nullptr || process->over()) {
      Break("something is examined that does not run");
      return;
    }
    process->examination_asked = true;
  }

  void Carry(const Answer& answer) {
    const auto found = unanswered_.find(answer.id);
    if (found == unanswered_.end()) {
      Break(absl::StrCat("client ", answer.id,
                         " is answered twice, or after it left"));
      return;
    }
    const std::string version = found->second.version;
    unanswered_.erase(found);
    if (const auto* refused = std::get_if<Refused>(&answer.outcome)) {
      if (Process* process = FindLease(answer.id)) {
        process->lease_over = true;
        if (process->state == Process::kRegistering) {
          process->state = Process::kOver;
        }
      }
      Note(
          absl::StrCat("  client ", answer.id, " is refused: ", refused->text));
      if (refused->refusal() == v1::REFUSAL_BACKEND_BROKEN) {
        if (refused->detail.evidence().empty()) {
          Break("a version is called broken without evidence");
        }
        settled_[version] = true;
      }
      return;
    }
    const v1::BackendRoute& route =
        std::get<v1::NegotiateResponse>(answer.outcome).route();
    Note(absl::StrCat("  client ", answer.id, " is routed to ",
                      route.endpoint()));
    CheckRoute(route, version, "a client is routed to");
    settled_[version] = true;
  }

  void CheckRoute(const v1::BackendRoute& route, const std::string& version,
                  const char* what) {
    for (const Process& process : processes_) {
      if (EndpointName(process.pid) != route.endpoint()) continue;
      if (process.version != version) {
        Break(absl::StrCat(what, " another version"));
      }
      if (process.state != Process::kServing || process.told_to_stop ||
          process.withdrawn || process.left_leaving) {
        Break(absl::StrCat(what, " process ", process.id,
                           ", which does not serve any more"));
      }
      return;
    }
    Break(absl::StrCat(what, " nothing"));
  }

  void Carry(const AnswerReport& answer) {
    if (unreported_.erase(answer.id) == 0) {
      Break("a report is answered twice");
    }
    const auto* response =
        std::get_if<v1::ReportBackendResponse>(&answer.outcome);
    if (response != nullptr) {
      Note(absl::StrCat("  report ", answer.id, ": ",
                        v1::BackendVerdict_Name(response->verdict())));
    }
  }

  void Carry(const AnswerRetire& answer) {
    if (unretired_.erase(answer.id) == 0) {
      Break("who wanted a backend ended is answered twice");
    }
  }

  void Carry(const service::PassOn&) {
    Break("passed on, though nobody is of another world");
  }
  void Carry(const RefreshCatalog&) { reading_ = true; }
  void Carry(const service::RoutesChanged&) { routes_ = machine_->Routes(); }

  // --- What must always hold

  Time AnswerBy(Time deadline) const {
    return std::min(now_ + std::chrono::seconds(10),
                    std::max(now_, deadline - milliseconds(250)));
  }

  void Check() {
    for (const auto& [id, asked] : unanswered_) {
      if (asked.answer_by < now_) {
        Break(absl::StrCat("client ", id, " is not answered in time"));
      }
    }
    for (const auto& [id, answer_by] : unreported_) {
      if (answer_by < now_) Break("a report is not answered in time");
    }
    for (const auto& [id, answer_by] : unretired_) {
      if (answer_by < now_) Break("who wants an end is not answered in time");
    }
    for (uint32_t v = 0; v < kVersions; ++v) {
      v1::NegotiateRequest request;
      request.set_service(kService);
      request.set_wanted_version(VersionName(v));
      const auto found = routes_.Find(request);
      if (!found.has_value()) continue;
      CheckRoute(found->route(), VersionName(v), "a route is published to");
      if (known_.policy.blocked.count({kService, VersionName(v)}) > 0) {
        Break("a route of a blocked version is published");
      }
      for (const Process& process : processes_) {
        if (EndpointName(process.pid) == found->route().endpoint() &&
            process.identity != known_.Identity(v) && !process.foreign) {
          Break("a route leads to a binary that was replaced");
        }
      }
    }
    // The one whose answer it was that made it read.
    if (std::exchange(reading_, false) && !down_) ReadFiles(false);
  }

  // --- Once nothing fails any more

  void Settle() {
    Note("nothing fails any more");
    if (!down_) {
      ReadFiles(/*forgive=*/false);
      settled_.clear();
      Time ask_again = now_;
      const Time until = now_ + std::chrono::seconds(kSettleSeconds);
      while (broken_.empty() && now_ < until && !Settled()) {
        BehaveAll();
        if (now_ >= ask_again) {
          ask_again = now_ + milliseconds(500);
          for (uint32_t v = 0; v < kVersions; ++v) {
            if (IsWanted(v) && !settled_[VersionName(v)]) Ask(v, 5001, false);
          }
        }
        Pass(kSettleStep);
      }
      for (uint32_t v = 0; v < kVersions && broken_.empty(); ++v) {
        if (IsWanted(v) && !settled_[VersionName(v)]) {
          Break(absl::StrCat(VersionName(v), " is wanted and does not run, ",
                             "and is not called broken either"));
        }
      }
    }
    // Everybody has an answer when the longest time to answer is over, what
    // was told to end has ended, and what nobody uses is not there any more.
    const Time until =
        now_ + std::chrono::seconds(down_ ? 11 : 2 * kIdleSeconds + 11);
    while (broken_.empty() && now_ < until) {
      BehaveAll();
      Pass(down_ ? milliseconds(500) : milliseconds(250));
    }
    if (!unanswered_.empty() || !unreported_.empty() || !unretired_.empty()) {
      Break("somebody is never answered");
    }
    if (down_) return;
    for (const Process& process : processes_) {
      const bool pinned =
          known_.policy.pinned.count({kService, process.version}) > 0;
      if (!process.over() && !process.foreign &&
          (!pinned || process.withdrawn)) {
        Break(absl::StrCat("process ", process.id, " is never ended"));
      }
    }
  }

  bool IsWanted(uint32_t v) const {
    return known_.installed[v] &&
           known_.policy.blocked.count({kService, VersionName(v)}) == 0;
  }

  bool Settled() {
    for (uint32_t v = 0; v < kVersions; ++v) {
      if (IsWanted(v) && !settled_[VersionName(v)]) return false;
    }
    return true;
  }

  void BehaveAll() {
    for (size_t i = 0; i < processes_.size() && broken_.empty(); ++i) {
      processes_[i].connections = 0;
      processes_[i].children = false;
      Proceed(processes_[i], 1);
    }
  }

  struct Asked {
    std::string version;
    Time answer_by;
  };

  static constexpr Time kBegin = Time() + std::chrono::seconds(1000);

  service::Counters counters_;
  std::unique_ptr<Machine> machine_;
  const History& history_;
  std::vector<std::string>* const steps_;
  std::string broken_;
  Time now_ = kBegin;
  Files files_;
  Files known_;
  bool reading_ = false;
  bool down_ = false;
  bool stop_all_ = false;
  // Their places stay while others come.
  std::deque<Process> processes_;
  service::RouteTable routes_;
  NegotiationId last_negotiation_ = 0;
  uint64_t last_retire_ = 0;
  uint64_t last_report_ = 0;
  uint32_t last_pid_ = 0;
  // The next StartBackend is to go on with this one.
  Process* resumed_ = nullptr;
  std::map<NegotiationId, Asked> unanswered_;
  std::map<uint64_t, Time> unreported_;
  std::map<uint64_t, Time> unretired_;
  // Versions that were routed to, or called broken, since nothing fails.
  std::map<std::string, bool> settled_;
};

struct Weight {
  Kind kind;
  uint32_t weight;
};

constexpr Weight kWeights[] = {
    {Kind::kAsk, 60},     {Kind::kGiveUp, 5},   {Kind::kProceed, 70},
    {Kind::kFail, 14},    {Kind::kDie, 6},      {Kind::kKill, 4},
    {Kind::kUse, 40},     {Kind::kReport, 8},   {Kind::kStart, 4},
    {Kind::kStop, 4},     {Kind::kDrain, 8},    {Kind::kReplace, 5},
    {Kind::kRedefine, 2}, {Kind::kInstall, 4},  {Kind::kPolicy, 8},
    {Kind::kCatalog, 14}, {Kind::kShutdown, 1}, {Kind::kSpoil, 3},
    {Kind::kUnlink, 3},   {Kind::kRestart, 3},  {Kind::kRegister, 6},
    {Kind::kRelease, 3},
};

}  // namespace

History MakeHistory(uint64_t seed) {
  std::mt19937_64 random(seed);
  // std::uniform_int_distribution differs between libraries.
  const auto pick = [&random](uint64_t n) {
    return static_cast<uint32_t>(random() % n);
  };
  uint32_t total = 0;
  for (const Weight& weight : kWeights) total += weight.weight;
  History history;
  history.seed = seed;
  const uint32_t length = 20 + pick(180);
  for (uint32_t i = 0; i < length; ++i) {
    Event event;
    uint32_t at = pick(total);
    for (const Weight& weight : kWeights) {
      event.kind = weight.kind;
      if (at < weight.weight) break;
      at -= weight.weight;
    }
    const uint32_t pace = pick(32);
    event.pause_ms = pace == 0  ? pick(30'000)
                     : pace < 6 ? pick(2'000)
                                : pick(30);
    event.a = pick(1'000'000);
    event.b = pick(1'000'000);
    history.events.push_back(event);
  }
  return history;
}

std::string Violation(const History& history, std::vector<std::string>* steps) {
  return World(history, steps).Run();
}

History Shrink(History failing) {
  // Takes out ever smaller pieces for as long as what is left still fails.
  for (size_t piece = failing.events.size(); piece > 0;) {
    bool shorter = false;
    for (size_t at = 0; at < failing.events.size();) {
      History without = failing;
      const auto begin = without.events.begin() + static_cast<int64_t>(at);
      const auto length = std::min(piece, failing.events.size() - at);
      without.events.erase(begin, begin + static_cast<int64_t>(length));
      if (!Violation(without).empty()) {
        failing = std::move(without);
        shorter = true;
      } else {
        at += piece;
      }
    }
    if (piece == 1 && !shorter) break;
    piece = std::max<size_t>(1, shorter && piece == 1 ? 1 : piece / 2);
  }
  return failing;
}

std::string Explain(const History& failing) {
  const History shrunken = Shrink(failing);
  std::vector<std::string> steps;
  const std::string violation = Violation(shrunken, &steps);
  return absl::StrCat(
      violation, "\nseed ", failing.seed, ", ", failing.events.size(),
      " events, ", shrunken.events.size(), " of them needed:\n  ",
      absl::StrJoin(steps, "\n  "), "\nagain: ",
      "bazel test //tests/simulation:simulation_test --test_arg=--seed=",
      failing.seed);
}

}  // namespace zcbroker::simulation
