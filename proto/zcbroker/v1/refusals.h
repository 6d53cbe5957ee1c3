// The one table of refusals: what each is called, which gRPC code and framed
// v1 code carries it, whether trying again can help, and with which status a
// command line program that met it exits. docs/protocol.md repeats it for
// people; a test keeps the two equal.
#ifndef ZCBROKER_PROTO_ZCBROKER_V1_REFUSALS_H_
#define ZCBROKER_PROTO_ZCBROKER_V1_REFUSALS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/zcbroker/v1/errors.pb.h"

namespace zcbroker {

enum class Retry { kNo, kAfterDelay };

struct RefusalTraits {
  v1::Refusal refusal;
  // The enumerator without its prefix: the `reason` of ErrorInfo.
  absl::string_view name;
  absl::StatusCode code;
  // ErrorCode of running_process.broker.v1.Refused; 0 where none is ever sent.
  uint32_t framed_code;
  Retry retry;
  int exit_status;
};

// Every refusal but UNSPECIFIED, in the order of their numbers.
absl::Span<const RefusalTraits> Refusals();

// The row of `refusal`; `refusal` must be one of the table's.
const RefusalTraits& TraitsOf(v1::Refusal refusal);

// The row called `name` ("SERVICE_UNKNOWN"), or nullptr.
const RefusalTraits* FindRefusal(absl::string_view name);

// The ErrorInfo domain of all our refusals.
inline constexpr char kErrorDomain[] = "zcbroker";

}  // namespace zcbroker

#endif  // ZCBROKER_PROTO_ZCBROKER_V1_REFUSALS_H_
