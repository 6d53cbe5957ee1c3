#include "service/hand_over.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <utility>

#include "asio/post.hpp"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLookAgain(5);
// How long an answer to a negotiation takes at most.
constexpr milliseconds kRestPatience(10'000);
// How long a new connection may take to its first call.
constexpr milliseconds kBeginPatience(250);

}  // namespace

HandOver::HandOver(asio::io_context& loop, Host& host, FrontDoor& door,
                   OnDemandServer& rpc, KeeperLine& keeper,
                   absl::optional<pid_t> keeper_pid,
                   std::function<void()> release_place,
                   std::function<void()> release_lock)
    : host_(host),
      door_(door),
      rpc_(rpc),
      keeper_(keeper),
      keeper_pid_(keeper_pid),
      release_place_(std::move(release_place)),
      release_lock_(std::move(release_lock)),
      loop_(loop),
      timer_(loop) {}

void HandOver::After(milliseconds pause, std::function<void()> then) {
  timer_.expires_after(pause);
  timer_.async_wait([this, then = std::move(then)](const asio::error_code& e) {
    if (!e && !host_.stopping()) then();
  });
}

void HandOver::Begin() {
  if (!keeper_pid_.has_value() || getppid() != *keeper_pid_) {
    LogWarning("SIGUSR2: no keeper would start a successor; going on");
    return;
  }
  if (host_.stopping() || std::exchange(begun_, true)) return;
  LogInfo("handing over to a successor");
  ServeOn(milliseconds(0));
}

void HandOver::ServeOn(milliseconds waited) {
  if (host_.waiters() > 0 && waited < kRestPatience) {
    After(kLookAgain, [this, waited] { ServeOn(waited + kLookAgain); });
    return;
  }
  release_place_();
  door_.StopAccepting();
  host_.StopAccepting();
  host_.EndStreams();
  AwaitCalls(milliseconds(0));
}

void HandOver::AwaitCalls(milliseconds waited) {
  // Calls that have begun are waited for below; long-lived connections without
  // one are told by gRPC to connect anew.
  if ((door_.connections() > 0 || host_.waiters() > 0) &&
      waited < kBeginPatience) {
    After(kLookAgain, [this, waited] { AwaitCalls(waited + kLookAgain); });
    return;
  }
  EndCalls();
}

void HandOver::EndCalls() {
  host_.Hurry();
  rpc_.End([this] {
    asio::post(loop_, [this] {
      if (!host_.stopping()) Give();
    });
  });
}

void HandOver::Give() {
  given_ = true;
  host_.HandOver();
  door_.LetGoOfSocket();
  release_lock_();
  keeper_.HandedOver();
  // When the keeper ends, all that was the broker ends.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != *keeper_pid_) host_.Stop(/*stop_backends=*/false);
}

}  // namespace zcbroker::service
