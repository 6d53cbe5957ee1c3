#include "service/core/world.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/wire/utf8.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::service {
namespace {

// A path may be as long as this.
constexpr size_t kMaxCacheRoot = 4095;

}  // namespace

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

absl::optional<v1::World> ServableWorld(const v1::World& ours,
                                        const v1::World& theirs) {
  v1::World world = theirs;
  if (world.cache_root().empty()) world.set_cache_root(ours.cache_root());
  if (world.daemon_namespace().empty()) {
    world.set_daemon_namespace(ours.daemon_namespace());
  }
  if (world.mount_namespace().empty()) {
    world.set_mount_namespace(ours.mount_namespace());
  }
  const std::string& root = world.cache_root();
  const bool plain =
      root.size() <= kMaxCacheRoot && absl::StartsWith(root, "/") &&
      std::none_of(root.begin(), root.end(), absl::ascii_iscntrl) &&
      // Journals, route infos and the answers of Admin could not carry it.
      ipc::IsUtf8(root) && ipc::LexicallyNormal(root, ipc::HostOs()) == root &&
      ipc::SanitizeNamespace(world.daemon_namespace()) ==
          world.daemon_namespace();
  if (!plain || world.mount_namespace() != ours.mount_namespace()) {
    return absl::nullopt;
  }
  return world;
}

}  // namespace zcbroker::service
