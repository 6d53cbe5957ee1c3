#include "service/host/catalog_loader.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "asio/io_context.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "proto/running_process/broker_v1.pb.h"
#include "service/host/reaper.h"

namespace zcbroker::service {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CatalogLoaderTest : public ::testing::Test {
 protected:
  CatalogLoaderTest() {
    for (const char* leaf : {"services", "upstream", "bin"}) {
      mkdir(dir_.Entry(leaf).c_str(), 0700);
    }
  }

  DefinitionSources Sources() const {
    return {dir_.Entry("services"),
            dir_.Entry("upstream"),
            absl::StrCat("relative:/nonexistent:", dir_.Entry("bin")),
            {"PATH=/usr/bin:/bin"},
            dir_.Entry("policy.textproto"),
            geteuid()};
  }

  // A program; every `--version` adds a line to `<name>.asked`.
  std::string Program(const std::string& name, const std::string& version) {
    std::string path = dir_.Entry("bin/" + name);
    std::ofstream(path) << "#!/bin/sh\necho >> " << path << ".asked\necho "
                        << name << " " << version << "\n";
    chmod(path.c_str(), 0700);
    return path;
  }
  int TimesAsked(const std::string& name) const {
    std::ifstream file(dir_.Entry("bin/" + name + ".asked"));
    int lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    return lines;
  }

  std::string Define(const std::string& name, const std::string& text,
                     mode_t mode = 0600) const {
    std::string path = dir_.Entry("services/" + name + ".textproto");
    std::ofstream(path) << "name: \"" << name << "\"\n" << text;
    chmod(path.c_str(), mode);
    return path;
  }
  static std::string Binary(const std::string& path,
                            const std::string& version = "") {
    return absl::StrCat(
        "binaries { path: \"", path, "\"",
        version.empty() ? "" : absl::StrCat(" version: \"", version, "\""),
        " }\n");
  }
  void DefineUpstream(const std::string& name, const std::string& binary,
                      const std::string& version) const {
    running_process::broker::v1::ServiceDefinition definition;
    definition.set_service_name(name);
    definition.set_binary_path(binary);
    definition.add_version_allow_list(version);
    const std::string path = dir_.Entry("upstream/" + name + ".servicedef");
    std::ofstream(path) << definition.SerializeAsString();
    chmod(path.c_str(), 0600);
  }

  Catalog Load() {
    Catalog loaded;
    loader_.Load([&](Catalog catalog) {
      loaded = std::move(catalog);
      loop_.stop();
    });
    loop_.restart();
    loop_.run();
    return loaded;
  }

  static std::vector<std::string> Versions(const Catalog& catalog,
                                           const std::string& name) {
    std::vector<std::string> versions;
    const auto found = catalog.services.find(name);
    if (found == catalog.services.end()) return versions;
    for (const auto& v : found->second.versions) versions.push_back(v.version);
    return versions;
  }

