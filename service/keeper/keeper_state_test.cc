#include "service/keeper/keeper_state.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

KeeperState Full() {
  KeeperState state;
  state.broker = 4711;
  state.link = 7;
  state.lifeline = 10;
  state.started_nanos = 123456789012345;
  state.restart_millis = 40;
  state.original_descriptor_limit = 1024;
  state.said_stopping = true;
  state.may_ask = true;
  state.rules.ever_ready = true;
  state.rules.stopping = true;
  state.rules.already_running = 3;
  state.rules.short_lives = 5;
  state.sockets.push_back({"/run/a socket", 12, true});
  // A path may have line breaks.
  state.sockets.push_back({"/run/b\n\\c", 13, false});
  return state;
}

TEST(KeeperStateTest, SaysTheSameAgain) {
  for (const KeeperState& state : {Full(), KeeperState()}) {
    const std::string text = EncodeKeeperState(state);
    const auto decoded = DecodeKeeperState(text);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    // The text says all there is, and is read for all of it.
    EXPECT_EQ(EncodeKeeperState(*decoded), text);
  }
  const auto decoded = DecodeKeeperState(EncodeKeeperState(Full()));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->broker, 4711);
  EXPECT_EQ(decoded->restart_millis, 40);
  EXPECT_TRUE(decoded->rules.stopping);
  EXPECT_FALSE(decoded->rules.ready);
  EXPECT_TRUE(decoded->may_ask);
  ASSERT_EQ(decoded->sockets.size(), 2u);
  EXPECT_EQ(decoded->sockets[0].name, "/run/a socket");
  EXPECT_TRUE(decoded->sockets[0].from_service_manager);
  EXPECT_EQ(decoded->sockets[1].name, "/run/b\n\\c");
}

TEST(KeeperStateTest, WhatIsDamagedOrOfAnotherFormatIsRefused) {
  const std::string good = EncodeKeeperState(Full());
  std::string other = good;
  other.replace(other.find(" 2\n"), 3, " 3\n");
  for (const std::string& bad :
       {std::string(), std::string("zcbroker-keeper 2\n"), other,
        good.substr(0, good.size() - 1), good.substr(0, good.size() / 2),
        absl::StrCat(good, "x y /z\n"), absl::StrCat(good, "1 1\n")}) {
    EXPECT_EQ(DecodeKeeperState(bad).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST(KeeperStateTest, PassesThroughTheEnvironmentWithItsDescriptors) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const ipc::UniqueFd a(ends[0]);
  const ipc::UniqueFd b(ends[1]);
  KeeperState state;
  state.lifeline = a.get();
  state.sockets.push_back({"/s", b.get(), false});
  auto file = PackKeeperState(state);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(fcntl(a.get(), F_GETFD), 0);
  EXPECT_EQ(fcntl(b.get(), F_GETFD), 0);
  EXPECT_EQ(fcntl(file->get(), F_GETFD), 0);
  setenv(kKeeperStateVariable, absl::StrCat(file->release()).c_str(), 1);
  const auto unpacked = UnpackKeeperState();
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  ASSERT_TRUE(unpacked->has_value());
  EXPECT_EQ((*unpacked)->sockets[0].fd, b.get());
  EXPECT_EQ(fcntl(a.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(b.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(getenv(kKeeperStateVariable), nullptr);
  EXPECT_FALSE(UnpackKeeperState()->has_value());
}

}  // namespace
}  // namespace zcbroker::service
