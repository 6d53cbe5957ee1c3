#include "service/host/backend_run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "asio/posix/stream_descriptor.hpp"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/private_dir.h"
#include "ipc/process.h"
#include "ipc/route_info.h"
#include "ipc/socket_link.h"
#include "ipc/socket_use.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/journal.pb.h"
#include "proto/zcbroker/v1/launcher.pb.h"
#include "proto/zcbroker/v1/times.h"
#include "service/core/launch.h"
#include "service/core/world.h"
#include "service/host/directory_watch.h"
#include "service/host/examination.h"
#include "service/host/journal.h"
#include "service/host/log.h"
#include "service/host/prober.h"
#include "service/host/process_group.h"
#include "service/host/readiness.h"
#include "service/host/spawn.h"
#include "service/host/worlds.h"

namespace zcbroker::service {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr milliseconds kProbePatience(1000);
// Between its bind and its listen a daemon refuses connections.
constexpr microseconds kFirstConnectPause(200);
constexpr microseconds kLongestConnectPause(20'000);
constexpr milliseconds kAfterRemoval(300);
constexpr milliseconds kWriteAgain(1000);
constexpr size_t kTailLines = 20;

milliseconds ToMillis(const google::protobuf::Duration& duration) {
  return milliseconds(duration.seconds() * 1000 + duration.nanos() / 1000000);
}

std::string Canonical(const std::string& path) {
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) return path;
  return resolved;
}

class Run : public BackendRun, public std::enable_shared_from_this<Run> {
 public:
  Run(asio::io_context& loop, Reaper& reaper, const Surroundings& around,
      StartPlan plan, BackendEvents events)
      : loop_(loop),
        reaper_(reaper),
        around_(around),
        plan_(std::move(plan)),
        events_(std::move(events)),
        name_(
            absl::StrCat(plan_.definition.name(), " ", plan_.version.version)),
        start_timer_(loop),
        pause_timer_(loop),
        stop_timer_(loop),
        pidfd_(loop) {}

  void Begin() {
    // Reports come later, never from within the call that created the run.
    asio::post(loop_, [self = shared_from_this()] {
      if (!self->abandoned_) self->Place();
    });
  }

  void Abandon() {
    abandoned_ = true;
    events_ = {};
    probe_.reset();
    watch_.reset();
    examination_.reset();
    start_timer_.cancel();
    pause_timer_.cancel();
    stop_timer_.cancel();
    asio::error_code ignored;
    pidfd_.close(ignored);
  }

  void Examine() override {
    if (over_ || !ready_ || stopping_ || examination_ != nullptr) return;
    if (socket_identity_.has_value() && !socket_taken_away_ && !unreachable_ &&
        !RestoreSocket()) {
      Unreachable();
    }
    if (socket_taken_away_ || unreachable_) {
      // It cannot be asked any more; what it has begun it may end.
      asio::post(loop_, [self = shared_from_this()] {
        if (self->over_ || self->abandoned_) return;
        if (self->IsStopped()) {
          self->Wedged(
              {absl::StrCat("process ", self->process_.pid, " is stopped")});
        } else {
          self->Found(Finding::kWorks, {"it drains"});
        }
      });
      return;
    }
    examination_ = StartExamination(
        loop_, process_, *serving_endpoint_, plan_.definition.probe(),
        [self = shared_from_this()](Finding finding,
                                    std::vector<std::string> evidence) {
          self->examination_.reset();
          if (!self->over_ && !self->abandoned_) {
            self->Found(finding, std::move(evidence));
          }
        });
  }

  void LookAtFiles() override {
    // A draining backend's socket is taken away by us, for good.
    if (over_ || !ready_ || stopping_ || withdrawn_ || unreachable_) return;
    // Whoever removes a whole directory is to finish undisturbed.
    LookAtFilesAfter(kAfterRemoval);
  }

  void LookAtFilesAfter(milliseconds pause) {
    // What goes on happening does not put it off.
    const auto at = SteadyClock::now() + pause;
    if (look_pending_ && pause_timer_.expiry() <= at) return;
    look_pending_ = true;
    pause_timer_.expires_at(at);
    pause_timer_.async_wait(
        [self = shared_from_this()](const asio::error_code& error) {
          if (error || self->abandoned_) return;
          self->look_pending_ = false;
          self->RestoreFiles();
        });
  }

  void Withdraw() override {
    withdrawn_ = true;
    WithdrawRoute();
  }

  void Release() override {
    Withdraw();
    OwnJournal().Remove();
  }

  void NoteLeaving(const std::string& why) override {
    leaving_ = why;
    if (process_.pid != 0 && !over_) WriteJournal();
  }

  void LookInside() override {
    if (over_ || !ready_ || stopping_) return;
    InFlight seen = Look();
    if (withdrawn_ && !seen.any()) {
      TakeSocketAway();
      seen = Look();
    }
    asio::post(loop_, [self = shared_from_this(), seen] {
      if (!self->over_ && !self->abandoned_) self->events_.looked(seen);
    });
  }

  const StartPlan& plan() const override { return plan_; }
  uint32_t pid() const override { return static_cast<uint32_t>(process_.pid); }

  void Stop() override {
    if (over_) return;
    stopping_ = true;
    examination_.reset();
    WithdrawRoute();
    if (process_.pid != 0) {
      // Before it is asked: a successor must not take it for one that serves.
      WriteJournal();
      AskToEnd();
    } else if (!plan_.leaving) {
      Fail("stopped before it was started");
    }
  }