  const ipc::ScopedRuntimeDir dir_;
  asio::io_context loop_;
  Reaper reaper_{loop_};
  CatalogLoader loader_{loop_, reaper_, Sources()};
};

TEST_F(CatalogLoaderTest, NothingIsNoProblem) {
  const Catalog catalog = Load();
  EXPECT_THAT(catalog.services, IsEmpty());
  EXPECT_THAT(catalog.problems, IsEmpty());
}

TEST_F(CatalogLoaderTest, VersionsAreSortedNewestFirst) {
  const std::string tool = Program("tool", "1.0.0");
  const std::string file =
      Define("demo", absl::StrCat(Binary(tool, "1.9.0"), Binary(tool, "1.10.0"),
                                  Binary(tool, "1.10.0-rc")));
  const Catalog catalog = Load();
  EXPECT_THAT(Versions(catalog, "demo"),
              ElementsAre("1.10.0", "1.10.0-rc", "1.9.0"));
  const CatalogService& service = catalog.services.at("demo");
  EXPECT_EQ(service.source, file);
  // How to start it; not from what.
  EXPECT_THAT(service.definition.binaries(), IsEmpty());
  EXPECT_EQ(TimesAsked("tool"), 0);
}

TEST_F(CatalogLoaderTest, ABinaryIsAskedOncePerIdentity) {
  Define("demo", Binary(Program("tool", "1.0.0")));
  EXPECT_THAT(Versions(Load(), "demo"), ElementsAre("1.0.0"));
  const Catalog second = Load();
  EXPECT_THAT(Versions(second, "demo"), ElementsAre("1.0.0"));
  EXPECT_EQ(TimesAsked("tool"), 1);
  const std::string before =
      second.services.at("demo").versions[0].binary_identity;

  Program("tool", "1.0.1-longer");
  const Catalog third = Load();
  EXPECT_THAT(Versions(third, "demo"), ElementsAre("1.0.1-longer"));
  EXPECT_EQ(TimesAsked("tool"), 2);
  EXPECT_NE(third.services.at("demo").versions[0].binary_identity, before);
}

TEST_F(CatalogLoaderTest, UnusableBinariesAreToldAndTheRestIsUsed) {
  const std::string good = Program("good", "1.0.0");
  const std::string same = Program("same", "1.0.0");
  const std::string plain = dir_.Entry("plain");
  std::ofstream(plain) << "no program";
  Define("demo", absl::StrCat(Binary("/nonexistent/x"), Binary(plain),
                              Binary(Program("mute", "says nothing")),
                              Binary(good), Binary(same), Binary(dir_.path())));
  const Catalog catalog = Load();
  EXPECT_THAT(Versions(catalog, "demo"), ElementsAre("1.0.0"));
  EXPECT_EQ(catalog.services.at("demo").versions[0].binary, good);
  EXPECT_THAT(catalog.services.at("demo").unusable,
              ElementsAre(HasSubstr("/nonexistent/x: No such file"),
                          HasSubstr("plain: is not an executable file"),
                          HasSubstr("is not an executable file"),
                          HasSubstr("printed no version"),
                          HasSubstr("is version 1.0.0 like another binary")));
  EXPECT_THAT(catalog.problems, SizeIs(5));
}

TEST_F(CatalogLoaderTest, OurFilesGoBeforeTheBuiltInAndUpstreams) {
  Program("zccache-daemon", "1.11.22");
  DefineUpstream("zccache", Program("upstream", "9.9.9"), "9.9.9");
  DefineUpstream("other", Program("other", "2.0.0"), "2.0.0");
  Catalog catalog = Load();
  EXPECT_EQ(catalog.services.at("zccache").source, "built-in");
  EXPECT_THAT(Versions(catalog, "zccache"), ElementsAre("1.11.22"));
  EXPECT_THAT(Versions(catalog, "other"), ElementsAre("2.0.0"));
  EXPECT_THAT(catalog.services.at("other").allowed_versions,
              ElementsAre("2.0.0"));
  EXPECT_THAT(catalog.services.at("zccache").allowed_versions, IsEmpty());

  const std::string file = Define("zccache", Binary(Program("ours", "1.12.0")));
  catalog = Load();
  EXPECT_EQ(catalog.services.at("zccache").source, file);
  EXPECT_THAT(Versions(catalog, "zccache"), ElementsAre("1.12.0"));
}

TEST_F(CatalogLoaderTest, AMistakeKeepsTheLastGoodFormAndIsTold) {
  const std::string tool = Program("tool", "1.0.0");
  const std::string file = Define("demo", Binary(tool, "1.0.0"));
  Load();
  Define("demo", "binaries {");
  Catalog catalog = Load();
  EXPECT_THAT(Versions(catalog, "demo"), ElementsAre("1.0.0"));
  ASSERT_THAT(catalog.problems, SizeIs(1));
  EXPECT_THAT(catalog.problems[0].where(), HasSubstr(file + ":"));
  // Twice in a row, too.
  EXPECT_THAT(Versions(Load(), "demo"), ElementsAre("1.0.0"));

  ASSERT_EQ(unlink(file.c_str()), 0);
  catalog = Load();
  EXPECT_THAT(catalog.services, IsEmpty());
  EXPECT_THAT(catalog.problems, IsEmpty());
}

TEST_F(CatalogLoaderTest, ADirectoryThatCannotBeReadIsNotEmpty) {
  Define("demo", Binary(Program("tool", "1.0.0"), "1.0.0"));
  DefineUpstream("other", Program("tool", "1.0.0"), "2.0.0");
  Load();
  const std::string directory = dir_.Entry("services");
  ASSERT_EQ(rename(directory.c_str(), dir_.Entry("away").c_str()), 0);
  std::ofstream(directory) << "no directory";
  // Twice in a row, too.
  for (int i = 0; i < 2; ++i) {
    const Catalog catalog = Load();
    EXPECT_THAT(Versions(catalog, "demo"), ElementsAre("1.0.0"));
    EXPECT_THAT(Versions(catalog, "other"), ElementsAre("2.0.0"));
    ASSERT_THAT(catalog.problems, SizeIs(1));
    EXPECT_EQ(catalog.problems[0].where(), directory);
    EXPECT_THAT(catalog.problems[0].what(), HasSubstr("Not a directory"));
  }
  ASSERT_EQ(unlink(directory.c_str()), 0);
  EXPECT_THAT(Versions(Load(), "demo"), IsEmpty());
}

TEST_F(CatalogLoaderTest, FilesThatOthersMayWriteAreNotRead) {
  Define("demo", Binary(Program("tool", "1.0.0")), 0620);
  Define("more", Binary(Program("tool", "1.0.0")), 0644);
  const Catalog catalog = Load();
  EXPECT_THAT(Versions(catalog, "demo"), IsEmpty());
  EXPECT_THAT(Versions(catalog, "more"), ElementsAre("1.0.0"));
  ASSERT_THAT(catalog.problems, SizeIs(1));
  EXPECT_THAT(catalog.problems[0].what(), HasSubstr("written by others"));
}

TEST_F(CatalogLoaderTest, FilesOfAnotherUserAreNotRead) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const std::string file = Define("demo", Binary("/bin/true", "1.0.0"));
  ASSERT_EQ(chown(file.c_str(), 65534, 65534), 0);
  const Catalog catalog = Load();
  EXPECT_THAT(catalog.services, IsEmpty());
  ASSERT_THAT(catalog.problems, SizeIs(1));
  EXPECT_THAT(catalog.problems[0].what(), HasSubstr("65534"));
}

