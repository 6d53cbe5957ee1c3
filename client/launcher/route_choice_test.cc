#include "client/launcher/route_choice.h"

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "proto/zcbroker/v1/broker.pb.h"

namespace zcbroker::client {
namespace {

using zcbroker::v1::RouteInfo;

const LauncherWorld kWorld = {"/home/u/.zccache", "default", "mnt:[1]"};

RouteInfo Info(const std::string& version) {
  RouteInfo info;
  info.set_service("zccache");
  info.set_version(version);
  info.set_endpoint("/x");
  for (int lane : {3, 2, 1}) info.add_lanes(lane);
  info.set_pid(10);
  info.set_group(10);
  info.set_start_time(5);
  info.set_boot_id("boot");
  info.set_cache_root(kWorld.cache_root);
  info.set_daemon_namespace(kWorld.daemon_namespace);
  info.set_mount_namespace(kWorld.mount_namespace);
  return info;
}

TEST(RouteChoiceTest, LanesHaveTheNumbersOfTheApi) {
  EXPECT_EQ(kLauncherLanes[0].second, v1::WIRE_LANE_FRAME_V1);
  EXPECT_EQ(kLauncherLanes[1].second, v1::WIRE_LANE_PROST_V16);
  EXPECT_EQ(kLauncherLanes[2].second, v1::WIRE_LANE_BINCODE_V15);
}

TEST(RouteChoiceTest, TakesTheBestLaneOfBoth) {
  EXPECT_EQ(Fit(Info("1.11.22"), kWorld)->lane, ipc::WireLane::kFrameV1);
  RouteInfo info = Info("1.11.22");
  info.clear_lanes();
  info.add_lanes(1);
  info.add_lanes(2);
  EXPECT_EQ(Fit(info, kWorld)->lane, ipc::WireLane::kProstV16);
  info.clear_lanes();
  info.add_lanes(4);
  EXPECT_EQ(Fit(info, kWorld).status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST(RouteChoiceTest, RefusesOtherWorldsAndGenerations) {
  for (const char* version : {"1.12.10", "1.15.8", "2.0.0"}) {
    EXPECT_EQ(Fit(Info(version), kWorld).status().code(),
              absl::StatusCode::kUnimplemented)
        << version;
  }
  RouteInfo info = Info("1.11.22");
  info.set_cache_root("/other");
  EXPECT_EQ(Fit(info, kWorld).status().code(),
            absl::StatusCode::kFailedPrecondition);
  info = Info("1.11.22");
  info.set_daemon_namespace("ci");
  EXPECT_EQ(Fit(info, kWorld).status().code(),
            absl::StatusCode::kFailedPrecondition);
  info = Info("1.11.22");
  info.set_mount_namespace("mnt:[2]");
  EXPECT_EQ(Fit(info, kWorld).status().code(),
            absl::StatusCode::kFailedPrecondition);
  info = Info("1.11.22");
  info.clear_group();
  EXPECT_EQ(Fit(info, kWorld).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

class ChooseRouteTest : public testing::Test {
 protected:
  ChooseRouteTest() : dir_(*ipc::RuntimeDir::OpenOrCreate(scope_.inputs())) {}
  ipc::ScopedRuntimeDir scope_;
  ipc::RuntimeDir dir_;
};

TEST_F(ChooseRouteTest, TakesTheNewestThatFits) {
  EXPECT_EQ(ChooseRoute(dir_, "", kWorld, {}).status().code(),
            absl::StatusCode::kNotFound);
  for (const char* version : {"1.2.0", "1.11.22", "1.15.8"}) {
    ASSERT_TRUE(ipc::WriteRouteInfo(dir_, Info(version)).ok());
  }
  EXPECT_EQ(ChooseRoute(dir_, "", kWorld, {})->info.version(), "1.11.22");
  EXPECT_EQ(ChooseRoute(dir_, "1.2.0", kWorld, {})->info.version(), "1.2.0");
  EXPECT_EQ(ChooseRoute(dir_, "1.15.8", kWorld, {}).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ChooseRoute(dir_, "1.3.0", kWorld, {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ChooseRouteTest, PassesOverTheDead) {
  ASSERT_TRUE(ipc::WriteRouteInfo(dir_, Info("1.11.22")).ok());
  EXPECT_EQ(ChooseRoute(dir_, "", kWorld, {IdentityOf(Info("1.11.22"))})
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace zcbroker::client
