// The managed policy: reading it, and putting it over what users have set.
// Pure: service/host/catalog_loader reads the file and decides whom to trust.
#ifndef ZCBROKER_SERVICE_CORE_POLICY_H_
#define ZCBROKER_SERVICE_CORE_POLICY_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/policy.pb.h"
#include "service/core/catalog.h"

namespace zcbroker::service {

// A policy, or why there is none.
struct ParsedPolicy {
  absl::optional<v1::Policy> policy;
  // Empty with a policy; else every mistake, with file, line and column.
  std::vector<v1::Problem> problems;
};

// `text` in protobuf text format, read from `file`.
ParsedPolicy ParsePolicy(absl::string_view text, absl::string_view file);

// Puts `policy`, which ParsePolicy gave for `file`, over what the definitions
// in `catalog` say, and fills in its rules about versions.
void ApplyPolicy(const v1::Policy& policy, const std::string& file,
                 Catalog* catalog);

// What is in force with `catalog`, to which `policy` of `file` was applied
// (both empty where there is none), and who set each value.
std::vector<v1::Setting> EffectiveSettings(const v1::Policy& policy,
                                           const std::string& file,
                                           const Catalog& catalog);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_POLICY_H_