 private:
  void RestoreFiles() {
    if (over_ || stopping_ || withdrawn_ || unreachable_) return;
    if (socket_identity_.has_value() && !RestoreSocket()) {
      Unreachable();
      return;
    }
    if (watch_ == nullptr) WatchFiles();
    ipc::MakeDirectories(around_.backends_dir).IgnoreError();
    const absl::Status journal = OwnJournal().Read().status();
    if (absl::IsNotFound(journal) || journal_is_behind_) WriteJournal();
    if (absl::IsResourceExhausted(journal)) LookAtFilesAfter(kWriteAgain);
    if (!route_published_) return;
    const absl::Status info =
        ipc::ReadRouteInfo(*around_.runtime, plan_.definition.name(),
                           plan_.version.version)
            .status();
    if (absl::IsNotFound(info)) PublishRoute();
    if (absl::IsResourceExhausted(info)) LookAtFilesAfter(kWriteAgain);
  }

  void AskToEnd() {
    LogInfo(absl::StrCat(name_, ": asking process ", process_.pid, " to end"));
    pause_timer_.cancel();
    Signal(SIGTERM);
    stop_timer_.expires_after(ToMillis(plan_.definition.stop_grace()));
    stop_timer_.async_wait(
        [self = shared_from_this()](const asio::error_code& error) {
          if (error || self->over_ || self->abandoned_) return;
          LogWarning(absl::StrCat(self->name_, ": did not end in time"));
          self->KillLeader();
        });
  }

  // --- Its files

  // Does its socket have its name, or again?
  bool RestoreSocket() {
    const auto leads_to_it = [this](const ipc::Endpoint& name) {
      const auto found = ipc::IdentifyFile(name.path());
      return found.ok() && *found == *socket_identity_;
    };
    if (leads_to_it(files_->endpoint)) {
      if (published_direct_ && !leads_to_it(*files_->direct)) {
        // Its own clients' way; somebody else's socket there is left alone.
        published_direct_ =
            ipc::LinkSocket(files_->endpoint, *files_->direct).ok();
      }
      return true;
    }
    return published_direct_ && leads_to_it(*files_->direct) &&
           ipc::LinkSocket(*files_->direct, files_->endpoint).ok();
  }

  // A socket without a name cannot be given one again, so a backend that
  // nobody can reach is replaced, after it is gone: a cache has one writer.
  // What it has begun it may end.
  void Unreachable() {
    if (std::exchange(unreachable_, true)) return;
    std::string why =
        absl::StrCat("its socket ", files_->endpoint.path(), " was removed");
    LogWarning(absl::StrCat(name_, ": ", why));
    WithdrawRoute();
    asio::post(loop_, [self = shared_from_this(), why = std::move(why)] {
      if (self->over_ || self->abandoned_ || self->stopping_) return;
      if (self->events_.unreachable) self->events_.unreachable(why);
    });
  }

  // --- Being looked at

  void Found(Finding finding, std::vector<std::string> evidence) {
    if (finding == Finding::kWorks) {
      LogDebug(absl::StrCat(name_, ": reported, and works: ", evidence.back()));
      if (events_.examined) events_.examined(evidence);
      return;
    }
    if (finding == Finding::kWedged) {
      Wedged(std::move(evidence));
      return;
    }
    // Its end is on its way; nobody is sent there meanwhile.
    LogInfo(absl::StrCat(name_, ": ", evidence.back()));
    WithdrawRoute();
    if (events_.ending) events_.ending({});
    stop_timer_.expires_after(ToMillis(plan_.definition.stop_grace()));
    stop_timer_.async_wait(
        [self = shared_from_this()](const asio::error_code& error) {
          if (error || self->over_ || self->abandoned_) return;
          LogWarning(absl::StrCat(self->name_, ": listens no more and did ",
                                  "not end by itself"));
          self->KillLeader();
        });
  }

  void Wedged(std::vector<std::string> evidence) {
    for (const std::string& line : evidence) {
      LogWarning(absl::StrCat(name_, ": wedged: ", line));
    }
    // In this order: a cache has one writer.
    WithdrawRoute();
    if (events_.ending) events_.ending(std::move(evidence));
    KillLeader();
  }

  // --- Being used

  InFlight Look() {
    InFlight seen;
    // Its names may be gone: those who have connected are there all the same.
    const absl::StatusOr<size_t> connections = ipc::CountConnections(
        *serving_endpoint_, *serving_endpoint_ == files_->endpoint
                                ? socket_identity_
                                : absl::nullopt);
    if (connections.ok()) {
      seen.connections = *connections;
    } else {
      seen.unknown = std::string(connections.status().message());
    }
    seen.running_children = HasRunningChildren(process_.pid);
    const absl::StatusOr<bool> connected =
        ipc::WasConnectedTo(*serving_endpoint_);
    if (connected.ok()) {
      seen.used = *connected;
    } else if (!absl::IsNotFound(connected.status())) {
      // Nothing else tells of those who came and went.
      seen.used = CpuTicks() != cpu_ticks_;
    }
    BeginUnused();
    return seen;
  }

  void BeginUnused() {
    ipc::ForgetConnections(*serving_endpoint_).IgnoreError();
    cpu_ticks_ = CpuTicks();
  }

  uint64_t CpuTicks() const {
    const absl::StatusOr<ipc::ProcessStat> stat =
        ipc::ReadProcessStat(process_.pid);
    return stat.ok() ? stat->cpu_ticks : 0;
  }

  void TakeSocketAway() {
    if (!socket_identity_.has_value()) return;
    socket_taken_away_ = true;
    UnlinkIfSame(files_->endpoint, *socket_identity_);
    if (published_direct_) UnlinkIfSame(*files_->direct, *socket_identity_);
  }

  // --- What others find: the route, and what a successor needs

