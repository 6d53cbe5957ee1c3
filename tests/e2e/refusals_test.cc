// Every row of the table of refusals, produced by the real broker, on both
// protocols.
#include "proto/zcbroker/v1/refusals.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <future>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

struct Both {
  GrpcAnswer grpc;
  // Nothing where the framed protocol cannot ask the question.
  absl::optional<FramedAnswer> framed;
};

class RefusalsTest : public BrokerTest,
                     public ::testing::WithParamInterface<RefusalTraits> {
 protected:
  Both Ask(const std::string& service, const std::string& version) {
    return {Client().Negotiate(service, version),
            NegotiateFramed(socket(), service, version)};
  }

  Both ServiceNameInvalid() {
    StartBroker();
    return Ask("No Service", "1.0.0");
  }
  Both VersionInvalid() {
    StartBroker();
    return Ask("demo", "latest");
  }
  Both ServiceUnknown() {
    StartBroker();
    return Ask("nosuch", "1.0.0");
  }
  Both VersionNotInstalled() {
    StartBroker();
    return Ask("demo", "9.9.9");
  }
  Both VersionBlocked() {
    home_.DefineUpstream("legacy", BackendProgram(), "3.2.1");
    StartBroker();
    return Ask("legacy", "3.2.2");
  }
  Both WorldMismatch() {
    home_.Define("cache",
                 ReferenceDefinition("cache", {"1.0.0"}, {},
                                     "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
    StartBroker();
    v1::NegotiateRequest request = RequestFor("cache", "1.0.0");
    request.mutable_world()->set_mount_namespace("mnt:[1]");
    return {Client().Negotiate(request), NegotiateFromAnotherMountNamespace()};
  }
  // A child connects, which makes it the peer, and stays there.
  FramedAnswer NegotiateFromAnotherMountNamespace() {
    const ipc::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    socket().copy(address.sun_path, sizeof(address.sun_path) - 1);
    int connected[2];
    EXPECT_EQ(pipe2(connected, O_CLOEXEC), 0);
    const ipc::UniqueFd reads(connected[0]);
    ipc::UniqueFd writes(connected[1]);
    const pid_t child = fork();
    if (child == 0) {
      const int kind =
          geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
      if (unshare(kind) != 0 ||
          connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                  sizeof(address)) != 0 ||
          write(writes.get(), "", 1) != 1) {
        _exit(1);
      }
      for (;;) pause();
    }
    writes.reset();
    char byte = 0;
    EXPECT_EQ(read(reads.get(), &byte, 1), 1);
    auto hello = HelloFor("cache", "1.0.0");
    hello.set_peer_pid(static_cast<uint32_t>(child));
    EXPECT_TRUE(
        ipc::WriteAll(fd, HelloFrame(hello), ipc::Deadline::After(kPatience))
            .ok());
    FramedAnswer answer = ReadFramedAnswer(fd);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return answer;
  }
  Both BackendStartFailed() {
    home_.Define("bad", PlainDefinition("bad", home_.Script("bad", "exit 3")));
    StartBroker();
    return Ask("bad", "1.0.0");
  }
  Both BackendBroken() {
    home_.Define("bad", PlainDefinition("bad", home_.Script("bad", "exit 3")));
    StartBroker();
    EXPECT_TRUE(ipc::WaitFor(
        [&] {
          return Client().Negotiate("bad", "1.0.0").reason == "BACKEND_BROKEN";
        },
        "five failures", kPatience));
    return Ask("bad", "1.0.0");
  }
  Both RateLimited() {
    std::vector<std::future<GrpcAnswer>> starts;
    for (int i = 0; i < 5; ++i) {
      const std::string name = absl::StrCat("slow", i);
      home_.Define(name, ReferenceDefinition(name, {"1.0.0"},
                                             {"--start-delay-ms", "60000"},
                                             "start_timeout { seconds: 60 }"));
    }
    StartBroker();
    for (int i = 0; i < 4; ++i) {
      starts.push_back(std::async(std::launch::async, [this, i] {
        return Client().Negotiate(absl::StrCat("slow", i), "1.0.0");
      }));
    }
    EXPECT_TRUE(ipc::WaitFor([&] { return Client().Backends().size() == 4; },
                             "four starts", kPatience));
    Both both = Ask("slow4", "1.0.0");
    StopBroker();
    for (auto& start : starts) start.wait();
    return both;
  }
  Both ShuttingDown() {
    home_.Define("slow", ReferenceDefinition("slow", {"1.0.0"},
                                             {"--start-delay-ms", "60000"},
                                             "start_timeout { seconds: 60 }"));
    StartBroker();
    auto grpc = std::async(std::launch::async, [this] {
      return Client().Negotiate("slow", "1.0.0");
    });
    auto framed = std::async(std::launch::async, [this] {
      return NegotiateFramed(socket(), "slow", "1.0.0");
    });
    EXPECT_TRUE(ipc::WaitFor([&] { return Counter("negotiations") == 2; },
                             "both to wait", kPatience));
    StopBroker();
    return {grpc.get(), framed.get()};
  }
  Both LaneUnsupported() {
    StartBroker();
    v1::NegotiateRequest request = RequestFor("demo", "1.0.0");
    request.add_accepted_lanes(v1::WIRE_LANE_OPAQUE);
    // A Hello has no field for lanes.
    return {Client().Negotiate(request), absl::nullopt};
  }
};

INSTANTIATE_TEST_SUITE_P(Table, RefusalsTest,
                         ::testing::ValuesIn(Refusals().begin(),
                                             Refusals().end()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST_P(RefusalsTest, IsWhatTheTableSays) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  const RefusalTraits& row = GetParam();
  const std::map<v1::Refusal, std::function<Both()>> ways = {
      {v1::REFUSAL_SERVICE_NAME_INVALID, [&] { return ServiceNameInvalid(); }},
      {v1::REFUSAL_VERSION_INVALID, [&] { return VersionInvalid(); }},
      {v1::REFUSAL_SERVICE_UNKNOWN, [&] { return ServiceUnknown(); }},
      {v1::REFUSAL_VERSION_NOT_INSTALLED,
       [&] { return VersionNotInstalled(); }},
      {v1::REFUSAL_VERSION_BLOCKED, [&] { return VersionBlocked(); }},
      {v1::REFUSAL_WORLD_MISMATCH, [&] { return WorldMismatch(); }},
      {v1::REFUSAL_BACKEND_START_FAILED, [&] { return BackendStartFailed(); }},
      {v1::REFUSAL_BACKEND_BROKEN, [&] { return BackendBroken(); }},
      {v1::REFUSAL_RATE_LIMITED, [&] { return RateLimited(); }},
      {v1::REFUSAL_SHUTTING_DOWN, [&] { return ShuttingDown(); }},
      {v1::REFUSAL_LANE_UNSUPPORTED, [&] { return LaneUnsupported(); }},
  };
  if (row.refusal == v1::REFUSAL_PEER_REJECTED) {
    EXPECT_EQ(row.framed_code, 0u);
    GTEST_SKIP() << "never sent: BadInputTest.AnotherUserIsClosedUnread";
  }
  if (row.refusal == v1::REFUSAL_FD_PRESSURE) {
    GTEST_SKIP() << "BadInputTest.WhoComesWithoutDescriptorsIsToldSo";
  }
  if (row.refusal == v1::REFUSAL_BACKEND_EXISTS ||
      row.refusal == v1::REFUSAL_REGISTRATION_INVALID) {
    EXPECT_EQ(row.framed_code, 0u);
    GTEST_SKIP() << "of Register: RegisterTest, BadRegistrationTest";
  }
  const auto way = ways.find(row.refusal);
  ASSERT_NE(way, ways.end()) << row.name << " has no test";
  const Both both = way->second();

  const GrpcAnswer& grpc = both.grpc;
  EXPECT_EQ(static_cast<int>(grpc.status.error_code()),
            static_cast<int>(row.code))
      << grpc.status.error_message();
  EXPECT_EQ(grpc.reason, row.name);
  EXPECT_EQ(grpc.domain, kErrorDomain);
  ASSERT_TRUE(grpc.refusal.has_value());
  EXPECT_EQ(grpc.refusal->refusal(), row.refusal);
  EXPECT_EQ(grpc.retry.has_value(), row.retry == Retry::kAfterDelay);
  EXPECT_EQ(grpc.refusal->retry_after_ms() > 0,
            row.retry == Retry::kAfterDelay);
  EXPECT_EQ(grpc.details, row.retry == Retry::kAfterDelay ? 3 : 2);
  EXPECT_NE(grpc.status.error_message(), "");

  if (!both.framed.has_value()) return;
  ASSERT_TRUE(both.framed->refused.has_value());
  const auto& framed = *both.framed->refused;
  EXPECT_EQ(static_cast<uint32_t>(framed.code()), row.framed_code);
  EXPECT_EQ(framed.details().at("refusal"), row.name);
  EXPECT_EQ(framed.retry_after_ms() > 0, row.retry == Retry::kAfterDelay);
  EXPECT_NE(framed.reason(), "");
}

}  // namespace
}  // namespace zcbroker::testing
