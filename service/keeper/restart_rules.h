// What the keeper does when the broker ends. A value without a clock: times
// are arguments.
#ifndef ZCBROKER_SERVICE_KEEPER_RESTART_RULES_H_
#define ZCBROKER_SERVICE_KEEPER_RESTART_RULES_H_

#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace zcbroker::service {

// Either of them is set.
struct BrokerEnd {
  absl::optional<int> exit_status;
  absl::optional<int> signal;
};

struct KeeperDecision {
  // The keeper ends with this status; else it starts the broker again after
  // `delay`.
  absl::optional<int> exit_status;
  absl::Duration delay;
  // Nobody is to wait for that: clients go direct until a broker is ready.
  bool let_clients_go = false;
};

// | the broker ended                         | the keeper                     |
// |------------------------------------------|--------------------------------|
// | before it was ever ready                 | ends with its status (128 and  |
// |                                          | the signal, as a shell has it) |
// | with status 0                            | ends with 0                    |
// | after the keeper was told to end         | the same as before ready; 15   |
// |                                          | is 0: it handed over in order  |
// | with 14 five times in a row: somebody    | ends with 14                   |
// | else is the broker                       |                                |
// | with 15, ready: it handed over           | starts the next at once        |
// | not ready for the ninth time in a row,   | restarts it, and lets its      |
// | or more, or not within kReadyWithin      | clients go                     |
// | otherwise                                | restarts it, without end       |
//
// The first restart is at once. A broker that ends within a second of its
// start is started again after 0, 10, 20, 40 ms and so on: up to 100 ms where
// it had become ready, for clients wait, and up to 5 s where it had not. One
// that lived longer clears that.
class RestartRules {
 public:
  static constexpr int kAlreadyRunning = 14;  // docs/operations.md
  static constexpr int kHandedOver = 15;
  static constexpr int kMaxAlreadyRunning = 5;
  // With the pauses between them somewhat over a second: a program that is
  // missing for a moment, as in an install, costs nobody his place.
  static constexpr int kMaxFailedStarts = 9;
  // One that is not ready by then hangs, and the keeper ends it. Starting takes
  // some 20 ms.
  static constexpr absl::Duration kReadyWithin = absl::Seconds(10);

  // What it knows of the past.
  struct Memory {
    bool ever_ready = false;
    bool ready = false;  // in this life
    bool stopping = false;
    int already_running = 0;
    int short_lives = 0;
  };

  RestartRules() = default;
  explicit RestartRules(const Memory& memory) : memory_(memory) {}
  const Memory& memory() const { return memory_; }

  // The broker serves.
  void OnReady() {
    memory_.ever_ready = memory_.ready = true;
    failed_starts_ = 0;
  }
  // The keeper was told to end.
  void OnStop() { memory_.stopping = true; }
  bool stopping() const { return memory_.stopping; }
  bool ready() const { return memory_.ready; }

  // The broker ended, `lived` after its start.
  KeeperDecision OnEnd(const BrokerEnd& end, absl::Duration lived);

 private:
  absl::Duration NextDelay(absl::Duration lived);

  Memory memory_;
  // In a row. Not part of what an upgraded keeper is told: it may try as often
  // again.
  int failed_starts_ = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_RESTART_RULES_H_
