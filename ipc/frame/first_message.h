// What a backend finds at the start of a connection, whatever its own protocol
// is: the identity probe is recognised only there. No I/O; thread-safe.
// Source: spec zccache-ipc 6.4.
#ifndef ZCBROKER_IPC_FRAME_FIRST_MESSAGE_H_
#define ZCBROKER_IPC_FRAME_FIRST_MESSAGE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {

// A frame with a longer body is no probe. One has some 50 bytes, and its trace
// context.
inline constexpr uint32_t kMaxProbeBodyBytes = 4096;

struct FirstMessage {
  enum class Kind {
    kNeedMore,       // feed more
    kIdentityProbe,  // answer `probe` (identity_probe.h), then close
    kOther,          // the backend's own
  };

  Kind kind = Kind::kOther;
  // A valid probe request, with kIdentityProbe.
  running_process::broker::v1::Frame probe;
};

// Waits for nothing that does not begin with byte 1, and for no more than a
// whole frame of that size.
FirstMessage DetectFirstMessage(absl::string_view buffer);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_FRAME_FIRST_MESSAGE_H_
