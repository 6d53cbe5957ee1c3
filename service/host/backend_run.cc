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
#include "ipc/process.h"
#include "ipc/unique_fd.h"
#include "service/core/launch.h"
#include "service/host/directory_watch.h"
#include "service/host/log.h"
#include "service/host/prober.h"
#include "service/host/process_group.h"
#include "service/host/spawn.h"

namespace zcbroker::service {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr milliseconds kProbePatience(1000);
// Between its bind and its listen a daemon refuses connections.
constexpr microseconds kFirstConnectPause(200);
constexpr microseconds kLongestConnectPause(20'000);
constexpr size_t kTailLines = 20;
constexpr off_t kLogLimit = 8 << 20;

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
    start_timer_.cancel();
    pause_timer_.cancel();
    stop_timer_.cancel();
    asio::error_code ignored;
    pidfd_.close(ignored);
  }

  void Stop() override {
    if (over_) return;
    stopping_ = true;
    if (process_.pid == 0) {
      Fail("stopped before it was started");
      return;
    }
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

 private:
  // --- Looking

  void Place() {
    step_began_ = SteadyClock::now();
    absl::StatusOr<BackendFiles> files = PlaceBackend(plan_, around_);
    if (!files.ok()) {
      Fail(std::string(files.status().message()));
      return;
    }
    files_ = *std::move(files);
    const milliseconds patience = ToMillis(plan_.definition.start_timeout());
    start_timer_.expires_after(patience);
    start_timer_.async_wait(
        [self = shared_from_this(), patience](const asio::error_code& error) {
          if (error || self->ready_ || self->over_ || self->abandoned_) return;
          self->FailAndKill(
              absl::StrCat("was not ready within ", patience.count(), " ms"));
        });
    LookAt(files_->endpoint, [self = shared_from_this()] {
      if (!self->files_->direct.has_value() ||
          *self->files_->direct == self->files_->endpoint) {
        self->AfterLook();
        return;
      }
      self->LookAt(*self->files_->direct, [self] { self->AfterLook(); });
    });
  }

  // Adopts who serves at `endpoint`, else goes on with `nobody`.
  void LookAt(const ipc::Endpoint& endpoint, std::function<void()> nobody) {
    probe_ =
        StartProbe(loop_, endpoint, plan_.definition.probe(), kProbePatience,
                   [self = shared_from_this(), endpoint,
                    nobody = std::move(nobody)](absl::StatusOr<Probed> probed) {
                     if (self->over_ || self->abandoned_) return;
                     self->probe_.reset();
                     if (probed.ok() && self->IsWanted(endpoint, *probed)) {
                       self->Adopt(endpoint, *probed);
                       return;
                     }
                     const bool free = absl::IsNotFound(probed.status()) ||
                                       absl::IsUnavailable(probed.status());
                     if (!free) self->Occupied(endpoint, probed);
                     if (!self->over_) nobody();
                   });
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
    if (endpoint == files_->endpoint || mute) {
      // A cache has one writer: not beside one that may come back.
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
    SpawnBackend();
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
    const absl::StatusOr<ipc::ProcessStat> stat =
        ipc::ReadProcessStat(process_.pid);
    leads_group_ = stat.ok() && stat->group == process_.pid;
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
    if (copy) pidfd_.assign(copy.release(), ignored);
    if (!pidfd_.is_open()) {
      LogError(absl::StrCat(name_, ": no descriptor left to watch process ",
                            process_.pid));
      return;
    }
    pidfd_.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = shared_from_this()](const asio::error_code& error) {
          if (error || self->abandoned_) return;
          self->LeaderEnded("ended");
        });
  }

  // --- Starting

  void SpawnBackend() {
    const Placeholders values{files_->endpoint.path(), plan_.version.version,
                              files_->log_file};
    const std::string directory =
        files_->endpoint.path().substr(0, files_->endpoint.path().rfind('/'));
    absl::Status made = MakeDirectories(directory);
    if (made.ok()) made = MakeDirectories(around_.log_dir);
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
    absl::StatusOr<std::unique_ptr<DirectoryWatch>> watch =
        DirectoryWatch::Create(loop_, directory,
                               [weak = weak_from_this()](const std::string&) {
                                 const auto self = weak.lock();
                                 if (self != nullptr) self->MaybeBound();
                               });
    if (!watch.ok()) {
      Fail(std::string(watch.status().message()));
      return;
    }
    watch_ = *std::move(watch);

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
    if (identity.ok()) {
      process_ = *identity;
      absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(process_);
      if (handle.ok()) handle_ = *std::move(handle);
    }
    LogInfo(
        absl::StrCat(name_, ": started process ", *pid, " from ", spec.binary));
    EndStep("spawn");
    serving_endpoint_ = files_->endpoint;
    MaybeBound();
  }