TEST_F(CatalogLoaderTest, OtherFilesAreNoDefinitions) {
  std::ofstream(dir_.Entry("services/.hidden.textproto")) << "junk";
  std::ofstream(dir_.Entry("services/demo.textproto.123")) << "junk";
  std::ofstream(dir_.Entry("services/README")) << "junk";
  mkdir(dir_.Entry("services/directory.textproto").c_str(), 0700);
  const Catalog catalog = Load();
  EXPECT_THAT(catalog.services, IsEmpty());
  ASSERT_THAT(catalog.problems, SizeIs(1));
  EXPECT_THAT(catalog.problems[0].what(), HasSubstr("no regular file"));
}

TEST_F(CatalogLoaderTest, ALoadAskedForMeanwhileSeesWhatChanged) {
  const std::string tool = Program("tool", "1.0.0");
  std::vector<std::vector<std::string>> seen;
  loader_.Load([&](const Catalog& catalog) {
    seen.push_back(Versions(catalog, "demo"));
  });
  Define("demo", Binary(tool, "1.0.0"));
  for (int i = 0; i < 2; ++i) {
    loader_.Load([&](const Catalog& catalog) {
      seen.push_back(Versions(catalog, "demo"));
      if (seen.size() == 3) loop_.stop();
    });
  }
  loop_.run();
  ASSERT_THAT(seen, SizeIs(3));
  EXPECT_THAT(seen[1], ElementsAre("1.0.0"));
  EXPECT_THAT(seen[2], ElementsAre("1.0.0"));
}

}  // namespace
}  // namespace zcbroker::service
