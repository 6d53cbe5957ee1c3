// What this process answers to an identity probe.
// Source: spec broker-v1 6.7.
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_OWN_IDENTITY_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_OWN_IDENTITY_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {

// Reads and hashes (BLAKE3) the executable, some milliseconds of work.
// `namespace_id`, `endpoint` and `started` are reported as given. Errors: by
// errno, where /proc or the executable cannot be read.
absl::StatusOr<running_process::broker::v1::DaemonProcess> DescribeOwnProcess(
    const std::string& namespace_id, const std::string& endpoint,
    absl::Time started);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_OWN_IDENTITY_H_
