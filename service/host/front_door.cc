#include "service/host/front_door.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "asio/local/stream_protocol.hpp"
#include "asio/steady_timer.hpp"
#include "asio/write.hpp"
#include "ipc/frame/envelope.h"
#include "ipc/peer_identity.h"
#include "service/host/acceptor.h"
#include "service/host/descriptors.h"
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
// How exactly the limits of waiting peers are kept.
constexpr milliseconds kSweepPause(100);
constexpr milliseconds kSayAgain(1000);

class Door;

// A connection that is not gRPC's yet, or never will be. Most are answered
// within the call that accepted them, so the loop hears of one only when it
// has to wait.
class Visitor : public std::enable_shared_from_this<Visitor> {
 public:
  Visitor(asio::io_context& loop, std::weak_ptr<Door> door,
          ipc::PeerIdentity peer, ipc::UniqueFd fd);
  ~Visitor();
  Visitor(const Visitor&) = delete;
  Visitor& operator=(const Visitor&) = delete;

  // Reads what there is and acts on it; waits for the rest.
  void Look();
  // Its time is up.
  void LimitReached();
  std::chrono::steady_clock::time_point limit() const { return limit_; }
  bool done() const { return done_; }

 private:
  void Register();
  int native();
  void WaitToRead(void (Visitor::*then)());
  void LookAgainSoon();
  void ReadFrame();
  void Handle(size_t body_bytes);
  void AnswerFault(ipc::FrameFault fault);
  void Answer(std::string bytes);
  void Finish();
  // From now on it may take `usual`; with a descriptor of the reserve, less:
  // others have to be told with it.
  void LimitTo(const FrontDoorLimits& limits, milliseconds usual);

  const std::weak_ptr<Door> door_;
  const ipc::PeerIdentity peer_;
  const bool of_reserve_;
  // Ours until the loop has to know of it, then socket_'s.
  ipc::UniqueFd fd_;
  Socket socket_;
  asio::steady_timer pause_;
  std::string received_;
  std::chrono::steady_clock::time_point limit_;
  bool framed_ = false;
  bool handled_ = false;
  bool done_ = false;
};

class Door : public FrontDoor, public std::enable_shared_from_this<Door> {
 public:
  Door(asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
       FrontDoorLimits limits, FramedAdapter& framed, HttpServerPort& http,
       Counters& counters)
      : framed(framed),
        counters(counters),
        limits(limits),
        loop_(loop),
        connection_limits_(limits.connections),
        served_uid_(served_uid),
        acceptor_(NewAcceptor(std::move(listener))),
        http_(http),
        idle_(loop),
        sweep_(loop),
        http_connections_(loop, limits.reserved_for,
                          [this] { HttpConnectionEnded(); }) {}

  void Open() override { acceptor_->Open(); }

  void SetLimits(const ConnectionLimits& limits) override {
    connection_limits_ = limits;
  }

  void StopAccepting() override { acceptor_->Close(); }

  void Close() override {
    closed_ = true;
    acceptor_->Close();
    idle_.cancel();
  }

  void LetGoOfSocket() override { acceptor_.reset(); }

  void RemoveName() override {
    if (const absl::Status gone = acceptor_->listener().UnlinkIfOurs();
        !gone.ok()) {
      LogWarning(
          absl::StrCat("removing the socket: ", std::string(gone.message())));
    }
  }

  bool HasItsName() const override {
    return acceptor_->listener().HasItsName();
  }

  void MoveTo(ipc::Listener listener) override {
    if (closed_) return;
    acceptor_ = NewAcceptor(std::move(listener));
    acceptor_->Open();
  }

  size_t connections() const override {
    return visitors_ + http_connections_.size();
  }
  size_t unanswered() const override { return visitors_; }
  bool SpeaksGrpc(int pid) const override {
    return http_connections_.of(pid) > 0;
  }

  void VisitorCame(int pid) {
    ++visitors_;
    ++by_process_[pid];
  }
  void VisitorLeft(int pid) {
    --visitors_;
    const auto counted = by_process_.find(pid);
    if (--counted->second == 0) by_process_.erase(counted);
  }

  void HandOver(ipc::UniqueFd fd, int pid) {
    if (closed_) return;
    if (!http_connections_.Add(fd, pid).ok()) {
      counters.Reached("refused.FD_PRESSURE");
      return;
    }
    idle_.cancel();
    counters.Add("connections.grpc");
    // Where there is no server yet, building one takes some.
    const DescriptorLoan loan;
    http_.Adopt(std::move(fd));
  }

  // Has `visitor` end by its limit. Limits are not kept exactly, so they are
  // looked at once a while and not by a timer each.
  void Limit(std::weak_ptr<Visitor> visitor) {
    limited_.push_back(std::move(visitor));
    if (!sweeping_) Sweep();
  }

