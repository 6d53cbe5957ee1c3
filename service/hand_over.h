// How a running broker gives its place to its successor, so that nobody is
// refused and nothing that is under way is lost. Source: docs/adr/0022.
#ifndef ZCBROKER_SERVICE_HAND_OVER_H_
#define ZCBROKER_SERVICE_HAND_OVER_H_

#include <sys/types.h>

#include <chrono>
#include <functional>

#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "asio/steady_timer.hpp"
#include "service/host/front_door.h"
#include "service/host/host.h"
#include "service/host/keeper_line.h"
#include "service/rpc/on_demand_server.h"

namespace zcbroker::service {

// Lives on the loop's thread; what is passed in outlives it.
//
// 1. Serves on until nobody waits for a start, 10 s at most.
// 2. Accepts no more: who comes waits in the backlogs of the keeper's sockets.
//    Who has just connected begins its call, 250 ms at most, which is less than
//    a client takes for mute. Who still waits is told what is known.
// 3. Ends the gRPC server; lets go of backends, names and the place; has the
//    keeper start the successor. What is left of this broker serves the relayed
//    connections that it has (Host::HandOver).
class HandOver {
 public:
  // `keeper_pid`: who would start a successor; nothing: nobody.
  // `release_place`: nobody restores socket and lock any more; `release_lock`:
  // the place is the successor's.
  HandOver(asio::io_context& loop, Host& host, FrontDoor& door,
           OnDemandServer& rpc, KeeperLine& keeper,
           absl::optional<pid_t> keeper_pid,
           std::function<void()> release_place,
           std::function<void()> release_lock);

  // A second call does nothing, and so does the first where no keeper is there
  // or the broker is stopping. An end that is asked for meanwhile goes before.
  void Begin();
  // The place is the successor's.
  bool given() const { return given_; }

 private:
  void ServeOn(std::chrono::milliseconds waited);
  void AwaitCalls(std::chrono::milliseconds waited);
  void EndCalls();
  void Give();
  void After(std::chrono::milliseconds pause, std::function<void()> then);

  Host& host_;
  FrontDoor& door_;
  OnDemandServer& rpc_;
  KeeperLine& keeper_;
  const absl::optional<pid_t> keeper_pid_;
  const std::function<void()> release_place_;
  const std::function<void()> release_lock_;
  asio::io_context& loop_;
  asio::steady_timer timer_;
  bool begun_ = false;
  bool given_ = false;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HAND_OVER_H_