  absl::StatusOr<ipc::UniqueFd> OpenLog() {
    const std::string& path = files_->log_file;
    struct stat status;
    if (lstat(path.c_str(), &status) == 0 && status.st_size > kLogLimit) {
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
    pause_timer_.expires_after(pause);
    pause_timer_.async_wait(
        [self = shared_from_this(), pause](const asio::error_code& error) {
          if (error || self->over_ || self->abandoned_) return;
          self->Prove(std::min(pause * 2, kLongestConnectPause));
        });
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
    const absl::StatusOr<ipc::ProcessStat> stat =
        ipc::ReadProcessStat(probed.process.pid);
    adopted_ = true;
    leads_group_ = stat.ok() && stat->group == probed.process.pid;
    process_ = probed.process;
    handle_ = *std::move(handle);
    WatchPidfd();
    return true;
  }

  // --- Ready

  void Publish() {
    const absl::StatusOr<ipc::FileIdentity> identity =
        ipc::IdentifyFile(files_->endpoint.path());
    if (identity.ok()) socket_identity_ = *identity;
    if (files_->direct.has_value()) {
      const absl::StatusOr<ipc::FileIdentity> direct =
          ipc::IdentifyFile(files_->direct->path());
      published_direct_ = direct.ok() && identity.ok() && *direct == *identity;
    }
    if (files_->direct.has_value() && direct_is_free_ && !published_direct_) {
      const absl::Status linked = LinkSocket(files_->endpoint, *files_->direct);
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
    started.steps = steps_;
    if (!adopted_) started.log_file = files_->log_file;
    if (published_direct_ ||
        (files_->direct.has_value() && *serving_endpoint_ == *files_->direct)) {
      started.direct_endpoint = files_->direct->path();
    }
    LogInfo(absl::StrCat(name_, adopted_ ? ": adopted" : ": ready",
                         ", process ", started.pid, " at ", started.endpoint));
    if (events_.started) events_.started(std::move(started));
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
    if (ready_ && events_.ending) events_.ending();
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
    if (socket_identity_.has_value()) {
      UnlinkIfSame(files_->endpoint, *socket_identity_);
      if (published_direct_) UnlinkIfSame(*files_->direct, *socket_identity_);
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
    over_ = true;
    start_timer_.cancel();
    stop_timer_.cancel();
    std::vector<std::string> evidence{
        absl::StrCat("process ", process_.pid, " ", how)};
    AppendLogTail(&evidence);
    if (events_.gone) events_.gone(std::move(evidence));
  }

  void AppendLogTail(std::vector<std::string>* evidence) {
    if (adopted_ || !files_.has_value()) return;
    for (std::string& line :
         LogTail(files_->log_file, log_offset_, kTailLines)) {
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
    LogWarning(absl::StrCat(name_, ": start failed: ", text));
    failure.text = std::move(text);
    failure.transient = transient_;
    if (events_.failed) events_.failed(std::move(failure));
  }

  // Something may run: end it first.
  void FailAndKill(std::string text) {
    if (process_.pid == 0 || adopted_) {
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
    const auto took =
        duration_cast<std::chrono::nanoseconds>(now - step_began_).count();
    step_began_ = now;
    v1::NegotiationStep step;
    step.set_name(name);
    step.mutable_duration()->set_seconds(took / 1'000'000'000);
    step.mutable_duration()->set_nanos(
        static_cast<int32_t>(took % 1'000'000'000));
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
  off_t log_offset_ = 0;
  bool transient_ = false;
  bool direct_is_free_ = true;
  bool published_direct_ = false;
  bool restart_at_direct_ = false;
  bool looked_again_ = false;
  bool adopted_ = false;
  bool leads_group_ = false;
  bool ready_ = false;
  bool stopping_ = false;
  bool over_ = false;
  bool abandoned_ = false;
};

// The owner's end of a run, which its own pending operations keep alive.
class OwnedRun : public BackendRun {
 public:
  explicit OwnedRun(std::shared_ptr<Run> run) : run_(std::move(run)) {}
  ~OwnedRun() override { run_->Abandon(); }
  void Stop() override { run_->Stop(); }

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
