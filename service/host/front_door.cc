#include "service/host/front_door.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "asio/local/stream_protocol.hpp"
#include "asio/posix/stream_descriptor.hpp"
#include "asio/steady_timer.hpp"
#include "asio/write.hpp"
#include "ipc/frame/envelope.h"
#include "ipc/peer_identity.h"
#include "service/host/http_connections.h"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;
using Socket = asio::local::stream_protocol::socket;

constexpr absl::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// A preface that arrives in pieces is looked at again this often: the bytes
// stay in the socket for gRPC, so the loop is not told of more.
constexpr milliseconds kPrefacePause(5);
constexpr milliseconds kDescriptorPause(50);

class Door;

// A connection that is not gRPC's yet, or never will be. Owned by its pending
// operations.
class Visitor : public std::enable_shared_from_this<Visitor> {
 public:
  Visitor(asio::io_context& loop, std::weak_ptr<Door> door,
          ipc::PeerIdentity peer, ipc::UniqueFd fd)
      : door_(std::move(door)), peer_(peer), socket_(loop), timer_(loop) {
    asio::error_code ignored;
    socket_.assign(asio::local::stream_protocol(), fd.release(), ignored);
    socket_.native_non_blocking(true, ignored);
  }
  ~Visitor();
  Visitor(const Visitor&) = delete;
  Visitor& operator=(const Visitor&) = delete;

  void Identify(const FrontDoorLimits& limits);

 private:
  void Look();
  void WaitForMore();
  void ReadFrame();
  void MaybeWhole();
  void Answer(std::string bytes);
  void AnswerFault(ipc::FrameFault fault);
  void SetLimit(milliseconds limit);
  void LimitReached();

  const std::weak_ptr<Door> door_;
  const ipc::PeerIdentity peer_;
  Socket socket_;
  asio::steady_timer timer_;
  std::string received_;
  std::array<char, 4096> buffer_;
  milliseconds request_within_{0};
  std::chrono::steady_clock::time_point identify_by_;
  bool framed_ = false;
  bool handled_ = false;
};

class Door : public FrontDoor, public std::enable_shared_from_this<Door> {
 public:
  Door(asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
       FrontDoorLimits limits, FramedAdapter& framed, HttpServerPort& http,
       Counters& counters)
      : framed(framed),
        counters(counters),
        loop_(loop),
        listener_(std::move(listener)),
        served_uid_(served_uid),
        limits_(limits),
        http_(http),
        ready_(loop, listener_.fd()),
        pause_(loop),
        idle_(loop),
        http_connections_(loop, [this] { HttpConnectionEnded(); }) {}

  ~Door() override { static_cast<void>(ready_.release()); }

  void Open() override { Wait(); }

  void Close() override {
    closed_ = true;
    asio::error_code ignored;
    ready_.cancel(ignored);
    pause_.cancel();
    idle_.cancel();
    if (const absl::Status gone = listener_.UnlinkIfOurs(); !gone.ok()) {
      LogWarning(
          absl::StrCat("removing the socket: ", std::string(gone.message())));
    }
  }

  size_t connections() const override {
    return visitors_ + http_connections_.size();
  }
  size_t unanswered() const override { return visitors_; }

  void VisitorCame() { ++visitors_; }
  void VisitorLeft() { --visitors_; }

  void HandOver(ipc::UniqueFd fd) {
    if (closed_) return;
    if (!http_connections_.Add(fd).ok()) {
      counters.Add("refused.FD_PRESSURE");
      return;
    }
    idle_.cancel();
    counters.Add("connections.grpc");
    http_.Adopt(std::move(fd));
  }

  FramedAdapter& framed;
  Counters& counters;

 private:
  void Wait() {
    ready_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [self = shared_from_this()](const asio::error_code& e) {
                        if (!e && !self->closed_) self->AcceptAll();
                      });
  }

  void AcceptAll() {
    while (true) {
      auto accepted = listener_.Accept();
      if (!accepted.ok()) {
        // Out of descriptors: those who wait stay in the backlog meanwhile.
        counters.Add("accept_failures");
        LogWarning(
            absl::StrCat("accept: ", std::string(accepted.status().message())));
        pause_.expires_after(kDescriptorPause);
        pause_.async_wait(
            [self = shared_from_this()](const asio::error_code& e) {
              if (!e && !self->closed_) self->AcceptAll();
            });
        return;
      }
      if (!accepted->has_value()) break;
      Admit(*std::move(*accepted));
    }
    Wait();
  }

  void Admit(ipc::UniqueFd fd) {
    const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(fd);
    if (!peer.ok() || peer->uid != served_uid_) {
      counters.Add("refused.PEER_REJECTED");
      LogWarning(peer.ok() ? absl::StrCat("closed a connection of uid ",
                                          peer->uid, ", process ", peer->pid)
                           : std::string(peer.status().message()));
      return;
    }
    if (connections() >= limits_.connections) {
      counters.Add("refused.RATE_LIMITED");
      LogWarning("closed a connection: too many are open");
      return;
    }
    std::make_shared<Visitor>(loop_, weak_from_this(), *peer, std::move(fd))
        ->Identify(limits_);
  }

  void HttpConnectionEnded() {
    if (http_connections_.size() > 0 || closed_) return;
    idle_.expires_after(limits_.http_idle);
    idle_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (e || self->closed_ || self->http_connections_.size() > 0) return;
      self->http_.TearDown();
    });
  }

  asio::io_context& loop_;
  ipc::Listener listener_;
  const uint32_t served_uid_;
  const FrontDoorLimits limits_;
  HttpServerPort& http_;
  asio::posix::stream_descriptor ready_;
  asio::steady_timer pause_;
  asio::steady_timer idle_;
  HttpConnections http_connections_;
  size_t visitors_ = 0;
  bool closed_ = false;
};

