// The rules of the zccache schema that proto3 cannot express: which fields are
// required, which enum values exist, how long a tool hash is. No I/O;
// thread-safe. Source: spec zccache-ipc 4.3.
#ifndef ZCBROKER_IPC_WIRE_CONTENT_CHECK_H_
#define ZCBROKER_IPC_WIRE_CONTENT_CHECK_H_

#include "absl/status/status.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {

// A parsed message's strings are known to be UTF-8; a message built by hand
// has them verified before it is sent.
enum class TextOrigin { kParsed, kUnverified };

// Error: kInvalidArgument, in the words a zccache daemon answers with, such as
// "missing required v16 prost field Compile.cwd".
absl::Status CheckContent(const zccache::v1::Request& request,
                          TextOrigin origin);
absl::Status CheckContent(const zccache::v1::Response& response,
                          TextOrigin origin);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_CONTENT_CHECK_H_
