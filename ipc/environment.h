// The environment as an argument, so that a rule that reads it is a function
// of its inputs and a test can see which variables were read.
#ifndef ZCBROKER_IPC_ENVIRONMENT_H_
#define ZCBROKER_IPC_ENVIRONMENT_H_

#include <cstdlib>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace zcbroker::ipc {

// The value of a variable, or nothing where it is not set; a variable set to
// the empty string is set.
using EnvironmentLookup =
    std::function<absl::optional<std::string>(absl::string_view name)>;

// This process's own. Not safe while another thread calls setenv.
inline EnvironmentLookup HostEnvironment() {
  return [](absl::string_view name) -> absl::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    if (value == nullptr) return absl::nullopt;
    return std::string(value);
  };
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_ENVIRONMENT_H_
