#include "service/host/relayed.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <limits>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "asio/post.hpp"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/process.h"
#include "ipc/socket.h"
#include "proto/zcbroker/v1/refusals.h"
#include "service/host/descriptors.h"
#include "service/host/log.h"
#include "service/host/readiness.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

// A backend whose backlog is full, or whose socket refuses while it lives.
constexpr milliseconds kConnectPause(10);
constexpr int kFailedConnects = 200;
// A connection that moves a gibibyte lets others have their turn.
constexpr int kReadsPerTurn = 16;
// The longest reply that is held back until it is whole.
constexpr size_t kHeldReplyBytes = size_t{64} * 1024;

ssize_t Receive(Relayed::Socket& socket, char* buffer, size_t size) {
  ssize_t n = 0;
  do {
    n = recv(socket.native_handle(), buffer, size, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n;
}

ssize_t SendSome(Relayed::Socket& socket, absl::string_view bytes) {
  ssize_t n = 0;
  do {
    n = send(socket.native_handle(), bytes.data(), bytes.size(),
             MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n;
}

}  // namespace

Relayed::Relayed(RelayShared& shared, ipc::UniqueFd client, int peer_pid,
                 RelayedName name)
    : shared_(shared),
      peer_pid_(peer_pid),
      name_(std::move(name)),
      client_(shared.loop),
      backend_(shared.loop),
      pause_(shared.loop) {
  asio::error_code ignored;
  client_.assign(asio::local::stream_protocol(), client.release(), ignored);
}

void Relayed::Begin() { ReadRequest(); }

void Relayed::EndSoon() {
  ending_ = true;
  if (step_ == Step::kReading || step_ == Step::kPiping) End();
}

void Relayed::End() {
  if (step_ == Step::kEnded) return;
  step_ = Step::kEnded;
  if (negotiation_ != 0) shared_.port.GiveUp(std::exchange(negotiation_, 0));
  Release();
  LeaveSuspects();
  pause_.cancel();
  asio::error_code ignored;
  client_.close(ignored);
  backend_.close(ignored);
  shared_.left(this);
}

void Relayed::Wait(Socket& socket, Socket::wait_type what,
                   void (Relayed::*then)()) {
  socket.async_wait(what, [self = shared_from_this(), step = step_,
                           then](const asio::error_code& error) {
    if (!error && self->step_ == step) (self.get()->*then)();
  });
}

// --- The client's side

void Relayed::ReadRequest() {
  while (step_ == Step::kReading) {
    if (!request_.empty() && TakeRequest()) return;
    const ssize_t n =
        Receive(client_, shared_.buffer.data(), shared_.buffer.size());
    if (n < 0 && errno == EAGAIN) {
      idle_since_ = SteadyClock::now();
      if (!request_.empty()) shared_.watch(shared_from_this());
      Wait(client_, Socket::wait_read, &Relayed::ReadRequest);
      return;
    }
    if (n <= 0) {
      End();
      return;
    }
    if (request_.empty()) since_ = SteadyClock::now();
    request_.append(shared_.buffer.data(), static_cast<size_t>(n));
  }
}

// Whether there is enough of a request to act on; then it was.
bool Relayed::TakeRequest() {
  const ipc::MessageExtent extent =
      name_.framed ? ipc::MeasureMessage(request_)
                   : ipc::MessageExtent{ipc::MessageExtent::Kind::kNotAMessage};
  switch (extent.kind) {
    case ipc::MessageExtent::Kind::kNeedMore:
      return false;
    case ipc::MessageExtent::Kind::kNotAMessage:
      streamed_ = true;
      since_ = SteadyClock::now();
      to_backend_ = Flow{&client_, &backend_, {}, false};
      to_client_ = Flow{&backend_, &client_, {}, false};
      shared_.counters.Add("relay.streams");
      if (backend_.is_open()) {
        Send();
      } else {
        Route();
      }
      return true;
    case ipc::MessageExtent::Kind::kMessage:
      break;
  }
  // What has arrived counts, not what was announced.
  const size_t keeps = std::min(request_.size(), extent.bytes);
  shared_.kept += keeps - kept_;
  kept_ = keeps;
  streamed_ = extent.bytes > shared_.limits.kept_bytes_each ||
              shared_.kept > shared_.limits.kept_bytes;
  if (streamed_) Release();
  if (!streamed_ && request_.size() < extent.bytes) return false;
  if (request_.size() > extent.bytes) {
    ahead_ = request_.substr(extent.bytes);
    request_.resize(extent.bytes);
  }
  stream_left_ = extent.bytes - request_.size();
  if (stream_left_ == 0) summary_ = ipc::SummarizeRequest(request_);
  Dispatch();
  return true;
}

void Relayed::Dispatch() {
  shared_.counters.Add("relay.requests");
  if (streamed_) shared_.counters.Reached("relay.without_net");
  since_ = SteadyClock::now();
  if (summary_.kind == ipc::RequestKind::kShutdown) {
    const Presence presence =
        shared_.port.PresenceOf(name_.service, name_.version);
    if (presence == Presence::kStarting ||
        (presence == Presence::kReady && PeerIsOlderThanBroker())) {
      // Its client took a slow start for a wedge, or the end of the last
      // broker, which cut its connection, for the daemon's.
      shared_.counters.Add("relay.shutdowns_ignored");
      shared_.port.Distrusted(name_.service, name_.version);
      AnswerInPlace(ipc::ShuttingDownReply(summary_));
      return;
    }
    if (presence == Presence::kNone) {
      shared_.port.Stopped(name_.service, name_.version);
      AnswerInPlace(ipc::ShuttingDownReply(summary_));
      return;
    }
  }
  if (backend_.is_open()) {
    Send();
  } else {
    Route();
  }
}

bool Relayed::PeerIsOlderThanBroker() const {
  const absl::StatusOr<ipc::ProcessStat> peer = ipc::ReadProcessStat(peer_pid_);
  return SteadyClock::now() < shared_.elders_until && peer.ok() &&
         peer->start_time < shared_.started;
}

// A client that has closed both ways is not served any more. Armed only for
// waits that take long: it costs a system call.
void Relayed::WatchForHangUp() {
  if (std::exchange(watching_for_hang_up_, true)) return;
  WhenReady(client_, Socket::wait_error,
            [self = shared_from_this()](const asio::error_code& error) {
              self->watching_for_hang_up_ = false;
              if (error || self->step_ == Step::kReading ||
                  self->step_ == Step::kEnded) {
                return;
              }
              self->shared_.counters.Add("relay.hung_up");
              self->End();
            });
}

void Relayed::TimePasses(SteadyClock::time_point now) {
  if (!waits()) return;
  if (step_ == Step::kReading) {
    if (now - since_ < shared_.limits.request_within) return;
    shared_.counters.Reached("relay.slow_requests");
    End();
    return;
  }
  WatchForHangUp();
  if (summary_.kind == ipc::RequestKind::kStatus &&
      now - since_ >= shared_.limits.status_within) {
    const std::string reply = ipc::FreshStatusReply(
        summary_, name_.version, shared_.world.daemon_namespace(), name_.path,
        shared_.world.cache_root());
    if (!reply.empty()) {
      shared_.counters.Add("relay.statuses_answered");
      AnswerInPlace(reply);
      return;
    }
  }
  const bool backends_turn =
      step_ == Step::kAwaiting ||
      (step_ == Step::kSending && sent_ < request_.size()) ||
      (step_ == Step::kReplying && pending_.empty());
  if (!backends_turn || now - sent_at_ < shared_.limits.patience) return;
  auto& looked = shared_.looked[{route_.pid(), route_.start_time()}];
  if (looked != SteadyClock::time_point() &&
      now - looked < shared_.limits.look_every) {
    return;
  }
  looked = now;
  v1::ReportBackendRequest report;
  report.set_service(name_.service);
  report.set_version(name_.version);
  report.set_pid(route_.pid());
  report.set_start_time(route_.start_time());
  report.set_reason("left a relayed request unanswered");
  // A wedged one is ended, which its connections tell by themselves.
  shared_.port.Report(report, [](v1::BackendVerdict) {});
}

// --- The broker's side

void Relayed::Route() {
  step_ = Step::kRouting;
  shared_.watch(shared_from_this());
  if (auto ready = shared_.port.Ready(name_.service, name_.version)) {
    route_ = *std::move(ready);
    Connect();
    return;
  }
  const bool may_start = summary_.kind != ipc::RequestKind::kShutdown;
  negotiation_ =
      shared_.port.Route(name_.service, name_.version, may_start,
                         [self = shared_from_this()](const Outcome& outcome) {
                           self->negotiation_ = 0;
                           if (self->step_ == Step::kRouting) {
                             self->Routed(outcome);
                           }
                         });
}

void Relayed::Routed(const Outcome& outcome) {
  if (const auto* refused = std::get_if<Refused>(&outcome)) {
    if (summary_.kind == ipc::RequestKind::kShutdown) {
      shared_.port.Stopped(name_.service, name_.version);
      AnswerInPlace(ipc::ShuttingDownReply(summary_));
      return;
    }
    const Presence presence =
        shared_.port.PresenceOf(name_.service, name_.version);
    if (refused->refusal() == v1::REFUSAL_BACKEND_START_FAILED &&
        (presence == Presence::kStarting || presence == Presence::kLeaving)) {
      // Slow, not failed: who connects here waits for as long as it takes.
      Route();
      return;
    }
    if ((refused->refusal() == v1::REFUSAL_RATE_LIMITED ||
         refused->refusal() == v1::REFUSAL_FD_PRESSURE) &&
        ++failed_connects_ <= kFailedConnects) {
      if (refused->refusal() == v1::REFUSAL_FD_PRESSURE) {
        shared_.make_room(kDescriptorsOfStart);
      }
      RouteLater();
      return;
    }
    if (refused->refusal() == v1::REFUSAL_SHUTTING_DOWN && !ending_ &&
        !shared_.handed_over) {
      // A successor is about to take over, or all is about to end.
      RouteLater();
      return;
    }
    shared_.counters.Add("relay.refused");
    LogInfo(absl::StrCat(name_.path, ": closed a connection: ",
                         std::string(TraitsOf(refused->refusal()).name), ": ",
                         refused->text));
    End();
    return;
  }
  route_ = std::get<v1::NegotiateResponse>(outcome).route();
  Connect();
}

void Relayed::RouteLater() {
  pause_.expires_after(kConnectPause);
  pause_.async_wait([self = shared_from_this()](const asio::error_code& error) {
    if (!error && self->step_ == Step::kRouting) self->Route();
  });
}

void Relayed::Connect() {
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(route_.endpoint());
  if (!endpoint.ok()) {
    End();
    return;
  }
  absl::StatusOr<ipc::UniqueFd> fd = shared_.spares.Take(route_);
  if (!fd.ok()) {
    fd = ipc::Connect(*endpoint, ipc::Deadline::After(absl::ZeroDuration()));
  }
  if (fd.ok()) {
    failed_connects_ = 0;
    DropBackend();
    asio::error_code error;
    backend_.assign(asio::local::stream_protocol(), fd->get(), error);
    if (error) {
      // The loop has no memory or descriptor for it.
      End();
      return;
    }
    static_cast<void>(fd->release());
    Send();
    return;
  }
  // Its backlog is full, or we are out of descriptors: both pass.
  if (!absl::IsDeadlineExceeded(fd.status()) &&
      !absl::IsResourceExhausted(fd.status())) {
    Lost(/*charged=*/false, "refused a connection");
    return;
  }
  if (++failed_connects_ > kFailedConnects) {
    shared_.counters.Add("relay.refused");
    End();
    return;
  }
  if (absl::IsResourceExhausted(fd.status())) shared_.make_room(1);
  pause_.expires_after(kConnectPause);
  pause_.async_wait([self = shared_from_this()](const asio::error_code& error) {
    if (!error && self->step_ == Step::kRouting) self->Connect();
  });
}

// The backend hung up, or does not take connections. `charged`: the request
// had reached it and may be what killed it.
void Relayed::Lost(bool charged, const char* how) {
  DropBackend();
  step_ = Step::kRouting;
  shared_.watch(shared_from_this());
  v1::ReportBackendRequest report;
  report.set_service(name_.service);
  report.set_version(name_.version);
  report.set_pid(route_.pid());
  report.set_start_time(route_.start_time());
  report.set_reason(how);
  shared_.port.Report(report, [self = shared_from_this(), charged,
                               turn = turn_](v1::BackendVerdict verdict) {
    if (self->step_ == Step::kRouting && self->turn_ == turn) {
      self->Judge(verdict, charged);
    }
  });
}

void Relayed::Judge(v1::BackendVerdict verdict, bool charged) {
  const ipc::ProcessIdentity backend{static_cast<int>(route_.pid()),
                                     route_.start_time(), route_.boot_id()};
  const bool gone =
      verdict == v1::BACKEND_VERDICT_GONE ||
      (verdict == v1::BACKEND_VERDICT_UNKNOWN && !ipc::IsAlive(backend));
  if (!charged) {
    // Nothing of the request had been sent: the next backend gets it.
    if (++failed_connects_ > kFailedConnects) {
      End();
    } else if (gone) {
      Route();
    } else {
      RouteLater();
    }
    return;
  }
  if (!gone) {
    // It lives and hung up on this client on purpose.
    shared_.counters.Add("relay.closed_by_backend");
    End();
    return;
  }
  ++backends_lost_;
  shared_.counters.Add("relay.lost");
  if (streamed_ || !summary_.repeatable()) {
    shared_.counters.Add("relay.not_replayed");
    LogWarning(absl::StrCat(Describe(), " was lost with its backend, process ",
                            route_.pid(), ", and may not be sent again"));
    End();
    return;
  }
  if (backends_lost_ >= shared_.limits.backends_per_request) {
    shared_.counters.Reached("relay.poison");
    LogWarning(absl::StrCat(Describe(), " has cost ", backends_lost_,
                            " backends, the last of them process ",
                            route_.pid(), "; it is not sent again"));
    End();
    return;
  }
  Replay();
}

void Relayed::Replay() {
  shared_.counters.Add("relay.replays");
  shared_.port.Replayed(name_.service, name_.version, route_.pid());
  sent_ = 0;
  if (backends_lost_ + 1 < shared_.limits.backends_per_request) {
    Route();
    return;
  }
  is_suspect_ = true;
  if (shared_.suspect.lock() == nullptr) {
    shared_.suspect = weak_from_this();
    Route();
  } else if (shared_.suspect.lock().get() != this) {
    shared_.suspects.push_back(weak_from_this());
  } else {
    Route();
  }
}

void Relayed::LeaveSuspects() {
  if (!std::exchange(is_suspect_, false)) return;
  auto& queue = shared_.suspects;
  queue.erase(std::remove_if(queue.begin(), queue.end(),
                             [this](const std::weak_ptr<Relayed>& weak) {
                               return weak.lock().get() == this;
                             }),
              queue.end());
  if (shared_.suspect.lock().get() != this) return;
  shared_.suspect.reset();
  while (!shared_.suspects.empty()) {
    const std::shared_ptr<Relayed> next = shared_.suspects.front().lock();
    shared_.suspects.pop_front();
    if (next == nullptr || next->step_ != Step::kRouting) continue;
    shared_.suspect = next;
    asio::post(shared_.loop, [next, turn = next->turn_] {
      if (next->step_ == Step::kRouting && next->turn_ == turn) next->Route();
    });
    return;
  }
}

// --- The backend's side

void Relayed::Send() {
  if (step_ != Step::kSending) {
    step_ = Step::kSending;
    sent_at_ = SteadyClock::now();
    shared_.watch(shared_from_this());
  }
  while (sent_ < request_.size()) {
    const ssize_t n =
        SendSome(backend_, absl::string_view(request_).substr(sent_));
    if (n < 0 && errno == EAGAIN) {
      Wait(backend_, Socket::wait_write, &Relayed::Send);
      return;
    }
    if (n < 0) {
      if (sent_ == 0 && !streamed_) {
        // A connection of an earlier request, whose backend is gone.
        Lost(/*charged=*/false, "was gone before a request was sent");
      } else if (to_backend_.from != nullptr) {
        End();
      } else {
        // It may have answered before it hung up.
        AwaitReply();
      }
      return;
    }
    sent_ += static_cast<size_t>(n);
    sent_at_ = SteadyClock::now();
  }
  if (to_backend_.from != nullptr) {
    StartPiping();
  } else if (stream_left_ > 0) {
    ReadMoreOfRequest();
  } else {
    AwaitReply();
  }
}

void Relayed::ReadMoreOfRequest() {
  const ssize_t n = Receive(client_, shared_.buffer.data(),
                            std::min(shared_.buffer.size(), stream_left_));
  if (n < 0 && errno == EAGAIN) {
    Wait(client_, Socket::wait_read, &Relayed::ReadMoreOfRequest);
    return;
  }
  if (n <= 0) {
    End();
    return;
  }
  stream_left_ -= static_cast<size_t>(n);
  request_.assign(shared_.buffer.data(), static_cast<size_t>(n));
  sent_ = 0;
  Send();
}

void Relayed::AwaitReply() {
  step_ = Step::kAwaiting;
  sent_at_ = SteadyClock::now();
  shared_.watch(shared_from_this());
  ReadReply();
}

void Relayed::ReadReply() {
  for (int reads = 0; step_ == Step::kAwaiting || step_ == Step::kReplying;
       ++reads) {
    if (reads == kReadsPerTurn) {
      asio::post(shared_.loop, [self = shared_from_this(), step = step_] {
        if (self->step_ == step) self->ReadReply();
      });
      return;
    }
    const ssize_t n =
        Receive(backend_, shared_.buffer.data(), shared_.buffer.size());
    if (n < 0 && errno == EAGAIN) {
      Wait(backend_, Socket::wait_read, &Relayed::ReadReply);
      return;
    }
    if (n <= 0 && !reply_begun_) {
      Lost(/*charged=*/true, "hung up on a request");
      return;
    }
    if (n <= 0) {
      shared_.counters.Add("relay.broken_replies");
      End();
      return;
    }
    sent_at_ = SteadyClock::now();
    TakeReply(absl::string_view(shared_.buffer.data(), static_cast<size_t>(n)));
    if (step_ == Step::kEnded) return;
    if (!pending_.empty()) {
      Wait(client_, Socket::wait_write, &Relayed::FlushReply);
      return;
    }
    if (reply_complete()) {
      RequestDone();
      return;
    }
  }
}

// A small reply is passed on when it is whole: until then its request can be
// sent again.
void Relayed::TakeReply(absl::string_view bytes) {
  if (reply_begun_) {
    reply_left_ -= std::min(reply_left_, bytes.size());
    PassOn(bytes);
    return;
  }
  reply_head_.append(bytes.data(), bytes.size());
  while (!reply_head_.empty()) {
    const ipc::MessageExtent extent = ipc::MeasureMessage(reply_head_);
    if (extent.kind == ipc::MessageExtent::Kind::kNeedMore) return;
    const bool whole = extent.kind == ipc::MessageExtent::Kind::kMessage &&
                       reply_head_.size() >= extent.bytes;
    const bool small = extent.kind == ipc::MessageExtent::Kind::kMessage &&
                       extent.bytes <= kHeldReplyBytes;
    if (small && !whole) return;
    if (whole && summary_.repeatable() &&
        ipc::IsInterimReply(
            absl::string_view(reply_head_).substr(0, extent.bytes))) {
      // A sign of life; the reply itself is still to come.
      sent_at_ = SteadyClock::now();
      PassOn(absl::string_view(reply_head_).substr(0, extent.bytes));
      reply_head_.erase(0, extent.bytes);
      continue;
    }
    reply_begun_ = true;
    step_ = Step::kReplying;
    Release();
    // Before the client knows, so that it sees the name gone.
    if (summary_.kind == ipc::RequestKind::kShutdown) {
      shared_.port.Stopped(name_.service, name_.version);
    }
    reply_left_ = extent.kind == ipc::MessageExtent::Kind::kMessage
                      ? extent.bytes
                      : std::numeric_limits<size_t>::max();
    reply_left_ -= std::min(reply_left_, reply_head_.size());
    PassOn(std::exchange(reply_head_, {}));
  }
}

void Relayed::PassOn(absl::string_view bytes) {
  size_t sent = 0;
  // Nothing overtakes what waits already.
  if (pending_.empty()) {
    const ssize_t n = SendSome(client_, bytes);
    if (n < 0 && errno != EAGAIN) {
      shared_.counters.Add("relay.hung_up");
      End();
      return;
    }
    sent = static_cast<size_t>(std::max<ssize_t>(n, 0));
  }
  pending_.append(bytes.data() + sent, bytes.size() - sent);
}

void Relayed::FlushReply() {
  while (!pending_.empty()) {
    const ssize_t n = SendSome(client_, pending_);
    if (n < 0 && errno == EAGAIN) {
      Wait(client_, Socket::wait_write, &Relayed::FlushReply);
      return;
    }
    if (n < 0) {
      shared_.counters.Add("relay.hung_up");
      End();
      return;
    }
    pending_.erase(0, static_cast<size_t>(n));
  }
  if (reply_complete()) {
    RequestDone();
  } else {
    ReadReply();
  }
}

void Relayed::RequestDone() {
  const ipc::RequestKind kind = summary_.kind;
  if (shared_.handed_over) {
    DropBackend();
  } else if (backend_.is_open()) {
    shared_.spares.MakeLater(shared_.loop, route_);
  }
  LeaveSuspects();
  if (kind == ipc::RequestKind::kShutdown || ending_) {
    End();
    return;
  }
  Release();
  request_ = std::exchange(ahead_, {});
  summary_ = {};
  sent_ = 0;
  streamed_ = false;
  stream_left_ = 0;
  backends_lost_ = 0;
  failed_connects_ = 0;
  reply_begun_ = false;
  reply_head_.clear();
  reply_left_ = 0;
  ++turn_;
  step_ = Step::kReading;
  if (kind == ipc::RequestKind::kOther && backend_.is_open()) {
    // What we do not know may end with the backend hanging up.
    WhenReady(backend_, Socket::wait_read,
              [self = shared_from_this()](const asio::error_code& error) {
                char byte = 0;
                if (!error && self->step_ == Step::kReading &&
                    self->request_.empty() &&
                    recv(self->backend_.native_handle(), &byte, 1,
                         MSG_PEEK | MSG_DONTWAIT) == 0) {
                  self->End();
                }
              });
  }
  ReadRequest();
}

// The broker answers in the backend's place.
void Relayed::AnswerInPlace(const std::string& reply) {
  if (negotiation_ != 0) shared_.port.GiveUp(std::exchange(negotiation_, 0));
  pause_.cancel();
  ++turn_;
  // A late answer of the backend must not be taken for the next one's.
  DropBackend();
  Release();
  reply_begun_ = true;
  reply_head_.clear();
  reply_left_ = 0;
  pending_ += reply;
  step_ = Step::kReplying;
  FlushReply();
}

void Relayed::LetGo() {
  if (step_ == Step::kReading) DropBackend();
}

void Relayed::DropBackend() {
  reply_head_.clear();
  asio::error_code ignored;
  backend_.close(ignored);
}

// --- What is not understood

void Relayed::StartPiping() {
  step_ = Step::kPiping;
  request_.clear();
  Pump(to_backend_);
  if (step_ == Step::kPiping) Pump(to_client_);
}

void Relayed::Pump(Flow& flow) {
  const auto wait = [this, &flow](Socket& socket, Socket::wait_type what) {
    socket.async_wait(what, [self = shared_from_this(),
                             &flow](const asio::error_code& error) {
      if (!error && self->step_ == Step::kPiping) self->Pump(flow);
    });
  };
  for (int reads = 0; !flow.ended; ++reads) {
    while (!flow.pending.empty()) {
      const ssize_t n = SendSome(*flow.to, flow.pending);
      if (n < 0 && errno == EAGAIN) {
        wait(*flow.to, Socket::wait_write);
        return;
      }
      if (n < 0) {
        End();
        return;
      }
      flow.pending.erase(0, static_cast<size_t>(n));
    }
    if (reads == kReadsPerTurn) {
      asio::post(shared_.loop, [self = shared_from_this(), &flow] {
        if (self->step_ == Step::kPiping) self->Pump(flow);
      });
      return;
    }
    const ssize_t n =
        Receive(*flow.from, shared_.buffer.data(), shared_.buffer.size());
    if (n < 0 && errno == EAGAIN) {
      wait(*flow.from, Socket::wait_read);
      return;
    }
    if (n < 0) {
      End();
      return;
    }
    if (n == 0) {
      flow.ended = true;
      shutdown(flow.to->native_handle(), SHUT_WR);
      break;
    }
    const absl::string_view bytes(shared_.buffer.data(),
                                  static_cast<size_t>(n));
    const ssize_t sent = SendSome(*flow.to, bytes);
    if (sent < 0 && errno != EAGAIN) {
      End();
      return;
    }
    const size_t done = static_cast<size_t>(std::max<ssize_t>(sent, 0));
    flow.pending.assign(bytes.data() + done, bytes.size() - done);
  }
  if (to_backend_.ended && to_client_.ended) End();
}

void Relayed::Release() {
  shared_.kept -= std::exchange(kept_, 0);
  if (reply_begun_) request_.clear();
}

std::string Relayed::Describe() const {
  return absl::StrCat("a request of ", request_.size(), " bytes at ",
                      name_.path);
}

}  // namespace zcbroker::service