  v1::RouteInfo Describe() const {
    v1::RouteInfo info;
    info.set_service(plan_.definition.name());
    info.set_version(plan_.version.version);
    info.set_endpoint(serving_endpoint_.has_value() ? serving_endpoint_->path()
                                                    : files_->endpoint.path());
    for (const v1::WireLane lane : plan_.version.lanes) info.add_lanes(lane);
    info.set_binary(plan_.version.binary);
    info.set_pid(static_cast<uint32_t>(process_.pid));
    info.set_start_time(process_.start_time);
    info.set_boot_id(process_.pid != 0 ? process_.boot_id
                                       : ipc::BootId().value_or(""));
    if (process_.pid != 0 && leads_group_) {
      info.set_group(static_cast<uint32_t>(process_.pid));
    }
    info.set_generation(plan_.generation);
    // Whose cache it is matters where there is one.
    if (plan_.definition.endpoint_rule() == v1::ENDPOINT_RULE_ZCCACHE) {
      info.set_cache_root(around_.world.cache_root());
      info.set_daemon_namespace(around_.world.daemon_namespace());
    }
    info.set_mount_namespace(around_.world.mount_namespace());
    return info;
  }

  void PublishRoute() {
    if (around_.runtime == nullptr) return;
    route_published_ = true;
    const absl::Status written =
        ipc::WriteRouteInfo(*around_.runtime, Describe());
    if (!written.ok()) {
      LogWarning(absl::StrCat(
          name_, ": no route info: ", std::string(written.message())));
      // Out of room or descriptors: that may pass.
      if (absl::IsResourceExhausted(written)) LookAtFilesAfter(kWriteAgain);
    }
  }

  // Before anything is ended, so that nobody finds the way there any more.
  void WithdrawRoute() {
    if (!std::exchange(route_published_, false)) return;
    ipc::RemoveRouteInfo(*around_.runtime, plan_.definition.name(),
                         plan_.version.version)
        .IgnoreError();
  }

  Journal OwnJournal() const {
    return Journal(around_.backends_dir, files_->id);
  }

  void WriteJournal() {
    v1::JournalEntry entry;
    *entry.mutable_backend() = Describe();
    entry.set_binary_identity(plan_.version.binary_identity);
    if (!adopted_ || resumed_) entry.set_log_file(files_->log_file);
    entry.set_adopted(adopted_ && !resumed_);
    entry.set_served(ready_);
    entry.set_leaving(leaving_);
    entry.set_asked_to_end(stopping_);
    entry.set_registered(plan_.registration.has_value());
    // Of one with a lease nobody says when a link would have to go.
    if (!entry.registered()) {
      for (std::string& name : around_.public_names_of(plan_.definition.name(),
                                                       plan_.version.version)) {
        *entry.add_public_names() = std::move(name);
      }
    }
    const absl::Status written = OwnJournal().Write(entry);
    journal_is_behind_ = !written.ok();
    if (!written.ok()) {
      LogWarning(absl::StrCat(
          name_, ": no journal: ", std::string(written.message())));
      if (ready_ && absl::IsResourceExhausted(written)) {
        LookAtFilesAfter(kWriteAgain);
      }
    }
  }

  // --- Looking

  // An earlier broker may have begun what this one is asked for: what is left
  // of an ended backend is ended first, and one that lives is gone on with.
  void FollowJournal(const std::function<void()>& then) {
    const absl::StatusOr<v1::JournalEntry> entry = OwnJournal().Read();
    if (absl::IsDataLoss(entry.status())) {
      LogWarning(std::string(entry.status().message()));
    }
    if (!entry.ok() || entry->backend().pid() == 0) {
      then();
      return;
    }
    const v1::RouteInfo& left = entry->backend();
    const ipc::ProcessIdentity process{static_cast<int>(left.pid()),
                                       left.start_time(), left.boot_id()};
    if (ipc::IsAlive(process)) {
      if (!entry->adopted()) resumable_ = process;
      then();
      return;
    }
    if (left.group() == 0) {
      then();
      return;
    }
    EndOrphanedGroup(loop_, static_cast<pid_t>(left.group()), left.start_time(),
                     [self = shared_from_this(), then] {
                       if (!self->over_ && !self->abandoned_) then();
                     });
  }

  void Place() {
    step_began_ = SteadyClock::now();
    absl::StatusOr<BackendFiles> files = PlaceBackend(plan_, around_);
    if (!files.ok()) {
      Fail(std::string(files.status().message()));
      return;
    }
    files_ = *std::move(files);
    if (plan_.leaving) {
      GoOnLeaving();
      return;
    }
    const milliseconds patience = ToMillis(plan_.definition.start_timeout());
    start_timer_.expires_after(patience);
    start_timer_.async_wait(
        [self = shared_from_this(), patience](const asio::error_code& error) {
          if (error || self->ready_ || self->over_ || self->abandoned_) return;
          self->FailAndKill(
              absl::StrCat("was not ready within ", patience.count(), " ms"));
        });
    if (plan_.registration.has_value()) {
      LookAtRegistered();
      return;
    }
    FollowJournal([self = shared_from_this()] { self->LookAround(); });
  }

