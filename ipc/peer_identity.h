// Who is at the other end of a connected Unix socket, as the kernel recorded
// it when the connection was made (for a listener: when it began to listen).
#ifndef ZCBROKER_IPC_PEER_IDENTITY_H_
#define ZCBROKER_IPC_PEER_IDENTITY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

// The uid can be relied on. The pid is a hint: that process may have handed
// the socket on or be gone, and its number may be another's by now; 0 where it
// is in another pid namespace.
struct PeerIdentity {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  int pid = 0;
};

// kFailedPrecondition where `fd` is no connected Unix socket.
absl::StatusOr<PeerIdentity> PeerOf(const UniqueFd& fd);

// OK if the peer's uid is this process's effective uid; kPermissionDenied
// names the other's uid; kFailedPrecondition as above.
absl::Status CheckPeerIsUs(const UniqueFd& fd);

// The same, and that it is the process `pid`: kFailedPrecondition where another
// one began to listen (or connected). 0 on either side is not compared.
absl::Status CheckPeerIsOurProcess(const UniqueFd& fd, int pid);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_PEER_IDENTITY_H_
