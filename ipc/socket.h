// Stream sockets of one machine, with one absolute deadline per operation.
// Every descriptor made here is nonblocking and close-on-exec.
//
// A deadline that has expired still allows one look without waiting, so an
// answer that is already there is not thrown away.
#ifndef ZCBROKER_IPC_SOCKET_H_
#define ZCBROKER_IPC_SOCKET_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

// Connects to a listening socket. Errors:
//   kNotFound            nothing has that name
//   kUnavailable         a socket nobody listens on
//   kPermissionDenied    its mode or a directory's forbids it
//   kDeadlineExceeded    its backlog stayed full
//   kFailedPrecondition  no socket, or not a stream socket
absl::StatusOr<UniqueFd> Connect(const Endpoint& endpoint, Deadline deadline);

// Writes all of `bytes`; never raises SIGPIPE. Errors: kAborted (the peer is
// gone), kDeadlineExceeded (part may have been written: the stream is only
// good for closing).
absl::Status WriteAll(const UniqueFd& fd, absl::string_view bytes,
                      Deadline deadline);

// Waits until the peer takes some of `bytes` (not empty) and returns how many
// it took. Errors: as above, but kDeadlineExceeded means that none were
// written.
absl::StatusOr<std::size_t> WriteSome(const UniqueFd& fd,
                                      absl::string_view bytes,
                                      Deadline deadline);

// Waits for bytes and reads at most `size` (over 0) of them; 0 means the peer
// finished. Errors: kAborted (the peer is gone, unread bytes are lost),
// kDeadlineExceeded (none came).
// A caller that loops must stop after one call past its deadline, or bytes
// that trickle in keep it here; ReadExactly does.
absl::StatusOr<std::size_t> ReadSome(const UniqueFd& fd, char* buffer,
                                     std::size_t size, Deadline deadline);

// Reads `size` bytes. Errors: kOutOfRange (the peer finished before the first),
// kDataLoss (it finished within them), kAborted and kDeadlineExceeded as
// above; what was read is lost.
absl::StatusOr<std::string> ReadExactly(const UniqueFd& fd, std::size_t size,
                                        Deadline deadline);

// Like ReadSome, but the bytes stay in the socket.
absl::StatusOr<std::size_t> Peek(const UniqueFd& fd, char* buffer,
                                 std::size_t size, Deadline deadline);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_SOCKET_H_
