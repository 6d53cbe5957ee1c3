#include "service/host/backend_files.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/private_dir.h"
#include "ipc/socket.h"
#include "ipc/socket_link.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::service {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class BackendFilesTest : public ::testing::Test {
 protected:
  Surroundings Around() const {
    Surroundings around;
    around.backends_dir = dir_.Entry("backends");
    around.log_dir = dir_.Entry("log");
    around.environment = {{"HOME", dir_.Entry("home")}, {"USER", "tester"}};
    around.cwd = "/";
    return around;
  }
  static StartPlan Plan(v1::EndpointRule rule = v1::ENDPOINT_RULE_NONE) {
    StartPlan plan;
    plan.definition.set_name("demo");
    plan.definition.set_endpoint_rule(rule);
    plan.version.version = "1.11.22";
    plan.version.binary = "/opt/demo";
    plan.version.binary_identity = "1:2:3:4";
    return plan;
  }
  ipc::Endpoint At(const std::string& leaf) const {
    return ipc::Endpoint::Parse(dir_.Entry(leaf)).value();
  }
  static bool Answers(const ipc::Endpoint& endpoint) {
    return ipc::Connect(endpoint, ipc::Deadline::After(absl::Seconds(10))).ok();
  }
  bool Exists(const std::string& leaf) const {
    struct stat status;
    return lstat(dir_.Entry(leaf).c_str(), &status) == 0;
  }

  const ipc::ScopedRuntimeDir dir_;
};

TEST_F(BackendFilesTest, OneBinaryAlwaysHasOnePlace) {
  const auto files = PlaceBackend(Plan(), Around());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(
      absl::StartsWith(files->endpoint.path(), dir_.Entry("backends/")));
  EXPECT_FALSE(files->direct.has_value());
  EXPECT_EQ(files->log_file, dir_.Entry("log/demo-1.11.22.log"));
  EXPECT_EQ(PlaceBackend(Plan(), Around())->endpoint, files->endpoint);
}

TEST_F(BackendFilesTest, WhateverMakesAnotherBackendMakesAnotherPlace) {
  const ipc::Endpoint place = PlaceBackend(Plan(), Around())->endpoint;
  StartPlan service = Plan();
  service.definition.set_name("other");
  StartPlan version = Plan();
  version.version.version = "1.11.23";
  StartPlan binary = Plan();
  binary.version.binary = "/opt/other";
  StartPlan rebuilt = Plan();
  rebuilt.version.binary_identity = "1:2:3:5";
  for (const StartPlan& plan : {service, version, binary, rebuilt}) {
    EXPECT_NE(PlaceBackend(plan, Around())->endpoint, place);
  }
}

TEST_F(BackendFilesTest, ZccachesDirectEndpointFollowsTheEnvironment) {
  Surroundings around = Around();
  const auto home = PlaceBackend(Plan(v1::ENDPOINT_RULE_ZCCACHE), around);
  ASSERT_TRUE(home.ok() && home->direct.has_value());
  around.environment["ZCCACHE_CACHE_DIR"] = dir_.Entry("cache");
  const auto moved = PlaceBackend(Plan(v1::ENDPOINT_RULE_ZCCACHE), around);
  ASSERT_TRUE(moved.ok() && moved->direct.has_value());
  EXPECT_NE(*moved->direct, *home->direct);
}

