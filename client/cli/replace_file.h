// Writing a file so that nobody ever sees half of it.
#ifndef ZCBROKER_CLIENT_CLI_REPLACE_FILE_H_
#define ZCBROKER_CLIENT_CLI_REPLACE_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace zcbroker::cli {

// Replaces `file` in one step, by a temporary file beside it and a rename. What
// is written may be read by whoever could read the file before, and by its
// owner alone where there was none. Errors by errno.
absl::Status ReplaceFile(const std::string& file, absl::string_view text);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_REPLACE_FILE_H_
