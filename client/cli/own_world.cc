#include "client/cli/own_world.h"

#include <limits.h>
#include <unistd.h>

#include "ipc/environment.h"
#include "ipc/process.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::cli {

std::string WorkingDirectory() {
  char path[PATH_MAX];
  return getcwd(path, sizeof(path)) != nullptr ? path : "/";
}

client::World OwnWorld() {
  client::World world;
  const ipc::ZccacheWorld zccache = ipc::ResolveZccacheWorld(
      ipc::ZccacheInputs{ipc::HostEnvironment(), WorkingDirectory()});
  world.cache_root = zccache.cache_root;
  world.daemon_namespace = zccache.daemon_namespace;
  world.mount_namespace = ipc::OwnMountNamespace().value_or("");
  return world;
}

client::NegotiationRequest OwnRequest(const std::string& service,
                                      const std::string& version) {
  client::NegotiationRequest request;
  request.service = service;
  request.wanted_version = version;
  request.client_name = "zcbroker";
  request.world = OwnWorld();
  request.traceparent = ipc::HostEnvironment()("TRACEPARENT").value_or("");
  return request;
}

}  // namespace zcbroker::cli
