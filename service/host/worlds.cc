#include "service/host/worlds.h"

#include <limits.h>
#include <unistd.h>

#include <map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "ipc/process.h"
#include "ipc/zccache_rules.h"
#include "service/host/descriptors.h"

namespace zcbroker::service {
namespace {

constexpr char kUnreadable[] = "unreadable";

std::string WorkingDirectory(int pid) {
  char target[PATH_MAX];
  const ssize_t n = readlink(absl::StrCat("/proc/", pid, "/cwd").c_str(),
                             target, sizeof(target));
  return n > 0 ? std::string(target, static_cast<size_t>(n)) : std::string();
}

v1::World Resolve(const ipc::EnvironmentLookup& environment,
                  const std::string& cwd,
                  const absl::StatusOr<std::string>& mount_namespace) {
  const ipc::ZccacheWorld zccache =
      ipc::ResolveZccacheWorld(ipc::ZccacheInputs{environment, cwd});
  v1::World world;
  world.set_cache_root(zccache.cache_root);
  world.set_daemon_namespace(zccache.daemon_namespace);
  world.set_mount_namespace(mount_namespace.value_or(kUnreadable));
  return world;
}

}  // namespace

v1::World OwnWorld(const ipc::EnvironmentLookup& environment,
                   const std::string& cwd) {
  return Resolve(environment, cwd, ipc::OwnMountNamespace());
}

Surroundings SurroundingsOf(const v1::World& world, const Surroundings& own) {
  Surroundings around;
  around.backends_dir = own.backends_dir;
  around.world = world;
  around.other_world =
      ipc::ZccacheWorldId({world.cache_root(), world.daemon_namespace()});
  around.log_dir = absl::StrCat(own.log_dir, "/", around.other_world);
  around.cwd = own.cwd;
  around.is_public_name = own.is_public_name;
  around.environment = own.environment;
  auto& environment = around.environment;
  environment.erase("ZCCACHE_CACHE_DIR");
  environment.erase("ZCCACHE_DAEMON_NAMESPACE");
  const auto lookup =
      [&](absl::string_view name) -> absl::optional<std::string> {
    const auto found = environment.find(std::string(name));
    if (found == environment.end()) return absl::nullopt;
    return found->second;
  };
  const ipc::ZccacheWorld usual =
      ipc::ResolveZccacheWorld({lookup, around.cwd});
  // Where the cache is the usual one its clients' environment most likely says
  // nothing about it, and then they look elsewhere for its daemon.
  if (world.cache_root() != usual.cache_root) {
    environment["ZCCACHE_CACHE_DIR"] = world.cache_root();
  }
  if (world.daemon_namespace() != usual.daemon_namespace) {
    environment["ZCCACHE_DAEMON_NAMESPACE"] = world.daemon_namespace();
  }
  return around;
}

v1::World WorldOfProcess(int pid) {
  absl::StatusOr<std::map<std::string, std::string>> variables =
      ipc::ReadEnvironment(pid, ipc::ZccacheWorldVariables());
  if (absl::IsResourceExhausted(variables.status())) {
    const DescriptorLoan loan;
    variables = ipc::ReadEnvironment(pid, ipc::ZccacheWorldVariables());
  }
  if (!variables.ok()) {
    v1::World unreadable;
    unreadable.set_cache_root(kUnreadable);
    unreadable.set_daemon_namespace(kUnreadable);
    unreadable.set_mount_namespace(kUnreadable);
    return unreadable;
  }
  const auto lookup =
      [&](absl::string_view name) -> absl::optional<std::string> {
    const auto found = variables->find(std::string(name));
    if (found == variables->end()) return absl::nullopt;
    return found->second;
  };
  // Only a relative cache root needs the working directory.
  const auto root = variables->find("ZCCACHE_CACHE_DIR");
  const bool relative = root != variables->end() && !root->second.empty() &&
                        root->second[0] != '/';
  return Resolve(lookup, relative ? WorkingDirectory(pid) : std::string(),
                 ipc::MountNamespace(pid));
}

}  // namespace zcbroker::service
