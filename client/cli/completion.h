// Scripts that let a shell complete the command line, made from its own
// declaration, so that they cannot tell of options there are not.
#ifndef ZCBROKER_CLIENT_CLI_COMPLETION_H_
#define ZCBROKER_CLIENT_CLI_COMPLETION_H_

#include <string>

#include "absl/strings/string_view.h"

namespace CLI {
class App;
}  // namespace CLI

namespace zcbroker::cli {

// `shell` is "bash", "zsh" or "fish". Completes verbs and the long names of
// options, and leaves everything else to the shell, which knows files and
// commands. Verbs in no group are passed over.
std::string CompletionScript(const CLI::App& app, absl::string_view shell);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_COMPLETION_H_
