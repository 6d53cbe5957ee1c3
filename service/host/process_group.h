// Ending a backend whole: its process group, not just its leader. Compilers a
// dead daemon left behind write objects seconds later.
#ifndef ZCBROKER_SERVICE_HOST_PROCESS_GROUP_H_
#define ZCBROKER_SERVICE_HOST_PROCESS_GROUP_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>

#include "asio/io_context.hpp"

namespace zcbroker::service {

// Sends SIGKILL to the group `pgid` and calls `done` from the loop once no
// process but zombies is left in it. Call it while the group is surely the
// backend's: its leader not reaped yet, or known to be in it. Asks every 1 to
// 20 ms, since nothing tells when a group is empty; gives up after 10 s (a
// process stuck in the kernel) and says so in the log.
void EndGroup(asio::io_context& loop, pid_t pgid, std::function<void()> done);

// As EndGroup, for a backend of an earlier broker whose leader has ended and
// had started at `leader_start_time`. Leaves the group alone where its number
// is another's by now.
void EndOrphanedGroup(asio::io_context& loop, pid_t pgid,
                      uint64_t leader_start_time, std::function<void()> done);

// Is a thread of `pid` waiting for a disk (state D)?
bool WaitsForDisk(pid_t pid);

// Has `pid` a child that has not ended?
bool HasRunningChildren(pid_t pid);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_PROCESS_GROUP_H_
