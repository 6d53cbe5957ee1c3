// What a backend finds at the start of a connection. The identity probe is
// recognised only there; everything else is for DecodeRequest. No I/O;
// thread-safe. Source: spec zccache-ipc 3.3 and 6.4.
#ifndef ZCBROKER_IPC_WIRE_FIRST_MESSAGE_H_
#define ZCBROKER_IPC_WIRE_FIRST_MESSAGE_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {

struct FirstMessage {
  enum class Kind {
    kNeedMore,       // feed more: needed_bytes in all
    kRequest,        // hand the buffer to DecodeRequest, from now on always
    kIdentityProbe,  // answer `probe` (identity_probe.h), then close
    kRejected,       // close without an answer; `error` says why
  };

  Kind kind = Kind::kNeedMore;
  size_t needed_bytes = 0;
  // A valid probe request, with kIdentityProbe.
  running_process::broker::v1::Frame probe;
  // kInvalidArgument with kRejected (oversize, malformed, or a Frame for
  // somebody else, such as a broker's Hello), else OK.
  absl::Status error;
};

FirstMessage DetectFirstMessage(absl::string_view buffer);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_FIRST_MESSAGE_H_
