#include "client/backend_sdk/managed_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "client/backend_sdk/own_identity.h"
#include "ipc/clock.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/first_message.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/listener.h"
#include "ipc/peer_identity.h"
#include "ipc/service_manager.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {
namespace {

using ipc::Deadline;
using ipc::FirstMessage;
using ipc::UniqueFd;
using running_process::broker::v1::DaemonProcess;
using running_process::broker::v1::Frame;

constexpr std::size_t kReadBytes = std::size_t{64} * 1024;

// A client that takes none of its reply for this long is given up.
constexpr absl::Duration kWriteTimeout = absl::Minutes(1);

// How long accepting pauses when descriptors or threads have run out.
constexpr absl::Duration kExhaustedPause = absl::Milliseconds(50);

// How long a first message like a probe's may take to be whole. Less than the
// grace, so that none of them uses that up.
constexpr absl::Duration kFirstMessageTimeout = absl::Seconds(2);

UniqueFd NewEvent() { return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void Raise(const UniqueFd& event) {
  const uint64_t one = 1;
  // Cannot fail: the counter never comes near its limit.
  (void)!write(event.get(), &one, sizeof(one));
}

void Clear(const UniqueFd& event) {
  uint64_t count = 0;
  (void)!read(event.get(), &count, sizeof(count));
}

absl::StatusOr<UniqueFd> TakeStopSignals() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  UniqueFd fd(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, "signalfd");
  return fd;
}

std::string Variable(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

// Creates the file, and waits until no other process has it locked.
absl::StatusOr<UniqueFd> LockFile(const std::string& path) {
  for (;;) {
    UniqueFd file(
        open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
    if (flock(file.get(), LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, absl::StrCat("lock ", path));
    }
    // Who had it before has removed it.
    struct stat locked;
    const absl::StatusOr<ipc::FileIdentity> named = ipc::IdentifyFile(path);
    if (named.ok() && fstat(file.get(), &locked) == 0 &&
        *named == ipc::FileIdentity{locked.st_dev, locked.st_ino}) {
      return file;
    }
  }
}

absl::StatusOr<ipc::Listener> BindUnlessServed(const ipc::Endpoint& endpoint) {
  const absl::Status found =
      ipc::Connect(endpoint, Deadline::After(absl::ZeroDuration())).status();
  // One with a full backlog serves, too.
  if (found.ok() || absl::IsDeadlineExceeded(found)) {
    return absl::AlreadyExistsError(
        absl::StrCat("somebody serves ", endpoint.path()));
  }
  return ipc::Listener::Bind(endpoint);
}

absl::StatusOr<ipc::Listener> Bind(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(
        "no endpoint: neither an option, nor "
        "RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE, nor a socket in LISTEN_FDS");
  }
  ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint endpoint,
                       ipc::Endpoint::Parse(path));
  // Of two that find nobody there, the second would take the first one's name.
  const std::string lock_path = absl::StrCat(path, ".lock");
  ZCB_ASSIGN_OR_RETURN(const UniqueFd lock, LockFile(lock_path));
  absl::StatusOr<ipc::Listener> listener = BindUnlessServed(endpoint);
  unlink(lock_path.c_str());
  return listener;
}

int64_t Now() {
  return std::chrono::nanoseconds(ipc::MonotonicClock::now().time_since_epoch())
      .count();
}

// What connections share with their backend.
struct Shared {
  // Eventfds: it is to stop (and readable for ever); a connection has ended.
  UniqueFd stopping = NewEvent();
  UniqueFd ended = NewEvent();
  // When something was in flight last, by Now().
  std::atomic<int64_t> last_use{Now()};
};

class Connection : public BackendConnection {
 public:
  Connection(Shared& shared, UniqueFd fd)
      : shared_(shared), fd_(std::move(fd)) {}
  ~Connection() override {
    if (thread_.joinable()) thread_.join();
  }

  // Once. kResourceExhausted: no thread is to be had.
  template <class Work>
  absl::Status Start(Work work) {
    try {
      thread_ = std::thread([this, work] {
        work(*this);
        fd_.reset();
        SetInFlight(false);
        done_ = true;
        Raise(shared_.ended);
      });
    } catch (const std::system_error& error) {
      return absl::ResourceExhaustedError(error.what());
    }
    return absl::OkStatus();
  }

  bool in_flight() const { return in_flight_; }
  bool done() const { return done_; }

  // What was read and is not for us to deal with; given out by the next Read.
  void PutBack(std::string bytes) { begun_ = std::move(bytes); }

  bool Read(std::string* buffer) override {
    return ReadBefore(Deadline::Infinite(), buffer);
  }

