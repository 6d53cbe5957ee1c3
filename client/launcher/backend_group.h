// What a launcher may know and do about a daemon when no broker can tell: is
// it wedged, has everything that it started ended, and may it be ended? A
// daemon and the compilers it started are one process group; as long as one of
// them lives, it may still write the output of a call.
#ifndef ZCBROKER_CLIENT_LAUNCHER_BACKEND_GROUP_H_
#define ZCBROKER_CLIENT_LAUNCHER_BACKEND_GROUP_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::client {

// Not thread-safe.
class BackendGroup {
 public:
  // Of the daemon at the other end of a connection. REQUIRES: info.group() is
  // not 0, and info.pid() is the connection's peer.
  explicit BackendGroup(zcbroker::v1::RouteInfo info)
      : info_(std::move(info)) {}

  // Whether the daemon itself has not ended.
  bool DaemonLives() const;

  // To be asked after each probe that was not answered. True where the daemon
  // is stopped, or two probes in a row found it without processor time used in
  // between and without running children: busy is not wedged.
  bool LooksWedged();

  // Ends the whole group by SIGKILL and waits until it has ended. False, with
  // nothing done, where it may not be ended: pid, group and session are not
  // one, or its program is neither that of the route nor a copy of it.
  bool TryEnd();

  // Waits, without limit, for all that the daemon has started so far and that
  // may still write; for the daemon, too, where it is ending. Says so on
  // standard error after `patience`.
  void AwaitQuiet(absl::Duration patience = absl::Seconds(5));

 private:
  // Live members of the group, the daemon among them.
  std::vector<int> Members() const;

  const zcbroker::v1::RouteInfo info_;
  // Processor time at the last unanswered probe.
  absl::optional<std::uint64_t> cpu_ticks_;
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_BACKEND_GROUP_H_