  // An earlier broker had begun to have it leave: neither asked nor shown to
  // anybody, only seen to its end.
  void GoOnLeaving() {
    ready_ = true;
    adopted_ = true;
    withdrawn_ = true;
    const absl::StatusOr<v1::JournalEntry> entry = OwnJournal().Read();
    const absl::StatusOr<ipc::Endpoint> endpoint =
        ipc::Endpoint::Parse(entry.ok() ? entry->backend().endpoint() : "");
    if (!endpoint.ok()) {
      // It was removed this moment, and nothing else tells of the process.
      Gone({absl::StrCat("its journal is gone: ",
                         std::string(entry.status().message()))});
      return;
    }
    const v1::RouteInfo& left = entry->backend();
    resumed_ = !entry->adopted();
    serving_endpoint_ = *endpoint;
    process_ = {static_cast<int>(left.pid()), left.start_time(),
                left.boot_id()};
    absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(process_);
    if (!handle.ok()) {
      // It ended this moment.
      const auto gone = [self = shared_from_this()] {
        if (!self->abandoned_) self->GroupGone("ended");
      };
      if (left.group() == 0) {
        asio::post(loop_, gone);
      } else {
        EndOrphanedGroup(loop_, static_cast<pid_t>(left.group()),
                         left.start_time(), gone);
      }
      return;
    }
    handle_ = *std::move(handle);
    leads_group_ = LeadsGroup();
    WatchPidfd();
    const auto identity = ipc::IdentifyFile(serving_endpoint_->path());
    unreachable_ = !identity.ok();
    if (*serving_endpoint_ == files_->endpoint && identity.ok()) {
      socket_identity_ = *identity;
      FindDirectLink();
    }
    WriteJournal();
    LogInfo(absl::StrCat(name_, ": process ", process_.pid,
                         " goes on leaving: ", leaving_));
    // In case that the one who withdrew it did not get that far.
    route_published_ = true;
    WithdrawRoute();
    if (stopping_) AskToEnd();
  }

  // It started itself: it is asked like any other, and nobody is started.
  void LookAtRegistered() {
    const absl::StatusOr<ipc::Endpoint> endpoint =
        ipc::Endpoint::Parse(plan_.registration->endpoint);
    if (!endpoint.ok()) {
      Fail(std::string(endpoint.status().message()));
      return;
    }
    probe_ =
        StartProbe(loop_, *endpoint, plan_.definition.probe(), kProbePatience,
                   [self = shared_from_this(), endpoint = *endpoint](
                       const absl::StatusOr<Probed>& probed) {
                     if (self->over_ || self->abandoned_) return;
                     self->probe_.reset();
                     const std::string why = self->WhyNotRegistered(probed);
                     if (!why.empty()) {
                       self->Fail(why);
                       return;
                     }
                     self->Adopt(endpoint, *probed);
                   });
  }

  // Whoever registers may name any endpoint: only the process that listens
  // there and is connected to us has one that is its own.
  std::string WhyNotRegistered(const absl::StatusOr<Probed>& probed) const {
    if (!probed.ok()) return std::string(probed.status().message());
    const std::string who =
        absl::StrCat("process ", probed->process.pid, ", which listens there");
    if (!around_.is_connected(probed->process.pid)) {
      return absl::StrCat(who, ", is not the one that registers it");
    }
    if (!probed->version.empty() && probed->version != plan_.version.version) {
      return absl::StrCat(who, ", calls itself version ", probed->version);
    }
    const absl::StatusOr<std::string> executable =
        ipc::ExecutablePath(probed->process.pid);
    if (!executable.ok() || *executable != Canonical(plan_.version.binary)) {
      return absl::StrCat(who, ", does not run from ", plan_.version.binary);
    }
    const v1::EndpointRule rule = plan_.definition.endpoint_rule();
    if (rule == v1::ENDPOINT_RULE_ZCCACHE) {
      const std::vector<std::string> differences = WorldDifferences(
          around_.world, WorldOfProcess(probed->process.pid), rule);
      if (!differences.empty()) {
        return absl::StrCat(who,
                            ", is of another world: ", differences.front());
      }
    }
    return "";
  }

  void LookAround() {
    LookAt(files_->endpoint, [self = shared_from_this()] {
      if (!self->files_->direct.has_value() ||
          *self->files_->direct == self->files_->endpoint ||
          self->around_.is_public_name(self->files_->direct->path())) {
        self->AfterLook();
        return;
      }
      self->LookAt(*self->files_->direct, [self] { self->AfterLook(); });
    });
  }

  // Adopts who serves at `endpoint`, else goes on with `nobody`.
  void LookAt(const ipc::Endpoint& endpoint, std::function<void()> nobody) {
    probe_ = StartProbe(
        loop_, endpoint, plan_.definition.probe(), kProbePatience,
        [self = shared_from_this(), endpoint,
         nobody = std::move(nobody)](absl::StatusOr<Probed> probed) {
          if (self->over_ || self->abandoned_) return;
          self->probe_.reset();
          if (probed.ok() && self->LivesElsewhere(*probed)) {
            // What it sees at the same paths are other files, or the
            // same cache: neither used nor started beside.
            self->transient_ = true;
            self->Fail(absl::StrCat("process ", probed->process.pid,
                                    ", which listens at ", endpoint.path(),
                                    ", lives in another mount namespace"));
            return;
          }
          if (probed.ok() && self->IsWanted(endpoint, *probed)) {
            self->Adopt(endpoint, *probed);
            return;
          }
          const bool free = absl::IsNotFound(probed.status()) ||
                            absl::IsUnavailable(probed.status());
          if (self->resumable_.has_value() &&
              endpoint == self->files_->endpoint && !probed.ok()) {
            self->Resume();
            return;
          }
          if (!free) self->Occupied(endpoint, probed);
          if (!self->over_) nobody();
        });
  }

  bool LivesElsewhere(const Probed& probed) const {
    const absl::StatusOr<std::string> ours = ipc::OwnMountNamespace();
    const absl::StatusOr<std::string> theirs =
        ipc::MountNamespace(probed.process.pid);
    return ours.ok() && theirs.ok() && *ours != *theirs;
  }

