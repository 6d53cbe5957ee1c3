// Packets between two processes of one user, each with at most one descriptor
// attached (SCM_RIGHTS), over a pair of connected sockets that keep packets
// apart (SOCK_SEQPACKET). Nothing here waits but AwaitPacket.
#ifndef ZCBROKER_IPC_FD_PASSING_H_
#define ZCBROKER_IPC_FD_PASSING_H_

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/deadline.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

// A longer one is refused by both ends.
inline constexpr std::size_t kMaxPacketBytes = 256;

// Two connected ends, nonblocking and close-on-exec.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> PacketSocketPair();

// Takes over an inherited end and makes it nonblocking and close-on-exec.
// kInvalidArgument unless it is a connected Unix packet socket; the
// descriptor is then left alone, since it may be somebody else's.
absl::StatusOr<UniqueFd> AdoptPacketSocket(int fd);

// Sends one packet, with a duplicate of `attached` unless that is negative;
// `attached` stays the caller's. Errors: kUnavailable (no room now, try again
// when writable), kAborted (the peer is gone), kInvalidArgument (empty or
// longer than kMaxPacketBytes), kResourceExhausted (out of memory or
// descriptors).
absl::Status SendPacket(const UniqueFd& fd, absl::string_view bytes,
                        int attached);

struct Packet {
  std::string bytes;
  UniqueFd attached;  // close-on-exec; none where none was sent
};

// The next packet, or nothing if none waits. Errors: kAborted (the peer is
// gone and all it had sent is read), kDataLoss (a packet too long, with more
// than one descriptor, or whose descriptor did not fit in this process; it is
// dropped, and its descriptors are closed), others by errno.
absl::StatusOr<absl::optional<Packet>> ReceivePacket(const UniqueFd& fd);

// Until a packet or the peer's end waits. kDeadlineExceeded.
absl::Status AwaitPacket(const UniqueFd& fd, Deadline deadline);

// The same open file under another number, close-on-exec. kResourceExhausted.
absl::StatusOr<UniqueFd> Duplicate(int fd);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_FD_PASSING_H_
