// Many callers at once, nothing running: one start serves them all.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "ipc/testing/latch.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

class HerdTest : public BrokerTest {
 protected:
  struct Got {
    std::string endpoint;
    std::string error;
    v1::RouteOrigin origin = v1::ROUTE_ORIGIN_UNSPECIFIED;
  };

  // Every second caller is framed; all begin together.
  std::vector<Got> Negotiate(int callers) {
    ipc::Latch start;
    std::vector<Got> got(callers);
    std::vector<std::thread> threads;
    for (int i = 0; i < callers; ++i) {
      threads.emplace_back([&, i] {
        EXPECT_TRUE(start.Wait(kPatience));
        got[i] = i % 2 == 0 ? OverGrpc() : OverFramed();
      });
    }
    start.Open();
    for (std::thread& thread : threads) thread.join();
    return got;
  }

  Got OverGrpc() const {
    const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
    return {answer.response.route().endpoint(), answer.status.error_message(),
            answer.response.origin()};
  }

  Got OverFramed() const {
    const FramedAnswer answer = NegotiateFramed(socket(), "demo", "1.0.0");
    if (!answer.negotiated.has_value()) {
      return {"", answer.refused.has_value() ? answer.refused->reason()
                                             : std::string("closed")};
    }
    return {answer.negotiated->backend_pipe(), ""};
  }

  int TimesServed() const {
    int times = 0;
    for (const auto line :
         absl::StrSplit(ReadFile(home_.LogFile("demo", "1.0.0")), '\n')) {
      if (absl::StrContains(line, ": serving ")) ++times;
    }
    return times;
  }

  void ExpectOneStart(const std::vector<Got>& got) {
    int started = 0;
    for (const Got& g : got) {
      EXPECT_EQ(g.error, "");
      EXPECT_NE(g.endpoint, "");
      EXPECT_EQ(g.endpoint, got.front().endpoint);
      if (g.origin == v1::ROUTE_ORIGIN_STARTED) ++started;
    }
    EXPECT_LE(started, 1);
    EXPECT_EQ(Counter("backends_started"), 1u);
    EXPECT_EQ(Counter("negotiations"), got.size());
    EXPECT_EQ(TimesServed(), 1);
    const std::vector<v1::Backend> backends = Client().Backends();
    ASSERT_EQ(backends.size(), 1u);
    EXPECT_EQ(backends[0].state(), v1::BACKEND_STATE_READY);
    EXPECT_EQ(backends[0].route().generation(), 1u);
  }
};

class HerdSizeTest : public HerdTest,
                     public ::testing::WithParamInterface<int> {};

INSTANTIATE_TEST_SUITE_P(Sizes, HerdSizeTest, ::testing::Values(24, 64, 256),
                         [](const auto& size) {
                           return absl::StrCat("Of", size.param);
                         });

TEST_P(HerdSizeTest, IsServedByOneStart) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  StartBroker();
  ExpectOneStart(Negotiate(GetParam()));
}

TEST_F(HerdTest, WaitsTogetherForASlowStart) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"},
                                           {"--start-delay-ms", "1000"}));
  StartBroker();
  ExpectOneStart(Negotiate(24));
}

TEST_F(HerdTest, TwoVersionsRunSideBySide) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "2.0.0"}));
  StartBroker();
  const GrpcAnswer one = Client().Negotiate("demo", "1.0.0");
  const GrpcAnswer two = Client().Negotiate("demo", "2.0.0");
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_NE(one.response.route().endpoint(), two.response.route().endpoint());
  EXPECT_NE(one.response.route().pid(), two.response.route().pid());
  EXPECT_EQ(one.response.route().version(), "1.0.0");
  EXPECT_EQ(two.response.route().version(), "2.0.0");
}

}  // namespace
}  // namespace zcbroker::testing
