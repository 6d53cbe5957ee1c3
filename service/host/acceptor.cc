#include "service/host/acceptor.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "asio/posix/stream_descriptor.hpp"
#include "asio/steady_timer.hpp"
#include "service/host/descriptors.h"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

// How long to wait for descriptors to become free.
constexpr std::chrono::milliseconds kDescriptorPause(50);
// The loop has others to serve, and the keeper to answer, however fast
// somebody connects.
constexpr int kAtOnce = 64;

class Gate : public std::enable_shared_from_this<Gate> {
 public:
  Gate(asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
       WhenShort when_short, Counters& counters,
       std::function<void(ipc::UniqueFd, const ipc::PeerIdentity&)> accepted)
      : listener_(std::move(listener)),
        served_uid_(served_uid),
        when_short_(std::move(when_short)),
        counters_(counters),
        accepted_(std::move(accepted)),
        ready_(loop, listener_.fd()),
        pause_(loop) {}

  // The descriptor is the listener's.
  ~Gate() { static_cast<void>(ready_.release()); }

  void Close() {
    closed_ = true;
    asio::error_code ignored;
    ready_.cancel(ignored);
    pause_.cancel();
  }

  void Wait() {
    ready_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [self = shared_from_this()](const asio::error_code& e) {
                        if (!e && !self->closed_) self->AcceptSome();
                      });
  }

  const ipc::Listener& listener() const { return listener_; }

 private:
  void AcceptSome() {
    for (int i = 0; i < kAtOnce && !closed_; ++i) {
      auto connection = Accept();
      if (!connection.ok()) {
        // Out of descriptors: those who wait stay in the backlog meanwhile.
        counters_.Reached("accept_failures");
        LogWarning(absl::StrCat("accept: ",
                                std::string(connection.status().message())));
        if (when_short_.make_room) when_short_.make_room();
        pause_.expires_after(kDescriptorPause);
        pause_.async_wait(
            [self = shared_from_this()](const asio::error_code& e) {
              if (!e) self->AcceptSome();
            });
        return;
      }
      if (!connection->has_value()) break;
      Admit(*std::move(*connection));
    }
    if (!closed_) Wait();
  }

  absl::StatusOr<absl::optional<ipc::UniqueFd>> Accept() {
    auto connection = listener_.Accept();
    if (!when_short_.use_reserve ||
        !absl::IsResourceExhausted(connection.status())) {
      return connection;
    }
    const DescriptorLoan loan;
    connection = listener_.Accept();
    if (connection.ok() && connection->has_value()) {
      counters_.Reached("connections.of_reserve");
    }
    return connection;
  }

  void Admit(ipc::UniqueFd fd) {
    const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(fd);
    if (!peer.ok() || peer->uid != served_uid_) {
      counters_.Reached("refused.PEER_REJECTED");
      LogWarning(peer.ok() ? absl::StrCat("closed a connection of uid ",
                                          peer->uid, ", process ", peer->pid)
                           : std::string(peer.status().message()));
      return;
    }
    accepted_(std::move(fd), *peer);
  }

  const ipc::Listener listener_;
  const uint32_t served_uid_;
  const WhenShort when_short_;
  Counters& counters_;
  const std::function<void(ipc::UniqueFd, const ipc::PeerIdentity&)> accepted_;
  asio::posix::stream_descriptor ready_;
  asio::steady_timer pause_;
  bool closed_ = false;
};

// The owner's end, which pending operations outlive.
class OwnedGate : public Acceptor {
 public:
  explicit OwnedGate(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}
  ~OwnedGate() override { gate_->Close(); }
  void Open() override { gate_->Wait(); }
  void Close() override { gate_->Close(); }
  const ipc::Listener& listener() const override { return gate_->listener(); }

 private:
  const std::shared_ptr<Gate> gate_;
};

}  // namespace

std::unique_ptr<Acceptor> Acceptor::Create(
    asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
    WhenShort when_short, Counters& counters,
    std::function<void(ipc::UniqueFd, const ipc::PeerIdentity&)> accepted) {
  return std::make_unique<OwnedGate>(std::make_shared<Gate>(
      loop, std::move(listener), served_uid, std::move(when_short), counters,
      std::move(accepted)));
}

}  // namespace zcbroker::service
