// The one request of a launcher: a compile with all that decides its result.
#ifndef ZCBROKER_CLIENT_LAUNCHER_COMPILE_REQUEST_H_
#define ZCBROKER_CLIENT_LAUNCHER_COMPILE_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/launcher/invocation.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {

struct CompileCall {
  std::string compiler;  // absolute
  std::vector<absl::string_view> args;
  std::string cwd;  // as getcwd(3) gives it
  // "NAME=value", in order; as in environ(7).
  std::vector<absl::string_view> environment;
  std::uint32_t pid = 0;
  // What changes when the compiler is replaced or written to.
  std::string compiler_stamp;
  // The bytes of the source and of the headers that are known.
  std::vector<absl::string_view> texts;
};

// A CompileEphemeral of `call`, which `invocation` judged fit.
//
// zccache 1.11.22 leaves out of its key, among others, -g, the spelling of the
// source (__FILE__), what decides a dependency file's text (-MT, -MMD, -o),
// the working directory, CPATH, the language of diagnostics and what Rust
// reads by env!: a hit then brings the result of another call (seen). So one
// more argument is sent, which no compiler acts on and every key holds:
// -idirafter, or --remap-path-prefix, with a path that does not exist and is a
// hash of all words, the working directory, the variables that count, and
// what is known of the files: a daemon takes some 50 ms to notice that a file
// was written, and never notices another compiler in the place of one, nor
// that a link or a directory now leads to other headers (seen). A cached
// result is the launcher's own, of this very call, in return.
//
// Error: kFailedPrecondition, with the reason: the environment or an argument
// cannot be sent as it is (not UTF-8, a name twice, an entry without '=', a
// variable such as DEPENDENCIES_OUTPUT).
absl::StatusOr<zccache::v1::Request> MakeCompileRequest(
    const CompileCall& call, const Invocation& invocation);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_COMPILE_REQUEST_H_