Visitor::~Visitor() {
  if (const auto door = door_.lock()) door->VisitorLeft();
}

void Visitor::Identify(const FrontDoorLimits& limits) {
  if (const auto door = door_.lock()) door->VisitorCame();
  request_within_ = limits.request_within;
  identify_by_ = std::chrono::steady_clock::now() + limits.identify_within;
  SetLimit(limits.identify_within);
  Look();
}

void Visitor::SetLimit(milliseconds limit) {
  timer_.expires_after(limit);
  timer_.async_wait([weak = weak_from_this()](const asio::error_code& error) {
    if (error) return;
    if (const auto self = weak.lock()) self->LimitReached();
  });
}

void Visitor::LimitReached() {
  if (handled_) return;
  if (framed_) {
    AnswerFault(ipc::FrameFault::kIncomplete);
    return;
  }
  handled_ = true;
  if (const auto door = door_.lock()) door->counters.Add("silent_peers");
  asio::error_code ignored;
  socket_.close(ignored);
}

void Visitor::Look() {
  if (handled_) return;
  char first[kHttp2Preface.size()];
  const ssize_t n = recv(socket_.native_handle(), first, sizeof(first),
                         MSG_PEEK | MSG_DONTWAIT);
  const auto door = door_.lock();
  if (door == nullptr) return;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    socket_.async_wait(Socket::wait_read, [self = shared_from_this()](
                                              const asio::error_code& error) {
      if (!error) self->Look();
    });
    return;
  }
  if (n <= 0) {
    // Gone without a word: a probe, or a client that gave up.
    handled_ = true;
    timer_.cancel();
    return;
  }
  const absl::string_view seen(first, static_cast<size_t>(n));
  if (seen[0] == static_cast<char>(ipc::kFramingVersion)) {
    framed_ = true;
    SetLimit(request_within_);
    ReadFrame();
    return;
  }
  if (seen == kHttp2Preface) {
    handled_ = true;
    timer_.cancel();
    asio::error_code ignored;
    door->HandOver(ipc::UniqueFd(socket_.release(ignored)));
    return;
  }
  if (seen == kHttp2Preface.substr(0, seen.size())) {
    WaitForMore();
    return;
  }
  AnswerFault(ipc::FrameFault::kFramingVersion);
}

void Visitor::WaitForMore() {
  // The limit's own timer is taken over; Look() keeps to the same moment.
  if (std::chrono::steady_clock::now() >= identify_by_) {
    LimitReached();
    return;
  }
  timer_.expires_after(kPrefacePause);
  timer_.async_wait([self = shared_from_this()](const asio::error_code& error) {
    if (!error) self->Look();
  });
}

void Visitor::ReadFrame() {
  socket_.async_read_some(
      asio::buffer(buffer_),
      [self = shared_from_this()](const asio::error_code& error, size_t n) {
        if (self->handled_) return;
        self->received_.append(self->buffer_.data(), n);
        if (error) {
          self->AnswerFault(ipc::FrameFault::kIncomplete);
          return;
        }
        self->MaybeWhole();
      });
}

void Visitor::MaybeWhole() {
  const ipc::FrameHeader header =
      ipc::ParseFrameHeader(received_, ipc::kMaxHelloBodyBytes);
  if (header.fault != ipc::FrameFault::kNone) {
    AnswerFault(header.fault);
    return;
  }
  if (!header.complete ||
      received_.size() < ipc::kFrameHeaderBytes + header.body_bytes) {
    ReadFrame();
    return;
  }
  const auto door = door_.lock();
  if (door == nullptr) return;
  handled_ = true;
  timer_.cancel();
  door->counters.Add("connections.framed");
  door->framed.Handle(absl::string_view(received_).substr(
                          ipc::kFrameHeaderBytes, header.body_bytes),
                      peer_, [self = shared_from_this()](std::string bytes) {
                        self->Answer(std::move(bytes));
                      });
}

void Visitor::AnswerFault(ipc::FrameFault fault) {
  const auto door = door_.lock();
  if (door == nullptr) return;
  handled_ = true;
  timer_.cancel();
  Answer(door->framed.AnswerFault(fault));
}

void Visitor::Answer(std::string bytes) {
  received_ = std::move(bytes);
  // A reply that a peer does not read must not keep the connection for ever.
  timer_.expires_after(request_within_);
  timer_.async_wait([weak = weak_from_this()](const asio::error_code& error) {
    const auto self = weak.lock();
    if (error || self == nullptr) return;
    asio::error_code ignored;
    self->socket_.close(ignored);
  });
  asio::async_write(
      socket_, asio::buffer(received_),
      [self = shared_from_this()](const asio::error_code&, size_t) {
        self->timer_.cancel();
        asio::error_code ignored;
        self->socket_.close(ignored);
      });
}

// The owner's end of the door, which pending operations keep alive.
class OwnedDoor : public FrontDoor {
 public:
  explicit OwnedDoor(std::shared_ptr<Door> door) : door_(std::move(door)) {}
  ~OwnedDoor() override = default;
  void Open() override { door_->Open(); }
  void Close() override { door_->Close(); }
  size_t connections() const override { return door_->connections(); }
  size_t unanswered() const override { return door_->unanswered(); }

 private:
  const std::shared_ptr<Door> door_;
};

}  // namespace

std::unique_ptr<FrontDoor> FrontDoor::Create(
    asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
    FrontDoorLimits limits, FramedAdapter& framed, HttpServerPort& http,
    Counters& counters) {
  return std::make_unique<OwnedDoor>(std::make_shared<Door>(
      loop, std::move(listener), served_uid, limits, framed, http, counters));
}

}  // namespace zcbroker::service
