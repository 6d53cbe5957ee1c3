// Whether anybody uses a Unix socket that another process listens on: what the
// system knows of it, without asking that process or watching it.
#ifndef ZCBROKER_IPC_SOCKET_USE_H_
#define ZCBROKER_IPC_SOCKET_USE_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"

namespace zcbroker::ipc {

// Connections to the socket at `endpoint`, those that wait to be accepted
// included, those that were and whose client has closed not. They are found by
// the socket's file, whichever of its names it was bound to, or by the name,
// where it was bound to that one. Who knows the file tells it, for it may be
// gone by now. Counts within this network namespace. Errors: by errno, where
// the system does not tell (no UNIX_DIAG).
absl::StatusOr<std::size_t> CountConnections(
    const Endpoint& endpoint,
    const absl::optional<FileIdentity>& file = absl::nullopt);

// Begins anew: WasConnectedTo tells what happens from now on. Changes the
// file's access time, which a connection changes, too. Errors: by errno,
// kNotFound where there is no such file; kUnimplemented on a file system that
// is mounted without access times.
absl::Status ForgetConnections(const Endpoint& endpoint);

// Has anybody connected since ForgetConnections? Errors: the same.
absl::StatusOr<bool> WasConnectedTo(const Endpoint& endpoint);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_SOCKET_USE_H_
