// What is left to do when keeper and broker have both been killed: the daemons
// behind the public names run on, and hold what their clients would need to
// start others (a cache has one writer), but the names lead nowhere. A child
// of the keeper that does nothing until then leaves a link to its daemon at
// each name. Source: docs/adr/0011.
#ifndef ZCBROKER_SERVICE_KEEPER_LAST_WILL_H_
#define ZCBROKER_SERVICE_KEEPER_LAST_WILL_H_

#include "absl/status/statusor.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {

// Starts the child. As long as any process holds the returned end, it waits;
// it is close-on-exec and numbered 10 or higher, so that whoever is to count
// can be given it under a number of its own. Call it while there is one thread.
absl::StatusOr<ipc::UniqueFd> LeaveLastWill();

// What the child does then, and a keeper that lets its clients go: at each
// public name of a live backend that leads nowhere, a link to it. Where
// somebody serves, or the broker ended in order, there is nothing to do.
// Somebody who serves may be about to end: a name is looked at up to `looks`
// times, 10 ms apart. Reads the environment for the runtime directory.
void CarryOutLastWill(int looks);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_LAST_WILL_H_
