#include "client/backend_sdk/managed_backend.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

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

// How long accepting pauses when descriptors have run out.
constexpr absl::Duration kExhaustedPause = absl::Milliseconds(50);

// How long whoever listens at our endpoint already has to take a connection.
constexpr absl::Duration kLookTimeout = absl::Seconds(1);

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

absl::StatusOr<ipc::Listener> Bind(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(
        "no endpoint: neither an option, nor "
        "RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE, nor a socket in LISTEN_FDS");
  }
  ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint endpoint,
                       ipc::Endpoint::Parse(path));
  if (ipc::Connect(endpoint, Deadline::After(kLookTimeout)).ok()) {
    return absl::AlreadyExistsError(absl::StrCat("somebody serves ", path));
  }
  return ipc::Listener::Bind(endpoint);
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
  ~Connection() override { thread_.join(); }

  // Once.
  template <class Work>
  void Start(Work work) {
    thread_ = std::thread([this, work] {
      work(*this);
      fd_.reset();
      SetInFlight(false);
      done_ = true;
      Raise(shared_.ended);
    });
  }

  bool in_flight() const { return in_flight_; }
  bool done() const { return done_; }

  // What was read and is not for us to deal with; given out by the next Read.
  void PutBack(std::string bytes) { begun_ = std::move(bytes); }

  bool Read(std::string* buffer) override {
    if (!begun_.empty()) {
      buffer->append(std::exchange(begun_, {}));
      return true;
    }
    const bool between = buffer->empty();
    if (between) SetInFlight(false);
    pollfd events[] = {{fd_.get(), POLLIN, 0},
                       {between ? shared_.stopping.get() : -1, POLLIN, 0}};
    while (poll(events, 2, -1) < 0) {
      if (errno != EINTR) return false;
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
    if (!inherited_) AcceptWaiting(handler).IgnoreError();
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
      const absl::Status accepted = AcceptWaiting(handler);
      if (absl::IsResourceExhausted(accepted)) {
        absl::SleepFor(kExhaustedPause);
      } else if (!accepted.ok()) {
        return accepted;
      }
    }
  }

  absl::Status AcceptWaiting(const Handler& handler) {
    for (;;) {
      ZCB_ASSIGN_OR_RETURN(absl::optional<UniqueFd> fd, listener_->Accept());
      if (!fd.has_value()) return absl::OkStatus();
      if (!ipc::CheckPeerIsUs(*fd).ok()) continue;
      connections_.push_back(
          std::make_unique<Connection>(shared_, *std::move(fd)));
      connections_.back()->Start([this, &handler](Connection& connection) {
        Run(connection, handler);
      });
    }
  }

  void Run(Connection& connection, const Handler& handler) {
    std::string begun;
    FirstMessage first;
    do {
      if (!connection.Read(&begun)) return;
      first = ipc::DetectFirstMessage(begun);
    } while (first.kind == FirstMessage::Kind::kNeedMore);
    if (first.kind == FirstMessage::Kind::kIdentityProbe) {
      AnswerProbe(connection, first.probe);
      return;
    }
    connection.PutBack(std::move(begun));
    handler(connection);
  }

  void AnswerProbe(Connection& connection, const Frame& probe) {
    // Only who is asked has its executable read.
    std::call_once(described_, [this] {
      identity_ =
          DescribeOwnProcess(options_.namespace_id, endpoint_, started_);
    });
    if (!identity_.ok()) return;
    const absl::StatusOr<std::string> reply =
        ipc::EncodeProbeReply(probe, *identity_);
    if (reply.ok()) connection.Write(*reply);
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
  std::once_flag described_;
  absl::StatusOr<DaemonProcess> identity_;
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