  bool IsWanted(const ipc::Endpoint& endpoint, const Probed& probed) const {
    if (!probed.version.empty()) {
      return probed.version == plan_.version.version;
    }
    // Our own endpoint's name says which binary it was started from, and only
    // this user can bind it; a script's executable is its interpreter.
    if (endpoint == files_->endpoint) return true;
    const absl::StatusOr<std::string> executable =
        ipc::ExecutablePath(probed.process.pid);
    return executable.ok() && *executable == Canonical(plan_.version.binary);
  }

  void Occupied(const ipc::Endpoint& endpoint,
                const absl::StatusOr<Probed>& probed) {
    std::string what =
        probed.ok() ? absl::StrCat("process ", probed->process.pid,
                                   " listens at ", endpoint.path(),
                                   " as version \"", probed->version, "\"")
                    : absl::StrCat(endpoint.path(), " is taken: ",
                                   std::string(probed.status().message()));
    const bool mute = absl::IsDeadlineExceeded(probed.status()) ||
                      absl::IsAborted(probed.status());
    if (endpoint == files_->endpoint || mute ||
        absl::IsAlreadyExists(probed.status())) {
      // A cache has one writer: not beside one that may come back, or that
      // another broker looks after.
      transient_ = true;
      Fail(std::move(what));
      return;
    }
    // The service's own clients go on with what is there; ours get ours.
    LogWarning(absl::StrCat(name_, ": ", what, "; left alone"));
    evidence_.push_back(std::move(what));
    direct_is_free_ = false;
  }

  void AfterLook() {
    EndStep("look");
    SpawnOrSay();
  }

  void SpawnOrSay() {
    if (plan_.only_adopt.empty()) {
      SpawnBackend();
      return;
    }
    forbidden_ = true;
    process_ = {};
    adopted_ = false;
    Fail(plan_.only_adopt);
  }

  // An earlier broker started it and did not see it become ready: wait for
  // that as for a child of our own.
  void Resume() {
    absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(*resumable_);
    if (!handle.ok()) {
      // It ended this moment; what is left of it is ended like any other's.
      resumable_.reset();
      FollowJournal([self = shared_from_this()] { self->LookAround(); });
      return;
    }
    EndStep("look");
    LogInfo(absl::StrCat(name_, ": going on with process ", resumable_->pid,
                         ", which an earlier broker started"));
    adopted_ = true;
    resumed_ = true;
    process_ = *resumable_;
    handle_ = *std::move(handle);
    leads_group_ = LeadsGroup();
    serving_endpoint_ = files_->endpoint;
    WatchPidfd();
    absl::StatusOr<std::unique_ptr<DirectoryWatch>> watch = WatchForSocket();
    if (watch.ok()) watch_ = *std::move(watch);
    MaybeBound();
  }

  bool LeadsGroup() const {
    const absl::StatusOr<ipc::ProcessStat> stat =
        ipc::ReadProcessStat(process_.pid);
    return stat.ok() && stat->group == process_.pid;
  }

  void Adopt(const ipc::Endpoint& endpoint, const Probed& probed) {
    absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(probed.process);
    if (!handle.ok()) {
      Fail(absl::StrCat("process ", probed.process.pid,
                        " was found serving and ended meanwhile"));
      return;
    }
    EndStep("look");
    adopted_ = true;
    process_ = probed.process;
    handle_ = *std::move(handle);
    serving_endpoint_ = endpoint;
    leads_group_ = LeadsGroup();
    resumed_ = resumable_ == process_;
    WatchPidfd();
    if (endpoint == files_->endpoint) {
      // An earlier broker of ours started it.
      Publish();
    } else {
      Ready();
    }
  }

  // The process is not our child: its pidfd tells when it ends.
  void WatchPidfd() {
    ipc::UniqueFd copy(fcntl(handle_.get(), F_DUPFD_CLOEXEC, 0));
    asio::error_code ignored;
    // That of a launcher, which was gone on with, and is not who serves.
    pidfd_.close(ignored);
    if (copy) pidfd_.assign(copy.release(), ignored);
    if (!pidfd_.is_open()) {
      LogError(absl::StrCat(name_, ": no descriptor left to watch process ",
                            process_.pid));
      return;
    }
    WhenReady(pidfd_, asio::posix::stream_descriptor::wait_read,
              [self = shared_from_this()](const asio::error_code& error) {
                if (error || self->abandoned_) return;
                self->LeaderEnded("ended");
              });
  }

  // --- Starting

  void SpawnBackend() {
    const Placeholders values{files_->endpoint.path(), plan_.version.version,
                              files_->log_file};
    const std::string directory = SocketDirectory();
    absl::Status made = ipc::MakeDirectories(directory);
    if (made.ok()) made = ipc::MakeDirectories(around_.log_dir);
    if (!made.ok()) {
      Fail(std::string(made.message()));
      return;
    }
    // Nobody listens there: the look said so.
    if (const absl::Status cleared = RemoveSocket(files_->endpoint);
        !cleared.ok()) {
      Fail(std::string(cleared.message()));
      return;
    }
    absl::StatusOr<ipc::UniqueFd> log = OpenLog();
    if (!log.ok()) {
      Fail(std::string(log.status().message()));
      return;
    }
    absl::StatusOr<std::unique_ptr<DirectoryWatch>> watch = WatchForSocket();
    if (!watch.ok()) {
      Fail(std::string(watch.status().message()));
      return;
    }
    watch_ = *std::move(watch);

    adopted_ = false;
    resumed_ = false;
    leads_group_ = false;
    process_ = {};
    WriteJournal();
    const LaunchSpec spec = MakeLaunchSpec(plan_, values, around_.environment);
    const absl::StatusOr<pid_t> pid =
        Spawn({spec.binary, spec.argv, spec.env, log->get()});
    if (!pid.ok()) {
      Fail(std::string(pid.status().message()));
      return;
    }
    reaper_.Watch(
        *pid,
        [self = shared_from_this(), pid = *pid](ExitStatus status) {
          if (!self->abandoned_ && self->process_.pid == pid) {
            self->ChildEnded(status);
          }
        },
        // Its group is surely its own only until it is reaped. A broker that
        // is leaving leaves the group alone, too, and so does one whose
        // backend forked itself away from this child.
        [self = shared_from_this(), pid = *pid] {
          if (!self->abandoned_ && self->process_.pid == pid) {
            kill(-pid, SIGKILL);
          }
        });
    const absl::StatusOr<ipc::ProcessIdentity> identity =
        ipc::IdentifyProcess(*pid);
    process_.pid = *pid;
    leads_group_ = true;
    if (identity.ok()) {
      process_ = *identity;
      absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(process_);
      if (handle.ok()) handle_ = *std::move(handle);
    }
    WriteJournal();
    LogInfo(
        absl::StrCat(name_, ": started process ", *pid, " from ", spec.binary));
    EndStep("spawn");
    serving_endpoint_ = files_->endpoint;
    MaybeBound();
  }

