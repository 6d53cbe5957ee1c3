#include "ipc/route_info.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

using zcbroker::v1::RouteInfo;

constexpr std::uint32_t kStranger = 65534;

RouteInfo Info(const std::string& version) {
  RouteInfo info;
  info.set_service("zccache");
  info.set_version(version);
  info.set_endpoint("/run/user/1000/x.sock");
  info.set_pid(17);
  return info;
}

class RouteInfoTest : public testing::Test {
 protected:
  RouteInfoTest() : dir_(*RuntimeDir::OpenOrCreate(scope_.inputs())) {}

  std::string Routes(const std::string& leaf = "") {
    return dir_.Entry(leaf.empty() ? "routes" : absl::StrCat("routes/", leaf));
  }

  ScopedRuntimeDir scope_;
  RuntimeDir dir_;
};

TEST_F(RouteInfoTest, ReadsWhatWasWritten) {
  ASSERT_TRUE(WriteRouteInfo(dir_, Info("1.11.22")).ok());
  const auto info = ReadRouteInfo(dir_, "zccache", "1.11.22");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->SerializeAsString(), Info("1.11.22").SerializeAsString());
  struct stat file;
  ASSERT_EQ(stat(Routes("zccache/1.11.22.info").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600U);
}

TEST_F(RouteInfoTest, ReplacesWhatIsThereWhateverTheUmask) {
  ASSERT_TRUE(WriteRouteInfo(dir_, Info("1.11.22")).ok());
  RouteInfo second = Info("1.11.22");
  second.set_pid(18);
  const mode_t old = umask(0277);
  const absl::Status written = WriteRouteInfo(dir_, second);
  umask(old);
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_EQ(ReadRouteInfo(dir_, "zccache", "1.11.22")->pid(), 18U);
}

TEST_F(RouteInfoTest, OutlivesAHalfWrittenFileOfTheSameProcess) {
  ASSERT_TRUE(OpenOrCreateRouteDir(dir_, "zccache").ok());
  std::ofstream(Routes(absl::StrCat("zccache/.1.11.22.info.", getpid())))
      << "half";
  EXPECT_TRUE(WriteRouteInfo(dir_, Info("1.11.22")).ok());
  EXPECT_TRUE(ReadRouteInfo(dir_, "zccache", "1.11.22").ok());
}

TEST_F(RouteInfoTest, ListsTheNewestFirst) {
  const std::string longest = "1.9.0-" + std::string(50, 'x');
  for (const std::string& version :
       {std::string("1.2.0"), std::string("1.15.8"), longest,
        std::string("1.15.8-rc.1")}) {
    ASSERT_TRUE(WriteRouteInfo(dir_, Info(version)).ok());
  }
  std::ofstream(Routes("zccache/README.info")) << "no info";
  std::ofstream(Routes("zccache/1.0.0.sock")) << "no info";
  const auto versions = ListRouteVersions(dir_, "zccache");
  ASSERT_TRUE(versions.ok()) << versions.status();
  EXPECT_EQ(*versions, (std::vector<std::string>{"1.15.8", "1.15.8-rc.1",
                                                 longest, "1.2.0"}));
  EXPECT_TRUE(ReadRouteInfo(dir_, "zccache", longest).ok());
  EXPECT_TRUE(ListRouteVersions(dir_, "other")->empty());
}

TEST_F(RouteInfoTest, ListsServices) {
  EXPECT_TRUE(ListRouteServices(dir_)->empty());
  ASSERT_TRUE(WriteRouteInfo(dir_, Info("1.2.0")).ok());
  std::ofstream(Routes("No Service")) << "nothing of ours";
  EXPECT_EQ(*ListRouteServices(dir_), (std::vector<std::string>{"zccache"}));
}

