// Reading service definitions: text of ours, bytes of upstream's, and the one
// that is built in. Pure: files are read by service/host/catalog_loader.
#ifndef ZCBROKER_SERVICE_CORE_DEFINITION_H_
#define ZCBROKER_SERVICE_CORE_DEFINITION_H_

#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "google/protobuf/duration.pb.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::service {

// docs/operations.md, "Limits".
inline constexpr int kMaxBinaries = 64;
inline constexpr int kMaxArguments = 256;

// A definition, or why there is none.
struct ParsedDefinition {
  absl::optional<v1::ServiceDefinition> definition;
  // Empty with a definition; else every mistake, with file, line and column.
  std::vector<v1::Problem> problems;
  // The fields that the text sets itself.
  std::set<std::string> set_fields;
  // Upstream's files only: the versions that may be asked for.
  std::vector<std::string> allowed_versions;
};

// `text` in protobuf text format, read from `file`, which must define the
// service `name`. Fields left out are filled with defaults, for "zccache" with
// the built-in definition's.
ParsedDefinition ParseDefinition(absl::string_view text, absl::string_view file,
                                 absl::string_view name);

// The bytes of upstream's `<name>.servicedef` (spec broker-v1 section 4). Its
// version is the single entry of its allow list; any other number of entries
// is a problem, since the version may not be guessed from a request.
ParsedDefinition ParseUpstreamDefinition(absl::string_view bytes,
                                         absl::string_view file,
                                         absl::string_view name);

// zccache, without binaries.
const v1::ServiceDefinition& BuiltInZccache();

// A time after which a backend may be stopped for want of use: 0 s (never), or
// from 1 s to 30 days.
bool IsIdleStop(const google::protobuf::Duration& duration);

// The best lane first: the binary's, else the definition's, else for zccache
// what its generation speaks, else OPAQUE.
std::vector<v1::WireLane> LanesOf(const v1::ServiceDefinition& definition,
                                  const v1::Binary& binary,
                                  absl::string_view version);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_DEFINITION_H_