  std::string SocketDirectory() const {
    return files_->endpoint.path().substr(0,
                                          files_->endpoint.path().rfind('/'));
  }

  absl::StatusOr<std::unique_ptr<DirectoryWatch>> WatchForSocket() {
    return DirectoryWatch::Create(
        loop_, SocketDirectory(), /*writes=*/false,
        [weak = weak_from_this()](const std::string&) {
          const auto self = weak.lock();
          if (self != nullptr) self->MaybeBound();
        });
  }

  absl::StatusOr<ipc::UniqueFd> OpenLog() {
    const std::string& path = files_->log_file;
    struct stat status;
    if (lstat(path.c_str(), &status) == 0 && status.st_size > kMaxLogBytes) {
      rename(path.c_str(), absl::StrCat(path, ".1").c_str());
    }
    ipc::UniqueFd fd(open(
        path.c_str(),
        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
        0600));
    if (!fd || fstat(fd.get(), &status) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("open log ", path));
    }
    if (!S_ISREG(status.st_mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat("log ", path, " is no regular file"));
    }
    log_offset_ = status.st_size;
    return fd;
  }

  void MaybeBound() {
    if (ready_ || over_ || stopping_ || probe_ != nullptr) return;
    struct stat status;
    if (lstat(files_->endpoint.path().c_str(), &status) != 0) return;
    watch_.reset();
    EndStep("bind");
    Prove(kFirstConnectPause);
  }

  void Prove(microseconds pause) {
    probe_ = StartProbe(
        loop_, files_->endpoint, plan_.definition.probe(), kProbePatience,
        [self = shared_from_this(), pause](absl::StatusOr<Probed> probed) {
          if (self->over_ || self->abandoned_) return;
          self->Proved(std::move(probed), pause);
        });
  }

  void Proved(absl::StatusOr<Probed> probed, microseconds pause) {
    if (probed.ok()) {
      if (!probed->version.empty() &&
          probed->version != plan_.version.version) {
        FailAndKill(absl::StrCat("it calls itself version ", probed->version));
        return;
      }
      EndStep("probe");
      if (probed->process.pid != process_.pid && !WatchInstead(*probed)) return;
      Publish();
      return;
    }
    if (absl::IsDataLoss(probed.status()) ||
        absl::IsPermissionDenied(probed.status())) {
      FailAndKill(std::string(probed.status().message()));
      return;
    }
    if (resumed_ && absl::IsDeadlineExceeded(probed.status()) && IsStopped()) {
      // Wedged while no broker was there to see it.
      respawn_ = true;
      KillLeader();
      return;
    }
    pause_timer_.expires_after(pause);
    pause_timer_.async_wait(
        [self = shared_from_this(), pause](const asio::error_code& error) {
          if (error || self->over_ || self->abandoned_) return;
          self->Prove(std::min(pause * 2, kLongestConnectPause));
        });
  }

  bool IsStopped() const {
    const absl::StatusOr<ipc::ProcessStat> stat =
        ipc::ReadProcessStat(process_.pid);
    return stat.ok() && stat->stopped();
  }

  // Who serves is not the child we started: it forked itself away, or was
  // there first. From now on it is the backend, and the child is not.
  bool WatchInstead(const Probed& probed) {
    absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(probed.process);
    if (!handle.ok()) {
      FailAndKill(absl::StrCat("process ", probed.process.pid,
                               " served and ended meanwhile"));
      return false;
    }
    adopted_ = true;
    process_ = probed.process;
    leads_group_ = LeadsGroup();
    handle_ = *std::move(handle);
    WatchPidfd();
    WriteJournal();
    return true;
  }

  // --- Ready

  void Publish() {
    const absl::StatusOr<ipc::FileIdentity> identity =
        ipc::IdentifyFile(files_->endpoint.path());
    if (identity.ok()) socket_identity_ = *identity;
    if (IsClaimed()) {
      Ready();
      return;
    }
    FindDirectLink();
    if (files_->direct.has_value() && direct_is_free_ && !published_direct_) {
      const absl::Status linked =
          ipc::LinkSocket(files_->endpoint, *files_->direct);
      if (linked.ok()) {
        published_direct_ = true;
      } else if (absl::IsAlreadyExists(linked)) {
        LogWarning(absl::StrCat(name_, ": ", std::string(linked.message()),
                                "; left alone"));
        evidence_.push_back(std::string(linked.message()));
      } else if (!adopted_) {
        StartAtDirectEndpoint(linked);
        return;
      }
      EndStep("publish");
    }
    Ready();
  }

