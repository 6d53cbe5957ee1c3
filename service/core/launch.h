// What is executed to start a backend: program, arguments, environment. Pure.
#ifndef ZCBROKER_SERVICE_CORE_LAUNCH_H_
#define ZCBROKER_SERVICE_CORE_LAUNCH_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/core/start_plan.h"

namespace zcbroker::service {

// The values of the placeholders {endpoint}, {version} and {log_file}.
struct Placeholders {
  std::string endpoint;
  std::string version;
  std::string log_file;
};

// `text` with its placeholders replaced; {{ and }} stand for braces.
// Errors: kInvalidArgument for an unknown placeholder or a lone brace.
absl::StatusOr<std::string> ExpandTemplate(absl::string_view text,
                                           const Placeholders& values);

struct LaunchSpec {
  std::string binary;
  std::vector<std::string> argv;  // argv[0] included
  std::vector<std::string> env;   // NAME=VALUE, sorted by name
};

// `broker_env` is the broker's own environment; of it only what the allow list
// names reaches the backend (docs/operations.md, "Environment of a backend").
// The plan's traceparent is TRACEPARENT. The definition's own variables win.
// `plan` comes from a parsed definition.
LaunchSpec MakeLaunchSpec(const StartPlan& plan, const Placeholders& values,
                          const std::map<std::string, std::string>& broker_env);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_LAUNCH_H_
