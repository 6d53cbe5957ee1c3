// The grammars of service names and versions. Pure functions; any bytes may be
// passed in. Source: spec broker-v1 section 3.4.
#ifndef ZCBROKER_IPC_NAMES_H_
#define ZCBROKER_IPC_NAMES_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

inline constexpr std::size_t kMaxServiceNameBytes = 64;
inline constexpr std::size_t kMaxWantedVersionBytes = 64;

// 1 to 64 characters of a-z, 0-9 and '-'. Instance names follow the same rule.
bool IsServiceName(absl::string_view name);
// kInvalidArgument quotes the name, escaped and cut, and says the rule.
absl::Status CheckServiceName(absl::string_view name);

// digits.digits.digits, then optionally '-' and a non-empty tail of a-z, 0-9
// and '.'. Of any length: files may hold longer ones than requests.
bool IsVersion(absl::string_view version);
// The same, and at most 64 bytes: what a request may want. kInvalidArgument.
absl::Status CheckVersion(absl::string_view version);

// Negative, zero or positive as `a` is older than, as old as or newer than
// `b`. Numbers of any size are compared as numbers; a version with a tail is
// older than the one without; tails are compared part by part, numbers as
// numbers and below words. What is no version is older than any that is, and
// compared as text.
int CompareVersions(absl::string_view a, absl::string_view b);

// `text` as printable ASCII of at most `max_bytes` bytes, for messages: other
// bytes as \xNN, and "..." where it was cut.
std::string Printable(absl::string_view text, std::size_t max_bytes = 64);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_NAMES_H_
