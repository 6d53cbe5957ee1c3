#include "ipc/endpoint.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/names.h"

namespace zcbroker::ipc {
namespace {

constexpr absl::string_view kPipePrefix = "\\\\.\\pipe\\";

absl::Status Bad(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("endpoint \"", Printable(text, 160), "\" ", why));
}

}  // namespace

std::string CanonicalPipeName(absl::string_view name) {
  if (absl::StartsWithIgnoreCase(name, kPipePrefix)) {
    name.remove_prefix(kPipePrefix.size());
  }
  return absl::StrCat(kPipePrefix, name);
}

absl::StatusOr<Endpoint> Endpoint::Parse(absl::string_view text, Os os) {
  if (text.find('\0') != absl::string_view::npos) {
    return Bad(text, "contains a NUL byte");
  }
  std::string path(text);
  if (os == Os::kWindows) {
    path = CanonicalPipeName(text);
    const absl::string_view name =
        absl::string_view(path).substr(kPipePrefix.size());
    if (name.empty()) return Bad(text, "names no pipe");
    if (absl::StrContains(name, "\\")) {
      return Bad(text, "has a backslash in the pipe's name");
    }
  } else if (!absl::StartsWith(text, "/")) {
    return Bad(text, "is no absolute path");
  }
  const std::size_t limit = MaxSocketPathBytes(os);
  if (path.size() > limit) {
    return Bad(text,
               absl::StrCat("is ", path.size(), " bytes long; sockets ",
                            "here allow ", limit, "; use a shorter directory"));
  }
  return Endpoint(std::move(path));
}

}  // namespace zcbroker::ipc
