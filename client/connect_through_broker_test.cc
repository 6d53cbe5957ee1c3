// ConnectDaemon with the real negotiators against brokers that misbehave: the
// caller always gets its daemon, in time, and learns why not through the
// broker.
#include <sys/stat.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "client/fallback.h"
#include "client/framed_negotiator.h"
#include "client/grpc_negotiator.h"
#include "client/testing/fake_daemon.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket.h"
#include "ipc/testing/fake_server.h"
#include "ipc/testing/foreign_listener.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {
namespace {

using ipc::FakeServer;
using ipc::UniqueFd;

constexpr NegotiationBudgets kBudgets = {absl::Milliseconds(100),
                                         absl::Milliseconds(400)};
constexpr absl::Duration kSlack = absl::Seconds(5);

struct Protocol {
  const char* name;
  NegotiatorFactory factory;
};

class ConnectThroughBrokerTest : public testing::TestWithParam<Protocol> {
 protected:
  ConnectThroughBrokerTest()
      : runtime_(*ipc::RuntimeDir::OpenOrCreate(dir_.inputs())),
        direct_(dir_.Entry("direct"), FakeDaemon::Answering("direct")) {
    options_.wanted_version = "1.11.22";
    options_.negotiator = GetParam().factory;
    options_.environment =
        [this](absl::string_view name) -> absl::optional<std::string> {
      if (name == "XDG_RUNTIME_DIR") return dir_.path();
      if (name == "ZCCACHE_BROKER_CONNECT") return std::string("1");
      return absl::nullopt;
    };
  }

  void ExpectDirect(FallbackReason reason) {
    const absl::Time start = absl::Now();
    auto connected = ConnectDaemonWithRoute(direct_.path(), options_);
    EXPECT_LT(absl::Now() - start, kBudgets.negotiation + kSlack);
    ASSERT_TRUE(connected.ok()) << connected.status();
    EXPECT_EQ(connected->route.lane, ConnectLane::kDirect);
    ASSERT_TRUE(connected->route.fallback.has_value());
    EXPECT_EQ(FallbackReasonName(*connected->route.fallback),
              FallbackReasonName(reason))
        << connected->route.fallback_status;
    EXPECT_TRUE(
        connected->connection.Ping(ipc::Deadline::After(absl::Seconds(20)))
            .ok());
  }

  ipc::ScopedRuntimeDir dir_;
  ipc::RuntimeDir runtime_;
  FakeDaemon direct_;
  ConnectOptions options_;
};

INSTANTIATE_TEST_SUITE_P(Protocols, ConnectThroughBrokerTest,
                         testing::Values(Protocol{"Grpc", GrpcBroker(kBudgets)},
                                         Protocol{"Framed",
                                                  FramedBroker(kBudgets)}),
                         [](const auto& info) { return info.param.name; });

TEST_P(ConnectThroughBrokerTest, MissingThenRefused) {
  ExpectDirect(FallbackReason::kBrokerMissing);
  {
    const FakeServer gone(runtime_.broker_socket(), [](UniqueFd&, int) {});
  }
  ExpectDirect(FallbackReason::kBrokerRefused);
}

TEST_P(ConnectThroughBrokerTest, Mute) {
  const FakeServer broker(runtime_.broker_socket(),
                          [](UniqueFd& fd, int) { ipc::StayMute(fd); });
  ExpectDirect(FallbackReason::kBrokerMute);
}

TEST_P(ConnectThroughBrokerTest, HangsUp) {
  const FakeServer broker(runtime_.broker_socket(), [](UniqueFd& fd, int) {
    char byte;
    (void)ipc::ReadSome(fd, &byte, 1, ipc::Deadline::After(kSlack));
  });
  ExpectDirect(FallbackReason::kBrokerClosed);
}

TEST_P(ConnectThroughBrokerTest, SpeaksSomethingElse) {
  const FakeServer broker(runtime_.broker_socket(), [](UniqueFd& fd, int) {
    (void)ipc::WriteAll(fd, "220 mail.example.org ESMTP ready, hello\r\n",
                        ipc::Deadline::After(kSlack));
    ipc::StayMute(fd);
  });
  ExpectDirect(FallbackReason::kBrokerGarbage);
}

TEST_P(ConnectThroughBrokerTest, BelongsToAnotherUser) {
  if (!ipc::ForeignListener::IsPossible()) GTEST_SKIP() << "needs root";
  // Our own directory, in which somebody could put a socket all the same.
  ASSERT_EQ(chmod(dir_.path().c_str(), 0711), 0);
  ASSERT_EQ(chmod(runtime_.path().c_str(), 0777), 0);
  const ipc::ForeignListener foreign(runtime_.broker_socket());
  ASSERT_EQ(chmod(runtime_.path().c_str(), 0700), 0);
  ASSERT_EQ(chmod(dir_.path().c_str(), 0700), 0);
  ExpectDirect(FallbackReason::kBrokerForeign);
}

}  // namespace
}  // namespace zcbroker::client
