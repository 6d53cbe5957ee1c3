// Reads definitions and looks at the binaries they name.
#ifndef ZCBROKER_SERVICE_HOST_CATALOG_LOADER_H_
#define ZCBROKER_SERVICE_HOST_CATALOG_LOADER_H_

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "asio/io_context.hpp"
#include "service/core/catalog.h"
#include "service/core/definition.h"
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
};

// Lives on the loop's thread. Files are read on a thread of its own, which
// ends with each load: a home directory may be on a slow file system.
class CatalogLoader {
 public:
  CatalogLoader(asio::io_context& loop, Reaper& reaper,
                DefinitionSources sources);
  ~CatalogLoader();

  // Calls `done` once from the loop. A load asked for while one is under way
  // begins after it. A file with a mistake keeps its last good form in force.
  void Load(std::function<void(Catalog)> done);

 private:
  struct Source {
    std::string name;
    std::string source;
    ParsedDefinition parsed;
  };
  struct Loading;

  static std::vector<Source> ReadAll(const DefinitionSources& sources);
  void Begin();
  void Resolve(std::vector<Source> sources);
  void AskVersions(const std::shared_ptr<Loading>& loading);
  void Finish(Loading& loading);

  asio::io_context& loop_;
  Reaper& reaper_;
  const DefinitionSources sources_;
  std::thread reader_;
  std::vector<std::function<void(Catalog)>> waiting_;
  std::vector<std::function<void(Catalog)>> next_;
  // Last good forms, by service.
  std::map<std::string, Source> good_;
  // Versions told by binaries, by path and file identity.
  std::map<std::pair<std::string, std::string>, std::string> versions_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_CATALOG_LOADER_H_