  bool ReadBefore(Deadline deadline, std::string* buffer) {
    if (!begun_.empty()) {
      buffer->append(std::exchange(begun_, {}));
      return true;
    }
    const bool between = buffer->empty();
    if (between) SetInFlight(false);
    pollfd events[] = {{fd_.get(), POLLIN, 0},
                       {between ? shared_.stopping.get() : -1, POLLIN, 0}};
    int ready = 0;
    while ((ready = poll(events, 2, deadline.PollTimeoutMillis())) <= 0) {
      if (ready < 0 ? errno != EINTR : deadline.Expired()) return false;
    }
    if (events[1].revents != 0) {
      // What has been sent by now is answered, and no more.
      if (events[0].revents == 0 || std::exchange(last_, true)) return false;
    }
    SetInFlight(true);
    const std::size_t have = buffer->size();
    buffer->resize(have + kReadBytes);
    const absl::StatusOr<std::size_t> got =
        ipc::ReadSome(fd_, &(*buffer)[have], kReadBytes, Deadline::Infinite());
    buffer->resize(have + got.value_or(0));
    return got.value_or(0) > 0;
  }

  bool Write(absl::string_view bytes) override {
    while (!bytes.empty()) {
      const absl::StatusOr<std::size_t> sent =
          ipc::WriteSome(fd_, bytes, Deadline::After(kWriteTimeout));
      if (!sent.ok()) return false;
      bytes.remove_prefix(*sent);
    }
    return true;
  }

 private:
  void SetInFlight(bool in_flight) {
    if (in_flight_ && !in_flight) shared_.last_use = Now();
    in_flight_ = in_flight;
  }

  Shared& shared_;
  UniqueFd fd_;
  std::string begun_;
  bool last_ = false;  // no request is read after this one
  std::atomic<bool> in_flight_{false};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

class Backend : public ManagedBackend {
 public:
  Backend(const BackendOptions& options, UniqueFd signals,
          ipc::Listener listener, bool inherited)
      : options_(options),
        endpoint_(listener.endpoint().path()),
        inherited_(inherited),
        signals_(std::move(signals)),
        listener_(std::move(listener)) {}
  ~Backend() override { TakeNameAway().IgnoreError(); }

  absl::StatusOr<StopReason> Serve(const Handler& handler) override {
    if (!shared_.stopping || !shared_.ended) {
      return absl::ResourceExhaustedError("no descriptors left");
    }
    ipc::NotifyServiceManager("READY=1");
    absl::StatusOr<StopReason> reason = AcceptUntilStopped(handler);
    ipc::NotifyServiceManager("STOPPING=1");
    Stop();
    // The name first: who finds none asks the broker, or starts the next one.
    // Who had found it is there by now.
    absl::Status unnamed = TakeNameAway();
    while (!inherited_ && AcceptOne(handler).value_or(false)) {
    }
    listener_.reset();
    AwaitConnections(reason.ok() ? 0 : 1);
    if (reason.ok() && !unnamed.ok()) return unnamed;
    return reason;
  }

  void Stop() override { Raise(shared_.stopping); }

  const std::string& endpoint() const override { return endpoint_; }

 private:
  absl::StatusOr<StopReason> AcceptUntilStopped(const Handler& handler) {
    for (;;) {
      const absl::Duration until_idle = UntilIdle();
      if (until_idle <= absl::ZeroDuration()) return StopReason::kIdle;
      pollfd events[] = {{signals_.get(), POLLIN, 0},
                         {shared_.stopping.get(), POLLIN, 0},
                         {shared_.ended.get(), POLLIN, 0},
                         {listener_->fd(), POLLIN, 0}};
      const int ready =
          poll(events, 4, Deadline::After(until_idle).PollTimeoutMillis());
      if (ready < 0 && errno != EINTR) {
        return absl::ErrnoToStatus(errno, "poll");
      }
      if (ready <= 0) continue;
      if (events[0].revents != 0) {
        signalfd_siginfo taken;
        (void)!read(signals_.get(), &taken, sizeof(taken));
        return StopReason::kSignal;
      }
      if (events[1].revents != 0) return StopReason::kStopCall;
      if (events[2].revents != 0) JoinEnded();
      if (events[3].revents == 0) continue;
      // One a turn: they may come faster than they are accepted.
      const absl::Status accepted = AcceptOne(handler).status();
      if (absl::IsResourceExhausted(accepted)) {
        absl::SleepFor(kExhaustedPause);
      } else if (!accepted.ok()) {
        return accepted;
      }
    }
  }

  // Whether one waited. kResourceExhausted: it waits still, or was closed.
  absl::StatusOr<bool> AcceptOne(const Handler& handler) {
    ZCB_ASSIGN_OR_RETURN(absl::optional<UniqueFd> fd, listener_->Accept());
    if (!fd.has_value()) return false;
    if (!ipc::CheckPeerIsUs(*fd).ok()) return true;
    auto accepted = std::make_unique<Connection>(shared_, *std::move(fd));
    ZCB_RETURN_IF_ERROR(
        accepted->Start([this, &handler](Connection& connection) {
          Run(connection, handler);
        }));
    connections_.push_back(std::move(accepted));
    return true;
  }