TEST_F(BackendFilesTest, AnEndpointThatDoesNotFitIsAnError) {
  Surroundings around = Around();
  around.backends_dir = absl::StrCat("/tmp/", std::string(100, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(PlaceBackend(Plan(), around).status()));
  // A direct endpoint does for both.
  const auto zccache = PlaceBackend(Plan(v1::ENDPOINT_RULE_ZCCACHE), around);
  ASSERT_TRUE(zccache.ok()) << zccache.status();
  EXPECT_EQ(zccache->endpoint, *zccache->direct);
}

TEST_F(BackendFilesTest, ALinkLeadsToTheSocketAndMakesItsDirectories) {
  const auto listener = ipc::Listener::Bind(At("backend.sock"));
  ASSERT_TRUE(listener.ok());
  const ipc::Endpoint link = At("a/b/direct.sock");
  ASSERT_TRUE(ipc::LinkSocket(At("backend.sock"), link).ok());
  EXPECT_TRUE(Answers(link));
  EXPECT_EQ(*ipc::IdentifyFile(link.path()),
            *ipc::IdentifyFile(dir_.Entry("backend.sock")));
  struct stat status;
  ASSERT_EQ(stat(dir_.Entry("a/b").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(BackendFilesTest, ALinkReplacesOnlyWhatNobodyListensOn) {
  const auto listener = ipc::Listener::Bind(At("backend.sock"));
  ASSERT_TRUE(listener.ok());
  { const auto gone = ipc::Listener::Bind(At("stale.sock")); }
  ASSERT_TRUE(Exists("stale.sock"));
  EXPECT_TRUE(ipc::LinkSocket(At("backend.sock"), At("stale.sock")).ok());
  EXPECT_TRUE(Answers(At("stale.sock")));

  const auto other = ipc::Listener::Bind(At("other.sock"));
  ASSERT_TRUE(other.ok());
  const auto identity = ipc::IdentifyFile(dir_.Entry("other.sock"));
  EXPECT_TRUE(absl::IsAlreadyExists(
      ipc::LinkSocket(At("backend.sock"), At("other.sock"))));
  EXPECT_EQ(*ipc::IdentifyFile(dir_.Entry("other.sock")), *identity);

  // What is no socket at all may be anything of anybody's.
  std::ofstream(dir_.Entry("file")) << "precious";
  EXPECT_FALSE(ipc::LinkSocket(At("backend.sock"), At("file")).ok());
  std::string kept;
  std::ifstream(dir_.Entry("file")) >> kept;
  EXPECT_EQ(kept, "precious");
}

TEST_F(BackendFilesTest, ALinkOverItselfLeavesNothingBeside) {
  ASSERT_TRUE(ipc::MakeDirectories(dir_.Entry("home")).ok());
  const ipc::Endpoint name = At("home/sock");
  const auto listener = ipc::Listener::Bind(At("own.sock"));
  ASSERT_TRUE(listener.ok()) << listener.status();
  for (int round = 0; round < 2; ++round) {
    const absl::Status linked = ipc::LinkOver(At("own.sock"), name);
    ASSERT_TRUE(linked.ok()) << linked;
    EXPECT_TRUE(Answers(name));
    EXPECT_FALSE(Exists(absl::StrCat("home/sock.zcb", getpid())));
  }
}

TEST_F(BackendFilesTest, ALinkToNothingIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(ipc::LinkSocket(At("nothing"), At("link"))));
  EXPECT_FALSE(Exists("link"));
}

TEST_F(BackendFilesTest, OnlyTheVeryFileIsUnlinked) {
  std::ofstream(dir_.Entry("one")) << "1";
  std::ofstream(dir_.Entry("two")) << "2";
  const auto one = ipc::IdentifyFile(dir_.Entry("one"));
  ASSERT_TRUE(one.ok());
  UnlinkIfSame(At("two"), *one);
  EXPECT_TRUE(Exists("two"));
  UnlinkIfSame(At("one"), *one);
  EXPECT_FALSE(Exists("one"));
  UnlinkIfSame(At("one"), *one);  // and no harm in that
}

TEST_F(BackendFilesTest, MakesDirectoriesUnlessAFileIsInTheWay) {
  EXPECT_TRUE(ipc::MakeDirectories(dir_.Entry("x/y/z")).ok());
  EXPECT_TRUE(ipc::MakeDirectories(dir_.Entry("x/y/z")).ok());
  EXPECT_TRUE(Exists("x/y/z"));
  std::ofstream(dir_.Entry("file")) << "1";
  EXPECT_FALSE(ipc::MakeDirectories(dir_.Entry("file/below")).ok());
}

TEST_F(BackendFilesTest, TheTailIsWhatWasWrittenSince) {
  const std::string file = dir_.Entry("log");
  std::ofstream(file) << "old\n";
  EXPECT_THAT(LogTail(file, 4, 10), IsEmpty());
  std::ofstream(file, std::ios::app) << "one\ntwo\n\nthree";
  EXPECT_THAT(LogTail(file, 4, 10), ElementsAre("one", "two", "three"));
  EXPECT_THAT(LogTail(file, 4, 2), ElementsAre("two", "three"));
  EXPECT_THAT(LogTail(dir_.Entry("nosuch"), 0, 10), IsEmpty());
}

}  // namespace
}  // namespace zcbroker::service
