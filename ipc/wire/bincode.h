// bincode v15: the payloads of the oldest wire lane. Fixed-width little-endian
// integers, u64 lengths, no tags; enums are variant indices. No I/O;
// thread-safe. Source: spec zccache-ipc 3.2 and 4.4 to 4.6.
//
// A payload carries no request_id: decoding leaves it empty. Paths are kept
// byte for byte; the lexical normalisation a zccache daemon applies to them is
// not applied here.
#ifndef ZCBROKER_IPC_WIRE_BINCODE_H_
#define ZCBROKER_IPC_WIRE_BINCODE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {

// Appends the payload of `message` to `out`.
// REQUIRES: CheckContent(message, TextOrigin::kUnverified) is OK.
void AppendBincode(const zccache::v1::Request& message, std::string* out);
void AppendBincode(const zccache::v1::Response& message, std::string* out);

// Decodes a payload. A count is compared with the bytes that are left before
// anything is allocated for it, so memory stays in proportion to the input.
// Bytes after the value are ignored, as the daemon ignores them.
// Error: kInvalidArgument (cut short, unknown variant, a bool or option byte
// other than 0 and 1, text that is not UTF-8), naming the offset.
absl::StatusOr<zccache::v1::Request> DecodeBincodeRequest(
    absl::string_view payload);
absl::StatusOr<zccache::v1::Response> DecodeBincodeResponse(
    absl::string_view payload);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_BINCODE_H_
