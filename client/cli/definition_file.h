// Writing service definitions: what `zcbroker service add` does.
#ifndef ZCBROKER_CLIENT_CLI_DEFINITION_FILE_H_
#define ZCBROKER_CLIENT_CLI_DEFINITION_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::cli {

// What a command line says about a service.
struct ServiceChange {
  std::string name;
  std::string binary;              // made absolute
  std::string version;             // empty: the broker asks the binary
  std::vector<std::string> args;   // empty: as they are
  std::vector<std::string> env;    // NAME=VALUE; added, or replaced by name
  std::string probe;               // empty, connect, zccache-ping, identity
  std::vector<std::string> lanes;  // bincode-v15, prost-v16, frame-v1, opaque
};

// `definition` with the change made: a binary whose path or version is there
// already is replaced, another one is added. kInvalidArgument says which part
// of the change makes no sense.
absl::Status ApplyChange(const ServiceChange& change,
                         v1::ServiceDefinition* definition);

struct DefinitionFile {
  v1::ServiceDefinition definition;
  // As it stands there; nothing where there is no file.
  absl::optional<std::string> text;
  // Not as WriteDefinition would have written it: it has comments, say.
  bool by_hand = false;
};

// The definition in `file`; an empty one with `name` where there is no file.
// kInvalidArgument with line and column where it cannot be read as one.
absl::StatusOr<DefinitionFile> ReadDefinition(const std::string& file,
                                              const std::string& name);

// Holds the directory of definitions against other `service add`s until the
// handle goes; makes it with mode 0700 where it is missing. Errors by errno.
absl::StatusOr<ipc::UniqueFd> LockDefinitions(const std::string& directory);

// Replaces `file`, or what it is a symbolic link to, in one step; makes missing
// directories with mode 0700. Errors by errno.
absl::Status WriteDefinition(const std::string& file,
                             const v1::ServiceDefinition& definition);
absl::Status WriteDefinitionText(const std::string& file,
                                 const std::string& text);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_DEFINITION_FILE_H_