  // Its socket may have the direct endpoint for a name already.
  void FindDirectLink() {
    if (!files_->direct.has_value() || !socket_identity_.has_value()) return;
    const absl::StatusOr<ipc::FileIdentity> direct =
        ipc::IdentifyFile(files_->direct->path());
    published_direct_ = direct.ok() && *direct == *socket_identity_;
  }

  // Our own listener leads there, for every client.
  bool IsClaimed() const {
    return files_->direct.has_value() &&
           around_.is_public_name(files_->direct->path());
  }

  // The file system has no hard links: the backend has to listen right where
  // the service's own clients look.
  void StartAtDirectEndpoint(const absl::Status& why) {
    LogInfo(absl::StrCat(name_, ": ", std::string(why.message()),
                         "; starting it at its direct endpoint instead"));
    restart_at_direct_ = true;
    KillLeader();
  }

  void Ready() {
    if (stopping_) return;
    ready_ = true;
    start_timer_.cancel();
    StartedBackend started;
    started.endpoint = serving_endpoint_->path();
    started.pid = static_cast<uint32_t>(process_.pid);
    started.start_time = process_.start_time;
    started.boot_id = process_.boot_id;
    started.adopted = adopted_;
    started.foreign = adopted_ && !resumed_;
    started.registered = plan_.registration.has_value();
    started.steps = steps_;
    if (!adopted_ || resumed_) started.log_file = files_->log_file;
    if (published_direct_ || IsClaimed() ||
        (files_->direct.has_value() && *serving_endpoint_ == *files_->direct)) {
      started.direct_endpoint = files_->direct->path();
    }
    const absl::StatusOr<ipc::Endpoint> named =
        around_.runtime == nullptr || !around_.other_world.empty()
            ? absl::NotFoundError("no public name")
            : ipc::RouteSocket(*around_.runtime, plan_.definition.name(),
                               plan_.version.version);
    if (named.ok()) started.named_route = named->path();
    BeginUnused();
    WriteJournal();
    PublishRoute();
    WatchFiles();
    LogInfo(absl::StrCat(name_, adopted_ ? ": adopted" : ": ready",
                         ", process ", started.pid, " at ", started.endpoint));
    if (events_.started) events_.started(std::move(started));
  }

  // For as long as it serves.
  void WatchFiles() {
    if (!socket_identity_.has_value()) return;
    auto watch = DirectoryWatch::Create(
        loop_, SocketDirectory(), /*writes=*/false,
        [weak = weak_from_this()](const std::string& leaf) {
          const auto self = weak.lock();
          if (self == nullptr || !self->IsOwnFile(leaf)) return;
          // The directory is gone, and the watch with it.
          if (leaf.empty()) self->watch_.reset();
          self->LookAtFiles();
        });
    // Without one, what is deleted is found out by those who come.
    watch_ = watch.ok() ? *std::move(watch) : nullptr;
  }

  bool IsOwnFile(const std::string& leaf) const {
    return leaf.empty() ||
           absl::StrCat(SocketDirectory(), "/", leaf) ==
               files_->endpoint.path() ||
           leaf == absl::StrCat(files_->id, ".journal");
  }

  // --- Ending

  void ChildEnded(ExitStatus status) {
    if (over_) return;
    if (!ready_ && !stopping_ && failure_.empty() && !restart_at_direct_ &&
        status.success() && !looked_again_) {
      // Exit 0 before it served: it found another daemon serving.
      looked_again_ = true;
      LookAgain();
      return;
    }
    LeaderEnded(status.ToString());
  }

  void LookAgain() {
    watch_.reset();
    probe_.reset();
    pause_timer_.cancel();
    process_ = {};
    handle_.reset();
    const auto nobody = [self = shared_from_this()] {
      self->Fail(
          "exited with status 0 before it was ready, and nobody else serves");
    };
    if (!files_->direct.has_value()) {
      nobody();
      return;
    }
    LookAt(*files_->direct, nobody);
  }

  void LeaderEnded(std::string how) {
    if (over_) return;
    probe_.reset();
    watch_.reset();
    pause_timer_.cancel();
    asio::error_code ignored;
    pidfd_.close(ignored);
    LogInfo(absl::StrCat(name_, ": process ", process_.pid, " ", how));
    examination_.reset();
    WithdrawRoute();
    if (ready_ && events_.ending) events_.ending({});
    const pid_t leader = process_.pid;
    const auto after = [self = shared_from_this(), how = std::move(how)] {
      if (!self->abandoned_) self->GroupGone(how);
    };
    // An adopted daemon's group is its own only where it leads one.
    if (adopted_ && !leads_group_) {
      asio::post(loop_, after);
    } else {
      EndGroup(loop_, leader, after);
    }
  }

  void GroupGone(const std::string& how) {
    if (over_) return;
    TakeSocketAway();
    // One that an earlier broker started, and that never served: wedged, or
    // ended with that broker. That is no failed start of this one.
    if (!ready_ && !stopping_ && (respawn_ || (resumed_ && failure_.empty()))) {
      respawn_ = false;
      resumable_.reset();
      handle_.reset();
      SpawnOrSay();
      return;
    }
    if (restart_at_direct_ && !stopping_) {
      restart_at_direct_ = false;
      files_->endpoint = *files_->direct;
      process_ = {};
      handle_.reset();
      SpawnBackend();
      return;
    }
    if (!ready_) {
      Fail(failure_.empty() ? absl::StrCat(how, " before it was ready")
                            : failure_);
      return;
    }
    std::vector<std::string> evidence{
        absl::StrCat("process ", process_.pid, " ", how)};
    // One that ended as it was asked to leaves nothing to explain.
    if (!stopping_) AppendLogTail(&evidence);
    Gone(std::move(evidence));
  }

