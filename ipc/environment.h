// The environment as an argument, so that a rule that reads it is a function
// of its inputs and a test can see which variables were read.
#ifndef ZCBROKER_IPC_ENVIRONMENT_H_
#define ZCBROKER_IPC_ENVIRONMENT_H_

#include <cstdlib>
#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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

// What stands for the home of a user who has none: nobody's directory.
inline constexpr char kNoHome[] = "/nonexistent";

// $`variable` where it is absolute, else `fallback` in $HOME, else in kNoHome
// (XDG Base Directory Specification, "Environment variables").
inline std::string BaseDirectory(const EnvironmentLookup& environment,
                                 absl::string_view variable,
                                 absl::string_view fallback) {
  const absl::optional<std::string> set = environment(variable);
  if (set.has_value() && absl::StartsWith(*set, "/")) return *set;
  const absl::optional<std::string> home = environment("HOME");
  return absl::StrCat(home.has_value() && !home->empty() ? *home : kNoHome, "/",
                      fallback);
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_ENVIRONMENT_H_