  void Run(Connection& connection, const Handler& handler) {
    std::string begun;
    if (!connection.Read(&begun)) return;
    const Deadline whole = Deadline::After(kFirstMessageTimeout);
    FirstMessage first = ipc::DetectFirstMessage(begun);
    while (first.kind == FirstMessage::Kind::kNeedMore) {
      if (!connection.ReadBefore(whole, &begun)) return;
      first = ipc::DetectFirstMessage(begun);
    }
    if (first.kind == FirstMessage::Kind::kIdentityProbe) {
      AnswerProbe(connection, first.probe);
      return;
    }
    connection.PutBack(std::move(begun));
    handler(connection);
  }

  void AnswerProbe(Connection& connection, const Frame& probe) {
    const absl::StatusOr<DaemonProcess> identity = Identity();
    if (!identity.ok()) return;
    const absl::StatusOr<std::string> reply =
        ipc::EncodeProbeReply(probe, *identity);
    if (reply.ok()) connection.Write(*reply);
  }

  // Only who is asked has its executable read; once, where that succeeds.
  absl::StatusOr<DaemonProcess> Identity() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!identity_.ok()) {
      identity_ =
          DescribeOwnProcess(options_.namespace_id, endpoint_, started_);
    }
    return identity_;
  }

  absl::Status TakeNameAway() {
    if (inherited_ || !listener_.has_value()) return absl::OkStatus();
    return listener_->UnlinkIfOurs();
  }

  void JoinEnded() {
    Clear(shared_.ended);
    connections_.erase(std::remove_if(connections_.begin(), connections_.end(),
                                      [](const auto& connection) {
                                        return connection->done();
                                      }),
                       connections_.end());
  }

  // Returns when none is left.
  void AwaitConnections(int status_of_the_process) {
    const Deadline deadline = Deadline::After(options_.grace);
    for (JoinEnded(); !connections_.empty(); JoinEnded()) {
      if (deadline.Expired()) {
        std::fprintf(stderr, "%zu connections were cut off after %s\n",
                     connections_.size(),
                     absl::FormatDuration(options_.grace).c_str());
        std::_Exit(status_of_the_process);
      }
      pollfd ended{shared_.ended.get(), POLLIN, 0};
      poll(&ended, 1, deadline.PollTimeoutMillis());
    }
  }

  absl::Duration UntilIdle() const {
    // While something is in flight, look again after a whole period.
    for (const auto& connection : connections_) {
      if (connection->in_flight()) return options_.idle_timeout;
    }
    return options_.idle_timeout - absl::Nanoseconds(Now() - shared_.last_use);
  }

  const BackendOptions options_;
  const std::string endpoint_;
  const bool inherited_;
  const absl::Time started_ = absl::Now();
  const UniqueFd signals_;
  absl::optional<ipc::Listener> listener_;  // none once it stops
  Shared shared_;
  std::mutex mutex_;
  absl::StatusOr<DaemonProcess> identity_ ABSL_GUARDED_BY(mutex_);
  // Of the thread that serves. The last member: they use the others.
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ManagedBackend>> ManagedBackend::Open(
    const BackendOptions& options) {
  BackendOptions complete = options;
  if (complete.endpoint.empty()) {
    complete.endpoint = Variable("RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE");
  }
  if (complete.namespace_id.empty()) {
    complete.namespace_id =
        Variable("RUNNING_PROCESS_BROKER_V1_BACKEND_NAMESPACE");
  }
  if (complete.namespace_id.empty()) complete.namespace_id = "default";

  ZCB_ASSIGN_OR_RETURN(UniqueFd signals, TakeStopSignals());
  ZCB_ASSIGN_OR_RETURN(absl::optional<ipc::Listener> listener,
                       ipc::InheritedListener());
  const bool inherited = listener.has_value();
  if (inherited) {
    // From now on it is this process that listens there, and not the one that
    // made the socket: so the broker is told (SO_PEERCRED).
    if (listen(listener->fd(), SOMAXCONN) != 0) {
      return absl::ErrnoToStatus(errno, "listen");
    }
  } else {
    ZCB_ASSIGN_OR_RETURN(listener, Bind(complete.endpoint));
  }
  return std::make_unique<Backend>(complete, std::move(signals),
                                   *std::move(listener), inherited);
}

int ExitStatusOf(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "cannot serve: %s\n",
               std::string(status.message()).c_str());
  return absl::IsAlreadyExists(status) ? 0 : 1;
}

}  // namespace zcbroker::client
