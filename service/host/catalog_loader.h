// Reads the policy and definitions, and looks at the binaries they name.
#ifndef ZCBROKER_SERVICE_HOST_CATALOG_LOADER_H_
#define ZCBROKER_SERVICE_HOST_CATALOG_LOADER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "proto/zcbroker/v1/policy.pb.h"
#include "service/core/catalog.h"
#include "service/core/definition.h"
#include "service/core/policy.h"
#include "service/host/reaper.h"

namespace zcbroker::service {

struct DefinitionSources {
  // Ours: *.textproto.
  std::string services_dir;
  // Upstream's: *.servicedef.
  std::string upstream_dir;
  // Searched for the built-in zccache's daemon, as a shell would.
  std::string path;
  // Environment of version commands, NAME=VALUE.
  std::vector<std::string> environment;
  // The managed policy; where it or its directory is not there, none.
  std::string policy_file = "/etc/zcbroker/policy.textproto";
  // Besides root, whose it may be: ours, where we were told of another file
  // than the administrator's.
  absl::optional<uint32_t> policy_owner;
};

// Lives on the loop's thread. Files are read on a thread of its own, which
// ends with each load: a home directory may be on a slow file system.
class CatalogLoader {
 public:
  CatalogLoader(asio::io_context& loop, Reaper& reaper,
                DefinitionSources sources);
  ~CatalogLoader();

  // Calls `done` once from the loop. A load asked for while one is under way
  // begins after it. A file with a mistake keeps its last good form in force;
  // while the policy is such a file, nothing new is started.
  void Load(std::function<void(Catalog)> done);

 private:
  struct Source {
    std::string name;
    std::string source;
    ParsedDefinition parsed;
  };
  struct Reading {
    ParsedPolicy policy;
    // It is a file's, not the empty one.
    bool has_policy = false;
    std::vector<Source> sources;
    // What is neither of the policy nor of one of the sources.
    std::vector<v1::Problem> problems;
    // Directories of definitions that could not be read.
    std::vector<std::string> unread;
  };
  struct Loading;

  // `last_policy` counts where that in the file is none.
  static Reading ReadAll(const DefinitionSources& sources,
                         const v1::Policy& last_policy);
  void Begin();
  void Resolve(Reading reading);
  // Keeps in force what an earlier reading found there.
  void GoOnWith(const std::string& directory, Reading* reading);
  void AskVersions(const std::shared_ptr<Loading>& loading);
  void Finish(Loading& loading);

  asio::io_context& loop_;
  Reaper& reaper_;
  const DefinitionSources sources_;
  std::thread reader_;
  std::vector<std::function<void(Catalog)>> waiting_;
  std::vector<std::function<void(Catalog)>> next_;
  // The last good policy, empty where there was none, and its file.
  v1::Policy policy_;
  std::string policy_file_;
  // Last good forms, by service.
  std::map<std::string, Source> good_;
  // Versions told by binaries, by path and file identity.
  std::map<std::pair<std::string, std::string>, std::string> versions_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_CATALOG_LOADER_H_
