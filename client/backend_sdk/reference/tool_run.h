// Runs a compiler or linker the way a zccache daemon does and waits for it.
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_TOOL_RUN_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_TOOL_RUN_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"

namespace zcbroker::client {

struct ToolCommand {
  // With a slash: this file, relative to cwd. Without: looked up on the PATH of
  // the environment below.
  std::string tool;
  std::vector<std::string> args;
  std::string cwd;
  // Absent: our own. MAKEFLAGS and CARGO_MAKEFLAGS are never passed on, since
  // the job server they name is not reachable from here.
  absl::optional<std::vector<std::pair<std::string, std::string>>> env;
  // Empty: the tool reads end of file.
  std::string stdin_data;
};

struct ToolResult {
  // The exit status; -1 when a signal ended it.
  int exit_code = 0;
  std::string stdout_data;
  std::string stderr_data;
};

// Waits without limit. Output goes through memory files, so a descendant that
// outlives the tool delays nothing. Thread-safe.
// Errors: kNotFound (no such tool or directory), kPermissionDenied, others by
// errno.
absl::StatusOr<ToolResult> RunTool(const ToolCommand& command);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_TOOL_RUN_H_