  FramedAdapter& framed;
  Counters& counters;
  const FrontDoorLimits limits;

 private:
  std::unique_ptr<Acceptor> NewAcceptor(ipc::Listener listener) {
    return Acceptor::Create(
        loop_, std::move(listener), served_uid_,
        WhenShort{/*use_reserve=*/true, nullptr}, counters,
        [this](ipc::UniqueFd fd, const ipc::PeerIdentity& peer) {
          Admit(std::move(fd), peer);
        });
  }

  void Sweep() {
    const auto now = std::chrono::steady_clock::now();
    std::vector<std::weak_ptr<Visitor>> waiting;
    for (const std::weak_ptr<Visitor>& weak : std::exchange(limited_, {})) {
      const auto visitor = weak.lock();
      if (visitor == nullptr || visitor->done()) continue;
      if (visitor->limit() <= now) visitor->LimitReached();
      if (!visitor->done()) waiting.push_back(weak);
    }
    limited_.insert(limited_.end(), waiting.begin(), waiting.end());
    sweeping_ = !limited_.empty();
    if (!sweeping_) return;
    sweep_.expires_after(kSweepPause);
    sweep_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (!e) self->Sweep();
    });
  }

  // Who is refused may come again at once; the counters have them all.
  void SayNowAndThen(const std::string& what) {
    const auto now = std::chrono::steady_clock::now();
    if (now - said_ < kSayAgain) return;
    said_ = now;
    LogWarning(what);
  }

  void Admit(ipc::UniqueFd fd, const ipc::PeerIdentity& peer) {
    if (connections() >= connection_limits_.connections) {
      counters.Add("refused.RATE_LIMITED");
      counters.Reached("connections.too_many");
      return;
    }
    const auto visitors = by_process_.find(peer.pid);
    const size_t of_process =
        (visitors != by_process_.end() ? visitors->second : 0) +
        http_connections_.of(peer.pid);
    if (of_process >= connection_limits_.connections_per_process) {
      counters.Add("refused.RATE_LIMITED");
      counters.Reached("connections.too_many_of_one");
      SayNowAndThen(absl::StrCat("closed a connection of process ", peer.pid,
                                 ": it has ", of_process));
      return;
    }
    std::make_shared<Visitor>(loop_, weak_from_this(), peer, std::move(fd))
        ->Look();
  }

  void HttpConnectionEnded() {
    if (http_connections_.size() > 0 || closed_) return;
    idle_.expires_after(limits.http_idle);
    idle_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (e || self->closed_ || self->http_connections_.size() > 0) return;
      self->http_.TearDown();
    });
  }

  asio::io_context& loop_;
  ConnectionLimits connection_limits_;
  const uint32_t served_uid_;
  std::unique_ptr<Acceptor> acceptor_;
  HttpServerPort& http_;
  asio::steady_timer idle_;
  asio::steady_timer sweep_;
  std::vector<std::weak_ptr<Visitor>> limited_;
  bool sweeping_ = false;
  HttpConnections http_connections_;
  size_t visitors_ = 0;
  std::map<int, size_t> by_process_;
  std::chrono::steady_clock::time_point said_;
  bool closed_ = false;
};

Visitor::Visitor(asio::io_context& loop, std::weak_ptr<Door> door,
                 ipc::PeerIdentity peer, ipc::UniqueFd fd)
    : door_(std::move(door)),
      peer_(peer),
      of_reserve_(IsOfReserve(fd.get())),
      fd_(std::move(fd)),
      socket_(loop),
      pause_(loop) {
  const auto owner = door_.lock();
  owner->VisitorCame(peer_.pid);
  LimitTo(owner->limits, owner->limits.identify_within);
}

void Visitor::LimitTo(const FrontDoorLimits& limits, milliseconds usual) {
  limit_ = std::chrono::steady_clock::now() +
           (of_reserve_ ? std::min(usual, limits.reserved_within) : usual);
}

Visitor::~Visitor() {
  if (const auto door = door_.lock()) door->VisitorLeft(peer_.pid);
}

void Visitor::Finish() {
  done_ = true;
  handled_ = true;
  fd_.reset();
  asio::error_code ignored;
  socket_.close(ignored);
  pause_.cancel();
}

void Visitor::LimitReached() {
  if (framed_ && !handled_) {
    AnswerFault(ipc::FrameFault::kIncomplete);
    return;
  }
  if (!handled_) {
    if (const auto door = door_.lock()) door->counters.Reached("silent_peers");
  }
  Finish();
}

// The loop learns of the connection.
void Visitor::Register() {
  if (socket_.is_open()) return;
  asio::error_code ignored;
  socket_.assign(asio::local::stream_protocol(), fd_.release(), ignored);
  if (const auto door = door_.lock()) door->Limit(weak_from_this());
}

int Visitor::native() {
  return socket_.is_open() ? socket_.native_handle() : fd_.get();
}

