#include "service/core/world.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace zcbroker::service {

std::vector<std::string> WorldDifferences(const v1::World& ours,
                                          const v1::World& theirs,
                                          v1::EndpointRule rule) {
  std::vector<std::string> differences;
  const auto compare = [&](absl::string_view what, const std::string& mine,
                           const std::string& other) {
    if (other.empty() || other == mine) return;
    differences.push_back(
        absl::StrCat(what, ": yours is ", other, ", the broker's is ", mine));
  };
  compare("mount namespace", ours.mount_namespace(), theirs.mount_namespace());
  if (rule == v1::ENDPOINT_RULE_ZCCACHE) {
    compare("cache directory", ours.cache_root(), theirs.cache_root());
    compare("daemon namespace", ours.daemon_namespace(),
            theirs.daemon_namespace());
  }
  return differences;
}

}  // namespace zcbroker::service
