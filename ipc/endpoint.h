// Where something listens: a Unix socket path or a Windows pipe name that was
// checked once, so that whoever holds an `Endpoint` need not check again.
// Source: spec broker-v1 section 3.3.
#ifndef ZCBROKER_IPC_ENDPOINT_H_
#define ZCBROKER_IPC_ENDPOINT_H_

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/os.h"

namespace zcbroker::ipc {

// The longest endpoint a system takes: 107 bytes on Linux and 103 on macOS
// (sun_path less its NUL), 260 characters on Windows, prefix included.
constexpr std::size_t MaxSocketPathBytes(Os os) {
  switch (os) {
    case Os::kLinux:
      return 107;
    case Os::kMacOs:
      return 103;
    case Os::kWindows:
      return 260;
  }
  return 0;
}

// "\\.\pipe\name" for both `\\.\pipe\name` (any case) and `name`. Takes off
// one prefix at most; whether the rest is a name is for Endpoint::Parse.
std::string CanonicalPipeName(absl::string_view name);

// A value: copies, compares by its canonical text.
class Endpoint {
 public:
  // Unix: an absolute path without NUL within the limit. Windows: a pipe name
  // with or without its prefix, no other backslash.
  // kInvalidArgument quotes the text and says what is wrong with it.
  static absl::StatusOr<Endpoint> Parse(absl::string_view text,
                                        Os os = HostOs());

  // The path, or the whole pipe name with its prefix.
  const std::string& path() const { return path_; }

  friend bool operator==(const Endpoint& a, const Endpoint& b) {
    return a.path_ == b.path_;
  }
  friend bool operator!=(const Endpoint& a, const Endpoint& b) {
    return !(a == b);
  }

 private:
  explicit Endpoint(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_ENDPOINT_H_
