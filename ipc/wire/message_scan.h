// What a relay has to know of zccache's messages without decoding them: where
// one ends, what is asked, and whether asking twice does harm. Works for every
// generation seen so far (bincode 15, 17, 18; prost 16, 19 to 26; FrameV1),
// since variants and fields are only ever added. No I/O; thread-safe.
// Source: spec zccache-ipc 3.1 to 3.4, 4.1; recordings of 1.15.8.
#ifndef ZCBROKER_IPC_WIRE_MESSAGE_SCAN_H_
#define ZCBROKER_IPC_WIRE_MESSAGE_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

// Where the message at the front of a buffer ends.
struct MessageExtent {
  enum class Kind {
    kNeedMore,     // fewer than kLaneDetectionBytes: feed more
    kMessage,      // `bytes` long, header included; maybe more than is there
    kNotAMessage,  // no length a zccache daemon would accept
  };
  Kind kind = Kind::kNeedMore;
  size_t bytes = 0;
};
MessageExtent MeasureMessage(absl::string_view buffer);

enum class RequestKind {
  kStatus,
  kShutdown,
  // Asked twice, the second answer is as good as the first: Ping, session start
  // and end, compile, link (but no archiver, which may add a member twice),
  // lookups.
  kRepeatable,
  // Everything else, known or not.
  kOther,
};

// A request as far as an answer in a daemon's place needs it.
struct RequestSummary {
  enum class Encoding { kBincode, kProst, kFrame };

  RequestKind kind = RequestKind::kOther;
  Encoding encoding = Encoding::kBincode;
  // The number in the header; with kFrame 0.
  uint32_t protocol = 0;
  // Echoed in answers.
  std::string request_id;
  uint64_t frame_request_id = 0;

  // May it be sent again to a daemon that has not seen it?
  bool repeatable() const {
    return kind == RequestKind::kRepeatable || kind == RequestKind::kStatus;
  }
};

// Of one whole message. What cannot be understood is kOther.
RequestSummary SummarizeRequest(absl::string_view message);

// Whether this whole message, sent in reply to a repeatable request, only tells
// how it is going: 1.15.8 sends one after 5 s of compiling (seen), and the
// reply itself follows. Every kind of message that 1.11.22 does not know is
// taken for one.
bool IsInterimReply(absl::string_view message);

// The bytes a daemon would answer. Shutdown: "shutting down".
std::string ShuttingDownReply(const RequestSummary& request);
// Status: of a daemon of this version that serves at `endpoint` from
// `cache_dir` and has done nothing yet; `daemon_namespace` is not empty. Empty
// where this generation's form is not known (bincode 17 and 18).
std::string FreshStatusReply(const RequestSummary& request,
                             absl::string_view version,
                             absl::string_view daemon_namespace,
                             absl::string_view endpoint,
                             absl::string_view cache_dir);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_MESSAGE_SCAN_H_
