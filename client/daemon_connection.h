// A connection to a zccache daemon, over any of its wire lanes.
// Source: spec zccache-ipc 2.2, 2.3, 3 and 4.7.
#ifndef ZCBROKER_CLIENT_DAEMON_CONNECTION_H_
#define ZCBROKER_CLIENT_DAEMON_CONNECTION_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ipc/deadline.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {

// What upstream's clients wait for a reply unless told otherwise, and for the
// reply to a version probe.
inline constexpr absl::Duration kDefaultReceiveTimeout = absl::Seconds(300);
inline constexpr absl::Duration kStatusProbeTimeout = absl::Seconds(2);

// One request at a time, answered in order. Move-only; not thread-safe: one
// thread at a time. Each call writes and reads under the one deadline it is
// given; bytes that trickle in do not extend it.
//
// Errors of every call but Receive:
//   kFailedPrecondition  the daemon answered Error; its words are the message
//   kResourceExhausted   the daemon answered Backpressure
//   kAborted             the connection ended or broke before the reply
//   kDeadlineExceeded    the reply did not come in time
//   kDataLoss            the connection ended within the reply, or the reply
//                        cannot be decoded or answers something else
//   kUnimplemented       the daemon speaks another version of this lane
//   kInvalidArgument     the request breaks a rule of its lane; nothing sent
// After any of kAborted, kDeadlineExceeded, kDataLoss and kUnimplemented the
// stream is only good for closing, and every later call fails with kAborted.
class DaemonConnection {
 public:
  // Takes a connected, nonblocking socket. `lane` is not kOpaque.
  DaemonConnection(ipc::UniqueFd socket, ipc::WireLane lane)
      : socket_(std::move(socket)), lane_(lane) {}

  ipc::WireLane lane() const { return lane_; }
  // From the next request on; lanes may be mixed on one connection.
  void set_lane(ipc::WireLane lane) { lane_ = lane; }

  absl::Status Ping(ipc::Deadline deadline);
  absl::StatusOr<zccache::v1::DaemonStatus> GetStatus(ipc::Deadline deadline);
  absl::StatusOr<zccache::v1::SessionStarted> StartSession(
      zccache::v1::SessionStart request, ipc::Deadline deadline);
  // Ending an unknown session is no error.
  absl::StatusOr<zccache::v1::SessionEnded> EndSession(
      absl::string_view session_id, ipc::Deadline deadline);
  // A compiler that fails is a result with its exit code, not an error.
  absl::StatusOr<zccache::v1::CompileResult> Compile(
      zccache::v1::Compile request, ipc::Deadline deadline);
  absl::StatusOr<zccache::v1::CompileResult> CompileEphemeral(
      zccache::v1::CompileEphemeral request, ipc::Deadline deadline);
  absl::StatusOr<zccache::v1::LinkResult> LinkEphemeral(
      zccache::v1::LinkEphemeral request, ipc::Deadline deadline);
  absl::StatusOr<zccache::v1::Cleared> Clear(ipc::Deadline deadline);
  // The daemon answers, then ends.
  absl::Status Shutdown(ipc::Deadline deadline);

  // Any request and its reply, Error and Backpressure included. Fills in the
  // canonical request id where `request` has none.
  absl::StatusOr<zccache::v1::Response> Call(zccache::v1::Request request,
                                             ipc::Deadline deadline);

  // The halves of Call. Receive gives nothing where the daemon finished
  // cleanly, with no byte of a reply begun.
  absl::Status Send(zccache::v1::Request request, ipc::Deadline deadline);
  absl::StatusOr<absl::optional<zccache::v1::Response>> Receive(
      ipc::Deadline deadline);

 private:
  absl::Status Break(absl::Status why);
  absl::StatusOr<zccache::v1::Response> CallFor(
      zccache::v1::Request request, zccache::v1::Response::BodyCase expected,
      ipc::Deadline deadline);

  ipc::UniqueFd socket_;
  ipc::WireLane lane_;
  absl::Status broken_;
  std::uint64_t last_frame_id_ = 0;  // FrameV1 counts from 1
  std::string buffer_;               // read, not yet decoded
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_DAEMON_CONNECTION_H_
