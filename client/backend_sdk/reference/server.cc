#include "client/backend_sdk/reference/server.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/backend_sdk/reference/backend.h"
#include "ipc/deadline.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/unique_fd.h"
#include "ipc/wire/first_message.h"
#include "ipc/wire/lane_codec.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {
namespace {

using ipc::Deadline;
using ipc::DecodeResult;
using ipc::FirstMessage;
using ipc::UniqueFd;

constexpr size_t kReadBytes = size_t{64} * 1024;

// A peer that does not take its reply for this long is given up.
constexpr absl::Duration kWriteTimeout = absl::Seconds(60);

// How long accepting pauses when descriptors have run out.
constexpr absl::Duration kExhaustedPause = absl::Milliseconds(50);

UniqueFd NewEvent() { return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void Raise(const UniqueFd& event) {
  const uint64_t one = 1;
  // Cannot fail: the counter never comes near its limit.
  (void)!write(event.get(), &one, sizeof(one));
}

bool Send(const UniqueFd& fd, absl::string_view bytes) {
  return ipc::WriteAll(fd, bytes, Deadline::After(kWriteTimeout)).ok();
}

}  // namespace

Server::Server(const ipc::Listener& listener, ReferenceBackend& backend,
               Identity identity, const UniqueFd& signals,
               absl::Duration idle_timeout)
    : listener_(listener),
      backend_(backend),
      identity_(std::move(identity)),
      signals_(signals),
      idle_timeout_(idle_timeout),
      shutdown_requested_(NewEvent()),
      stopping_(NewEvent()),
      last_activity_(absl::Now()) {}

absl::StatusOr<StopReason> Server::Run() {
  if (!shutdown_requested_ || !stopping_) {
    return absl::ResourceExhaustedError("no descriptors left");
  }
  absl::StatusOr<StopReason> reason = AcceptUntilStopped();
  Raise(stopping_);
  for (Connection& connection : connections_) connection.thread.join();
  return reason;
}

absl::StatusOr<StopReason> Server::AcceptUntilStopped() {
  for (;;) {
    const absl::Duration until_idle = UntilIdle();
    if (until_idle <= absl::ZeroDuration()) return StopReason::kIdle;
    pollfd events[] = {{signals_.get(), POLLIN, 0},
                       {shutdown_requested_.get(), POLLIN, 0},
                       {listener_.fd(), POLLIN, 0}};
    const int ready =
        poll(events, 3, Deadline::After(until_idle).PollTimeoutMillis());
    if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "poll");
    if (ready <= 0) continue;
    if (events[0].revents != 0) return StopReason::kSignal;
    if (events[1].revents != 0) return StopReason::kShutdownRequest;
    const absl::Status accepted = AcceptWaiting();
    if (absl::IsResourceExhausted(accepted)) {
      absl::SleepFor(kExhaustedPause);
    } else if (!accepted.ok()) {
      return accepted;
    }
    JoinFinished();
  }
}

absl::Status Server::AcceptWaiting() {
  for (;;) {
    absl::StatusOr<absl::optional<UniqueFd>> accepted = listener_.Accept();
    if (!accepted.ok()) return accepted.status();
    if (!accepted->has_value()) return absl::OkStatus();
    Connection& connection = connections_.emplace_back();
    connection.thread =
        std::thread([this, &connection, fd = *std::move(*accepted)]() mutable {
          Serve(fd);
          fd.reset();
          connection.done = true;
        });
  }
}

void Server::JoinFinished() {
  connections_.remove_if([](Connection& connection) {
    if (!connection.done) return false;
    connection.thread.join();
    return true;
  });
}

void Server::Serve(const UniqueFd& fd) {
  std::string buffer;
  for (;;) {
    const FirstMessage first = ipc::DetectFirstMessage(buffer);
    if (first.kind == FirstMessage::Kind::kRequest) break;
    if (first.kind == FirstMessage::Kind::kIdentityProbe) {
      TouchIdleClock();
      std::lock_guard<std::mutex> lock(identity_mutex_);
      const auto process = identity_();
      if (!process.ok()) return;
      const auto reply = ipc::EncodeProbeReply(first.probe, *process);
      if (reply.ok()) Send(fd, *reply);
      return;
    }
    if (first.kind == FirstMessage::Kind::kRejected) return;
    if (!ReadMore(fd, &buffer)) return;
  }
  while (ServeRequest(fd, &buffer)) {
  }
}

bool Server::ReadMore(const UniqueFd& fd, std::string* buffer) {
  for (;;) {
    pollfd events[] = {{fd.get(), POLLIN, 0}, {stopping_.get(), POLLIN, 0}};
    if (poll(events, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    if (events[1].revents != 0) return false;
    break;
  }
  const size_t have = buffer->size();
  buffer->resize(have + kReadBytes);
  const absl::StatusOr<size_t> got = ipc::ReadSome(
      fd, &(*buffer)[have], kReadBytes, Deadline::After(absl::ZeroDuration()));
  buffer->resize(have + got.value_or(0));
  return got.ok() ? *got > 0 : absl::IsDeadlineExceeded(got.status());
}

bool Server::ServeRequest(const UniqueFd& fd, std::string* buffer) {
  auto decoded = ipc::DecodeRequest(*buffer);
  if (decoded.result == DecodeResult::kNeedMore) return ReadMore(fd, buffer);
  if (decoded.result == DecodeResult::kUnknownVersion) {
    Send(fd, ipc::MismatchAnswer(backend_.version(), decoded.version));
    return false;
  }
  if (decoded.result != DecodeResult::kMessage &&
      decoded.result != DecodeResult::kInvalidContent) {
    return false;
  }
  buffer->erase(0, decoded.consumed_bytes);

  zccache::v1::Response response;
  if (decoded.result == DecodeResult::kInvalidContent) {
    response.set_request_id(decoded.message.request_id());
    response.mutable_error()->set_message(std::string(decoded.error.message()));
  } else {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++in_flight_;
    }
    response = backend_.Answer(decoded.message);
    std::lock_guard<std::mutex> lock(mutex_);
    --in_flight_;
    last_activity_ = absl::Now();
  }
  absl::StatusOr<std::string> wire =
      ipc::Encode(decoded.lane, response, decoded.frame_request_id);
  if (!wire.ok()) {
    response.mutable_error()->set_message(
        absl::StrCat("cannot send the answer: ", wire.status().message()));
    wire = ipc::Encode(decoded.lane, response, decoded.frame_request_id);
  }
  if (!wire.ok() || !Send(fd, *wire)) return false;
  if (!response.has_shutting_down()) return true;
  Raise(shutdown_requested_);
  return false;
}

void Server::TouchIdleClock() {
  std::lock_guard<std::mutex> lock(mutex_);
  last_activity_ = absl::Now();
}

absl::Duration Server::UntilIdle() {
  if (idle_timeout_ == absl::ZeroDuration()) return absl::InfiniteDuration();
  std::lock_guard<std::mutex> lock(mutex_);
  // While a request is served, look again after a whole period.
  if (in_flight_ > 0) return idle_timeout_;
  return idle_timeout_ - (absl::Now() - last_activity_);
}

}  // namespace zcbroker::client
