// Second names of a socket: hard links, which lead to it as its own name does
// and outlive whoever made them. Thread-safe.
#ifndef ZCBROKER_IPC_SOCKET_LINK_H_
#define ZCBROKER_IPC_SOCKET_LINK_H_

#include "absl/status/status.h"
#include "ipc/endpoint.h"

namespace zcbroker::ipc {

// Makes `name` lead to the socket `target`, with its missing directories (mode
// 0700). Where a file is there already it is replaced only if it is a socket on
// which nobody listens. Errors: kAlreadyExists (somebody listens there, or it
// is no socket), others by errno (no hard links on this file system).
absl::Status LinkSocket(const Endpoint& target, const Endpoint& name);

// The same in one step over whatever is there.
absl::Status LinkOver(const Endpoint& target, const Endpoint& name);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_SOCKET_LINK_H_