TEST_F(RouteInfoTest, RemovesOnceAndIsContentTheSecondTime) {
  EXPECT_TRUE(RemoveRouteInfo(dir_, "zccache", "1.11.22").ok());
  ASSERT_TRUE(WriteRouteInfo(dir_, Info("1.11.22")).ok());
  EXPECT_TRUE(RemoveRouteInfo(dir_, "zccache", "1.11.22").ok());
  EXPECT_TRUE(RemoveRouteInfo(dir_, "zccache", "1.11.22").ok());
  EXPECT_EQ(ReadRouteInfo(dir_, "zccache", "1.11.22").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(RouteInfoTest, StemsOfUpTo40BytesArePlain) {
  const std::string at = "1.0.0-" + std::string(34, 'a');
  ASSERT_EQ(at.size(), kMaxRouteStemBytes);
  EXPECT_EQ(RouteStem(at), at);
  EXPECT_EQ(RouteStem(at + "a").size(), 16U);
  EXPECT_EQ(RouteSocket(dir_, "zccache", "1.11.22")->path(),
            Routes("zccache/1.11.22.sock"));
}

TEST_F(RouteInfoTest, RefusesPathsTooLongForASocket) {
  RuntimeDirInputs inputs = scope_.inputs();
  inputs.xdg_runtime_dir = scope_.Entry(std::string(60, 'd'));
  ASSERT_EQ(mkdir(inputs.xdg_runtime_dir->c_str(), 0700), 0);
  const RuntimeDir deep = *RuntimeDir::OpenOrCreate(inputs);
  EXPECT_TRUE(RouteSocket(deep, "a", "1.1.1").ok());
  EXPECT_EQ(
      RouteSocket(deep, "a", "1.1.1-" + std::string(34, 'a')).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST_F(RouteInfoTest, RefusesNamesThatLeadElsewhere) {
  for (const char* service : {"", "..", "a/b", "A"}) {
    EXPECT_EQ(ReadRouteInfo(dir_, service, "1.0.0").status().code(),
              absl::StatusCode::kInvalidArgument)
        << service;
  }
  for (const char* version : {"", "..", "1.0.0/../x", "1"}) {
    EXPECT_EQ(ReadRouteInfo(dir_, "zccache", version).status().code(),
              absl::StatusCode::kInvalidArgument)
        << version;
  }
}

TEST_F(RouteInfoTest, RefusesWhatIsTooLongOrNoInfo) {
  ASSERT_TRUE(WriteRouteInfo(dir_, Info("1.0.0")).ok());
  const std::string file = Routes("zccache/1.0.0.info");
  std::ofstream(file) << std::string(100, '\xff');
  EXPECT_EQ(ReadRouteInfo(dir_, "zccache", "1.0.0").status().code(),
            absl::StatusCode::kDataLoss);
  std::ofstream(file) << Info("1.0.1").SerializeAsString();
  EXPECT_EQ(ReadRouteInfo(dir_, "zccache", "1.0.0").status().code(),
            absl::StatusCode::kDataLoss);

  RouteInfo info = Info("1.0.0");
  const std::size_t rest = info.ByteSizeLong() + 4;  // tag and length
  info.set_cache_root(std::string(kMaxRouteInfoBytes - rest, 'c'));
  ASSERT_EQ(info.ByteSizeLong(), kMaxRouteInfoBytes);
  EXPECT_TRUE(WriteRouteInfo(dir_, info).ok());
  EXPECT_TRUE(ReadRouteInfo(dir_, "zccache", "1.0.0").ok());
  info.mutable_cache_root()->push_back('c');
  EXPECT_EQ(WriteRouteInfo(dir_, info).code(),
            absl::StatusCode::kInvalidArgument);
  std::ofstream(file) << info.SerializeAsString();
  EXPECT_EQ(ReadRouteInfo(dir_, "zccache", "1.0.0").status().code(),
            absl::StatusCode::kResourceExhausted);
}

// What somebody may have put in our way.
struct Trap {
  const char* name;
  // Gets the paths of routes, routes/zccache and routes/zccache/1.0.0.info,
  // which exist and are good.
  std::function<int(const std::string& routes, const std::string& service,
                    const std::string& file)>
      lay;
  absl::StatusCode code;
  const char* said;
  bool needs_root = false;
};

std::ostream& operator<<(std::ostream& out, const Trap& trap) {
  return out << trap.name;
}

int Replace(const std::string& path, const std::string& target) {
  return rename(path.c_str(), (path + ".away").c_str()) != 0
             ? -1
             : symlink(target.c_str(), path.c_str());
}

class HostileRoutesTest : public RouteInfoTest,
                          public testing::WithParamInterface<Trap> {};

TEST_P(HostileRoutesTest, IsRefusedWithItsReason) {
  const Trap& trap = GetParam();
  if (trap.needs_root && geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_TRUE(WriteRouteInfo(dir_, Info("1.0.0")).ok());
  ASSERT_TRUE(ReadRouteInfo(dir_, "zccache", "1.0.0").ok());
  ASSERT_EQ(trap.lay(Routes(), Routes("zccache"), Routes("zccache/1.0.0.info")),
            0);
  const absl::Status status = ReadRouteInfo(dir_, "zccache", "1.0.0").status();
  EXPECT_EQ(status.code(), trap.code) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), trap.said)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), Routes())) << status;
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileRoutesTest,
    testing::Values(
        Trap{"RoutesOpenToOthers",
             [](auto& routes, auto&, auto&) {
               return chmod(routes.c_str(), 0777);
             },
             absl::StatusCode::kFailedPrecondition, "must be 0700"},
        Trap{"ServiceOpenToOthers",
             [](auto&, auto& service, auto&) {
               return chmod(service.c_str(), 0755);
             },
             absl::StatusCode::kFailedPrecondition, "must be 0700"},
        Trap{"RoutesIsALink",
             [](auto& routes, auto&, auto&) {
               return Replace(routes, "routes.away");
             },
             absl::StatusCode::kFailedPrecondition, "symbolic link"},
        Trap{"ServiceIsALink",
             [](auto&, auto& service, auto&) {
               return Replace(service, "zccache.away");
             },
             absl::StatusCode::kFailedPrecondition, "symbolic link"},
        Trap{"ServiceIsALoop",
             [](auto&, auto& service, auto&) {
               return Replace(service, "zccache");
             },
             absl::StatusCode::kFailedPrecondition, "symbolic link"},
        Trap{"ServiceIsAFile",
             [](auto&, auto& service, auto&) {
               return rename(service.c_str(), (service + ".away").c_str()) ||
                      mknod(service.c_str(), S_IFREG | 0600, 0);
             },
             absl::StatusCode::kFailedPrecondition, "no directory"},
        Trap{"RoutesOfAnotherUser",
             [](auto& routes, auto&, auto&) {
               return chown(routes.c_str(), kStranger, kStranger);
             },
             absl::StatusCode::kPermissionDenied, "belongs to uid", true},
        Trap{"ServiceOfAnotherUser",
             [](auto&, auto& service, auto&) {
               return chown(service.c_str(), kStranger, kStranger);
             },
             absl::StatusCode::kPermissionDenied, "belongs to uid", true},
        Trap{"FileOfAnotherUser",
             [](auto&, auto&, auto& file) {
               return chown(file.c_str(), kStranger, kStranger);
             },
             absl::StatusCode::kPermissionDenied, "belongs to uid", true},
        Trap{"FileIsALink",
             [](auto&, auto&, auto& file) {
               return Replace(file, "1.0.0.info.away");
             },
             absl::StatusCode::kFailedPrecondition, "symbolic link"},
        Trap{"FileIsALoop",
             [](auto&, auto&, auto& file) {
               return Replace(file, "1.0.0.info");
             },
             absl::StatusCode::kFailedPrecondition, "symbolic link"},
        Trap{"FileIsADirectory",
             [](auto&, auto&, auto& file) {
               return unlink(file.c_str()) || mkdir(file.c_str(), 0700);
             },
             absl::StatusCode::kFailedPrecondition, "no regular file"},
        Trap{"FileIsAPipeThatNobodyWrites",
             [](auto&, auto&, auto& file) {
               return unlink(file.c_str()) || mkfifo(file.c_str(), 0600);
             },
             absl::StatusCode::kFailedPrecondition, "no regular file"},
        Trap{"FileMayBeWrittenByOthers",
             [](auto&, auto&, auto& file) { return chmod(file.c_str(), 0622); },
             absl::StatusCode::kFailedPrecondition, "written by others"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace zcbroker::ipc
