#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/peer_identity.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {

absl::StatusOr<PeerIdentity> PeerOf(const UniqueFd& fd) {
  ucred credentials = {};
  socklen_t size = sizeof(credentials);
  const bool known =
      getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0;
  // Of a socket without a peer the kernel gives pid 0 and uid -1.
  if (!known || credentials.uid == static_cast<uid_t>(-1)) {
    return absl::FailedPreconditionError(
        "peer credentials: not a connected Unix socket");
  }
  return PeerIdentity{credentials.uid, credentials.gid, credentials.pid};
}

absl::Status CheckPeerIsUs(const UniqueFd& fd) {
  return CheckPeerIsOurProcess(fd, 0);
}

absl::Status CheckPeerIsOurProcess(const UniqueFd& fd, int pid) {
  ZCB_ASSIGN_OR_RETURN(const PeerIdentity peer, PeerOf(fd));
  if (peer.uid != geteuid()) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the other end belongs to uid ", peer.uid, ", not to ", geteuid()));
  }
  if (pid == 0 || peer.pid == 0 || peer.pid == pid) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the other end is process ", peer.pid, ", not process ", pid));
}

}  // namespace zcbroker::ipc
