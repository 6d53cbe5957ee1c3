#include "service/host/relay.h"

#include <unistd.h>

#include <iterator>
#include <map>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/process.h"
#include "service/core/connection_limits.h"
#include "service/host/log.h"
#include "service/host/relayed.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSweepPause(100);
constexpr milliseconds kIdleLook(500);
// Records of looks at backends that are long gone.
constexpr size_t kLooksKept = 256;

class LoopRelay : public Relay {
 public:
  LoopRelay(asio::io_context& loop, RelayLimits limits, RelayPort& port,
            Counters& counters, v1::World world)
      : shared_(loop, limits, port, counters, std::move(world)),
        sweep_(loop),
        patience_(loop),
        idle_(loop) {
    const absl::StatusOr<ipc::ProcessStat> self =
        ipc::ReadProcessStat(getpid());
    if (self.ok()) shared_.started = self->start_time;
    shared_.elders_until = std::chrono::steady_clock::now() + limits.elders_for;
    shared_.make_room = [this](size_t descriptors) { EndIdle(descriptors); };
    shared_.watch = [this](const std::shared_ptr<Relayed>& waiting) {
      watched_.push_back(waiting);
      if (!sweeping_) SweepLater();
    };
    shared_.left = [this](Relayed* left) {
      // It is inside a call of its own.
      const auto found = all_.find(left);
      if (found == all_.end()) return;
      asio::post(shared_.loop, [keep = std::move(found->second)] {});
      all_.erase(found);
      if (all_.empty() && drained_) {
        patience_.cancel();
        idle_.cancel();
        asio::post(shared_.loop, std::exchange(drained_, nullptr));
      }
    };
  }

  ~LoopRelay() override {
    shared_.left = [](Relayed*) {};
    shared_.watch = [](const std::shared_ptr<Relayed>&) {};
    for (const auto& [key, relayed] : all_) relayed->End();
  }

  void Admit(ipc::UniqueFd client, int peer_pid,
             const RelayedName& name) override {
    if (all_.size() >= most_connections_ && EndIdle(1) == 0) {
      shared_.counters.Reached("relay.limit");
      return;
    }
    shared_.counters.Add("relay.connections");
    auto relayed =
        std::make_shared<Relayed>(shared_, std::move(client), peer_pid, name);
    all_[relayed.get()] = relayed;
    relayed->Begin();
  }

  size_t EndIdle(size_t most) override {
    std::multimap<std::chrono::steady_clock::time_point,
                  std::shared_ptr<Relayed>>
        longest;
    for (const auto& [key, relayed] : all_) {
      const auto since = relayed->idle_since();
      if (!since.has_value()) continue;
      longest.emplace(*since, relayed);
      if (longest.size() > most) longest.erase(std::prev(longest.end()));
    }
    for (const auto& [since, relayed] : longest) {
      shared_.counters.Reached("relay.idle_ended");
      relayed->End();
    }
    return longest.size();
  }

  void Drain(milliseconds patience, std::function<void()> done) override {
    for (const auto& relayed : All()) relayed->EndSoon();
    AwaitEmpty(patience, std::move(done));
  }

  void ServeOn(milliseconds idle, milliseconds patience,
               std::function<void()> done) override {
    shared_.handed_over = true;
    shared_.spares.DropAll();
    for (const auto& relayed : All()) relayed->LetGo();
    AwaitEmpty(patience, std::move(done));
    EndThoseIdleFor(idle);
  }

  void LetGo(uint32_t pid, uint64_t start_time) override {
    shared_.spares.Drop(pid, start_time);
    for (const auto& [key, relayed] : all_) {
      if (relayed->route().pid() == pid &&
          relayed->route().start_time() == start_time) {
        relayed->LetGo();
      }
    }
  }

  size_t connections() const override { return all_.size(); }

  void SetLimit(size_t connections) override {
    most_connections_ = connections;
  }

 private:
  // Those that are ended take themselves out.
  std::vector<std::shared_ptr<Relayed>> All() const {
    std::vector<std::shared_ptr<Relayed>> all;
    for (const auto& [key, relayed] : all_) all.push_back(relayed);
    return all;
  }

  void AwaitEmpty(milliseconds patience, std::function<void()> done) {
    if (all_.empty()) {
      asio::post(shared_.loop, std::move(done));
      return;
    }
    drained_ = std::move(done);
    patience_.expires_after(patience);
    patience_.async_wait([this](const asio::error_code& error) {
      if (error) return;
      LogWarning("ended relayed requests that took too long");
      for (const auto& relayed : All()) relayed->End();
    });
  }

  void EndThoseIdleFor(milliseconds idle) {
    const auto now = std::chrono::steady_clock::now();
    for (const auto& relayed : All()) {
      const auto since = relayed->idle_since();
      if (since.has_value() && now - *since >= idle) relayed->End();
    }
    if (all_.empty()) return;
    idle_.expires_after(kIdleLook);
    idle_.async_wait([this, idle](const asio::error_code& error) {
      if (!error) EndThoseIdleFor(idle);
    });
  }

  void SweepLater() {
    sweeping_ = true;
    sweep_.expires_after(kSweepPause);
    sweep_.async_wait([this](const asio::error_code& error) {
      if (!error) Sweep();
    });
  }

  void Sweep() {
    // sweeping_ stays set: whoever begins to wait meanwhile is seen below.
    const auto now = std::chrono::steady_clock::now();
    std::vector<std::weak_ptr<Relayed>> still;
    std::unordered_set<Relayed*> seen;
    for (const auto& weak : std::exchange(watched_, {})) {
      const std::shared_ptr<Relayed> relayed = weak.lock();
      if (relayed == nullptr || !seen.insert(relayed.get()).second) {
        continue;
      }
      relayed->TimePasses(now);
      if (relayed->waits()) still.push_back(weak);
    }
    if (shared_.looked.size() > kLooksKept) shared_.looked.clear();
    watched_.insert(watched_.end(), still.begin(), still.end());
    sweeping_ = false;
    if (!watched_.empty()) SweepLater();
  }

  RelayShared shared_;
  size_t most_connections_ = ConnectionLimits().relayed_connections;
  asio::steady_timer sweep_;
  asio::steady_timer patience_;
  asio::steady_timer idle_;
  std::unordered_map<Relayed*, std::shared_ptr<Relayed>> all_;
  std::vector<std::weak_ptr<Relayed>> watched_;
  bool sweeping_ = false;
  std::function<void()> drained_;
};

}  // namespace

std::unique_ptr<Relay> Relay::Create(asio::io_context& loop, RelayLimits limits,
                                     RelayPort& port, Counters& counters,
                                     v1::World world) {
  return std::make_unique<LoopRelay>(loop, limits, port, counters,
                                     std::move(world));
}

}  // namespace zcbroker::service
