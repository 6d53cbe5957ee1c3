#include "service/host/public_names.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "service/core/definition.h"

namespace zcbroker::service {
namespace {

using ::testing::ElementsAre;

class NamesOfTest : public ::testing::Test {
 protected:
  NamesOfTest() {
    around_.runtime = &*runtime_;
    around_.environment = {{"HOME", dir_.Entry("home")}};
    around_.world.set_cache_root(dir_.Entry("home/.zccache"));
    CatalogService& zccache = catalog_.services["zccache"];
    zccache.definition = BuiltInZccache();
    // Newest first; these two share a direct endpoint.
    for (const char* version : {"1.11.22", "1.11.20"}) {
      zccache.versions.push_back({version, "/opt/zccache", version, {}});
    }
  }

  // The versions that have a named route, and whose the claimed endpoints are.
  std::vector<std::string> Versions(bool claimed) {
    std::vector<std::string> versions;
    for (const PublicName& name : NamesOf(catalog_, around_, /*claim=*/true)) {
      if (name.claimed == claimed) versions.push_back(name.version);
    }
    return versions;
  }

  const ipc::ScopedRuntimeDir dir_;
  const absl::StatusOr<ipc::RuntimeDir> runtime_ =
      ipc::RuntimeDir::OpenOrCreate(dir_.inputs());
  Surroundings around_;
  Catalog catalog_;
};

TEST_F(NamesOfTest, AnEndpointThatVersionsShareIsTheNewestsOne) {
  EXPECT_THAT(Versions(false), ElementsAre("1.11.22", "1.11.20"));
  EXPECT_THAT(Versions(true), ElementsAre("1.11.22"));
}

TEST_F(NamesOfTest, ABlockedVersionHasNoName) {
  catalog_.versions.blocked.insert({"zccache", "1.11.22"});
  EXPECT_THAT(Versions(false), ElementsAre("1.11.20"));
  EXPECT_THAT(Versions(true), ElementsAre("1.11.20"));
}

}  // namespace
}  // namespace zcbroker::service
