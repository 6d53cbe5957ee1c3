// Asking whoever listens at an endpoint whether it serves, without waiting on
// the loop's thread.
#ifndef ZCBROKER_SERVICE_HOST_PROBER_H_
#define ZCBROKER_SERVICE_HOST_PROBER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "asio/io_context.hpp"
#include "ipc/endpoint.h"
#include "ipc/process.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::service {

// Who answered.
struct Probed {
  // The process that listens there (SO_PEERCRED: who called listen).
  ipc::ProcessIdentity process;
  // What it calls its version; empty where the probe does not tell.
  std::string version;
};

// One probe. Destroying the handle cancels it: `done` is not called then.
class ProbeHandle {
 public:
  virtual ~ProbeHandle() = default;
};

// Connects, asks as `probe` says, and calls `done` once from the loop, never
// before this call returns. One deadline of `patience` covers all of it.
//
// Errors: kNotFound (nothing has that name), kUnavailable (a socket nobody
// listens on), kDeadlineExceeded (it does not answer), kAborted (it hung up),
// kPermissionDenied (another user's), kDataLoss (its answer makes no sense),
// kAlreadyExists (the name is another broker's: what answers there is its
// relay, and its process is nobody's backend), kFailedPrecondition (no socket).
[[nodiscard]] std::unique_ptr<ProbeHandle> StartProbe(
    asio::io_context& loop, const ipc::Endpoint& endpoint, v1::Probe probe,
    std::chrono::milliseconds patience,
    std::function<void(absl::StatusOr<Probed>)> done);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_PROBER_H_
