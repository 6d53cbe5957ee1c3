// W3C Trace Context, level 1: which distributed trace a caller is part of. The
// broker makes no spans of its own; it keeps what it is told.
#ifndef ZCBROKER_SERVICE_CORE_TRACE_CONTEXT_H_
#define ZCBROKER_SERVICE_CORE_TRACE_CONTEXT_H_

#include "absl/strings/string_view.h"

namespace zcbroker::service {

// The name of the header, and of gRPC's metadata.
inline constexpr char kTraceparentHeader[] = "traceparent";
// Where a started process finds it.
inline constexpr char kTraceparentVariable[] = "TRACEPARENT";

// Is it version-traceid-parentid-flags: 2, 32, 16 and 2 lower-case hexadecimal
// digits, ids not zero, version not ff? What later versions may append to that
// is taken for malformed, so that what passes has 55 harmless characters.
bool IsTraceparent(absl::string_view text);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_TRACE_CONTEXT_H_
