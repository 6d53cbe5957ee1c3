// Asking a binary for its version: `<binary> --version`.
#ifndef ZCBROKER_SERVICE_HOST_VERSION_COMMAND_H_
#define ZCBROKER_SERVICE_HOST_VERSION_COMMAND_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "asio/io_context.hpp"
#include "service/host/reaper.h"

namespace zcbroker::service {

// The first word of `output` that is a version; kNotFound where none is.
absl::StatusOr<std::string> FirstVersionIn(absl::string_view output);

// Runs the command on the loop and calls `done` once, with the first word on
// its standard output that is a version. 2 s; exit status 0; what comes after
// 4 KiB is not read. Its process group is ended when time is up.
//
// Errors: as Spawn(); kDeadlineExceeded; kFailedPrecondition (other exit
// status); kNotFound (no version in its output).
void RunVersionCommand(asio::io_context& loop, Reaper& reaper,
                       const std::string& binary,
                       const std::vector<std::string>& env,
                       std::function<void(absl::StatusOr<std::string>)> done);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_VERSION_COMMAND_H_