  void Gone(std::vector<std::string> evidence) {
    over_ = true;
    OwnJournal().Remove();
    start_timer_.cancel();
    stop_timer_.cancel();
    if (events_.gone) events_.gone(std::move(evidence));
  }

  void AppendLogTail(std::vector<std::string>* evidence) {
    if (adopted_ || !log_offset_.has_value()) return;
    for (std::string& line :
         LogTail(files_->log_file, *log_offset_, kTailLines)) {
      evidence->push_back(std::move(line));
    }
  }

  // Nothing runs: report.
  void Fail(std::string text) {
    if (over_) return;
    over_ = true;
    start_timer_.cancel();
    stop_timer_.cancel();
    watch_.reset();
    StartFailure failure;
    failure.evidence = evidence_;
    AppendLogTail(&failure.evidence);
    if (files_.has_value()) failure.log_file = files_->log_file;
    // What was found serving, or mute, goes on, and so does what is known of
    // it; and who registers wrongly has no say in what another one left.
    if (files_.has_value() && !adopted_ && !transient_ &&
        !plan_.registration.has_value()) {
      OwnJournal().Remove();
      if (log_offset_.has_value()) RemoveDeadSocket(files_->endpoint);
    }
    LogWarning(absl::StrCat(name_, ": start failed: ", text));
    failure.text = std::move(text);
    failure.transient = transient_;
    failure.forbidden = forbidden_;
    if (events_.failed) events_.failed(std::move(failure));
  }

  // Something may run: end it first.
  void FailAndKill(std::string text) {
    if (process_.pid == 0 || (adopted_ && !resumed_)) {
      Fail(std::move(text));
      return;
    }
    failure_ = std::move(text);
    KillLeader();
  }

  // Its end is reported like any other.
  void KillLeader() { Signal(SIGKILL); }

  void Signal(int signal) {
    if (handle_) {
      ipc::SendSignal(handle_, signal).IgnoreError();
    } else if (!adopted_ && process_.pid > 0) {
      // Without a descriptor for a handle: a child that is not reaped yet
      // keeps its number.
      kill(process_.pid, signal);
    }
  }

  void EndStep(const char* name) {
    const auto now = SteadyClock::now();
    v1::NegotiationStep step;
    step.set_name(name);
    *step.mutable_duration() = ToProto(absl::FromChrono(now - step_began_));
    step_began_ = now;
    steps_.push_back(std::move(step));
  }

  asio::io_context& loop_;
  Reaper& reaper_;
  const Surroundings& around_;
  const StartPlan plan_;
  BackendEvents events_;
  const std::string name_;

  absl::optional<BackendFiles> files_;
  asio::steady_timer start_timer_;
  asio::steady_timer pause_timer_;
  // The grace of a stop.
  asio::steady_timer stop_timer_;
  std::unique_ptr<ProbeHandle> probe_;
  std::unique_ptr<DirectoryWatch> watch_;
  std::unique_ptr<Examination> examination_;

  // Whom we watch: our child, or who was adopted.
  ipc::ProcessIdentity process_;
  ipc::UniqueFd handle_;
  asio::posix::stream_descriptor pidfd_;
  absl::optional<ipc::Endpoint> serving_endpoint_;
  absl::optional<ipc::FileIdentity> socket_identity_;

  std::vector<v1::NegotiationStep> steps_;
  SteadyClock::time_point step_began_;
  std::vector<std::string> evidence_;
  std::string failure_;
  // Where in its log this run begins; nothing before it is started.
  absl::optional<off_t> log_offset_;
  // What it says of this run is not all there is to say: the last write failed.
  bool journal_is_behind_ = false;
  bool transient_ = false;
  bool forbidden_ = false;
  bool direct_is_free_ = true;
  bool published_direct_ = false;
  bool restart_at_direct_ = false;
  bool looked_again_ = false;
  bool adopted_ = false;
  // Adopted, and an earlier broker of ours had started it.
  bool resumed_ = false;
  bool respawn_ = false;
  bool leads_group_ = false;
  bool route_published_ = false;
  bool withdrawn_ = false;
  bool socket_taken_away_ = false;
  uint64_t cpu_ticks_ = 0;
  bool look_pending_ = false;
  absl::optional<ipc::ProcessIdentity> resumable_;
  bool ready_ = false;
  bool stopping_ = false;
  // Nothing leads to its socket any more.
  bool unreachable_ = false;
  // Why it is to leave; empty: it goes on.
  std::string leaving_;
  bool over_ = false;
  bool abandoned_ = false;
};

// The owner's end of a run, which its own pending operations keep alive.
class OwnedRun : public BackendRun {
 public:
  explicit OwnedRun(std::shared_ptr<Run> run) : run_(std::move(run)) {}
  ~OwnedRun() override { run_->Abandon(); }
  const StartPlan& plan() const override { return run_->plan(); }
  uint32_t pid() const override { return run_->pid(); }
  void Stop() override { run_->Stop(); }
  void Withdraw() override { run_->Withdraw(); }
  void Release() override { run_->Release(); }
  void NoteLeaving(const std::string& why) override { run_->NoteLeaving(why); }
  void LookInside() override { run_->LookInside(); }
  void Examine() override { run_->Examine(); }
  void LookAtFiles() override { run_->LookAtFiles(); }

 private:
  const std::shared_ptr<Run> run_;
};

}  // namespace

std::unique_ptr<BackendRun> BackendRun::Create(asio::io_context& loop,
                                               Reaper& reaper,
                                               const Surroundings& surroundings,
                                               StartPlan plan,
                                               BackendEvents events) {
  auto run = std::make_shared<Run>(loop, reaper, surroundings, std::move(plan),
                                   std::move(events));
  run->Begin();
  return std::make_unique<OwnedRun>(std::move(run));
}

}  // namespace zcbroker::service
