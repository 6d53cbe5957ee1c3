// Which program a name stands for, leaving out the launcher itself: a
// directory of links named gcc, cc and so on may stand first in PATH.
#ifndef ZCBROKER_CLIENT_LAUNCHER_COMPILER_PATH_H_
#define ZCBROKER_CLIENT_LAUNCHER_COMPILER_PATH_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace zcbroker::client {

// The first executable of that name in `search_path` (the value of PATH) that
// is not this program or a copy of it. A name with a slash is taken as it is,
// unless it is this program: then the search is for its last component.
// Relative entries of PATH are as execvp(3) has them. kNotFound.
absl::StatusOr<std::string> FindCompiler(absl::string_view name,
                                         absl::string_view search_path);

// Whether two files are the same or hold the same bytes; false where either
// cannot be read.
bool SameProgram(const std::string& a, const std::string& b);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_COMPILER_PATH_H_