void Visitor::WaitToRead(void (Visitor::*then)()) {
  Register();
  socket_.async_wait(Socket::wait_read, [self = shared_from_this(),
                                         then](const asio::error_code& error) {
    if (!error && !self->handled_) (self.get()->*then)();
  });
}

void Visitor::Look() {
  const auto door = door_.lock();
  if (door == nullptr || handled_) return;
  char first[kHttp2Preface.size()];
  const ssize_t n =
      recv(native(), first, sizeof(first), MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    WaitToRead(&Visitor::Look);
    return;
  }
  if (n <= 0) {
    // Gone without a word: a probe, or a client that gave up.
    Finish();
    return;
  }
  const absl::string_view seen(first, static_cast<size_t>(n));
  if (seen[0] == static_cast<char>(ipc::kFramingVersion)) {
    framed_ = true;
    LimitTo(door->limits, door->limits.request_within);
    ReadFrame();
    return;
  }
  if (seen == kHttp2Preface) {
    handled_ = true;
    done_ = true;
    asio::error_code ignored;
    door->HandOver(socket_.is_open() ? ipc::UniqueFd(socket_.release(ignored))
                                     : std::move(fd_),
                   peer_.pid);
    return;
  }
  if (seen == kHttp2Preface.substr(0, seen.size())) {
    LookAgainSoon();
    return;
  }
  AnswerFault(ipc::FrameFault::kFramingVersion);
}

void Visitor::LookAgainSoon() {
  Register();
  pause_.expires_after(kPrefacePause);
  pause_.async_wait([self = shared_from_this()](const asio::error_code& error) {
    if (!error) self->Look();
  });
}

void Visitor::ReadFrame() {
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t n =
        recv(native(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      WaitToRead(&Visitor::ReadFrame);
      return;
    }
    if (n <= 0) {
      AnswerFault(ipc::FrameFault::kIncomplete);
      return;
    }
    received_.append(buffer.data(), static_cast<size_t>(n));
    const ipc::FrameHeader header =
        ipc::ParseFrameHeader(received_, ipc::kMaxHelloBodyBytes);
    if (header.fault != ipc::FrameFault::kNone) {
      AnswerFault(header.fault);
      return;
    }
    if (header.complete &&
        received_.size() >= ipc::kFrameHeaderBytes + header.body_bytes) {
      Handle(header.body_bytes);
      return;
    }
  }
}

void Visitor::Handle(size_t body_bytes) {
  const auto door = door_.lock();
  if (door == nullptr) return;
  handled_ = true;
  // The rules answer in time; the limit of arriving does not count any more.
  limit_ = std::chrono::steady_clock::time_point::max();
  door->counters.Add("connections.framed");
  door->framed.Handle(
      absl::string_view(received_).substr(ipc::kFrameHeaderBytes, body_bytes),
      peer_, [self = shared_from_this()](std::string bytes) {
        self->Answer(std::move(bytes));
      });
}

void Visitor::AnswerFault(ipc::FrameFault fault) {
  const auto door = door_.lock();
  if (door == nullptr) return;
  handled_ = true;
  Answer(door->framed.AnswerFault(fault));
}

void Visitor::Answer(std::string bytes) {
  const ssize_t n =
      send(native(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n == static_cast<ssize_t>(bytes.size()) ||
      (n < 0 && errno != EAGAIN && errno != EINTR)) {
    Finish();
    return;
  }
  // A peer that does not read its answer must not stay for ever.
  received_ = bytes.substr(n > 0 ? static_cast<size_t>(n) : 0);
  const auto door = door_.lock();
  if (door == nullptr) return;
  LimitTo(door->limits, door->limits.request_within);
  Register();
  asio::async_write(socket_, asio::buffer(received_),
                    [self = shared_from_this()](const asio::error_code&,
                                                size_t) { self->Finish(); });
}

// The owner's end of the door, which pending operations keep alive.
class OwnedDoor : public FrontDoor {
 public:
  explicit OwnedDoor(std::shared_ptr<Door> door) : door_(std::move(door)) {}
  ~OwnedDoor() override = default;
  void Open() override { door_->Open(); }
  void SetLimits(const ConnectionLimits& limits) override {
    door_->SetLimits(limits);
  }
  void StopAccepting() override { door_->StopAccepting(); }
  void Close() override { door_->Close(); }
  void LetGoOfSocket() override { door_->LetGoOfSocket(); }
  void RemoveName() override { door_->RemoveName(); }
  bool HasItsName() const override { return door_->HasItsName(); }
  void MoveTo(ipc::Listener listener) override {
    door_->MoveTo(std::move(listener));
  }
  size_t connections() const override { return door_->connections(); }
  size_t unanswered() const override { return door_->unanswered(); }
  bool SpeaksGrpc(int pid) const override { return door_->SpeaksGrpc(pid); }

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
