// One request, one reply, however long the compiler takes: waiting has no
// limit, and only a daemon that is found wedged ends it.
#ifndef ZCBROKER_CLIENT_LAUNCHER_EXCHANGE_H_
#define ZCBROKER_CLIENT_LAUNCHER_EXCHANGE_H_

#include <functional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/endpoint.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {

struct Patience {
  // Silence before the daemon is pinged, and between pings.
  absl::Duration silence = absl::Seconds(1);
  // How long a ping may take.
  absl::Duration ping = absl::Seconds(1);
};

// Asked whenever the daemon did not answer a ping: true where it is gone, with
// all that it had started.
using IsGone = std::function<bool()>;

// Sends `request` over the connected socket `fd` and waits for the reply;
// pings go to `endpoint` on connections of their own. Errors:
//   kInvalidArgument  the request cannot be sent on this lane; nothing was
//   kAborted          the connection ended before a whole reply
//   kUnavailable      `is_gone` said so
//   kDataLoss         the reply cannot be understood
absl::StatusOr<zccache::v1::Response> Exchange(
    const ipc::UniqueFd& fd, const ipc::Endpoint& endpoint, ipc::WireLane lane,
    const zccache::v1::Request& request, const IsGone& is_gone,
    const Patience& patience = {});

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_EXCHANGE_H_
