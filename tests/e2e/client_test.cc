// Our client library through the real broker to the reference backend, over
// every wire lane and both negotiators.
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/connect_daemon.h"
#include "client/daemon_connection.h"
#include "client/fallback.h"
#include "client/framed_negotiator.h"
#include "client/grpc_negotiator.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/testing/wait_for.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

using client::ConnectedDaemon;
using client::ConnectLane;
using client::ConnectOptions;
using ipc::Deadline;
using ipc::WireLane;

Deadline Soon() { return Deadline::After(kPatience); }

struct Way {
  const char* name;
  client::NegotiatorFactory (*negotiator)(client::NegotiationBudgets);
  WireLane lane;
};

class ClientTest : public BrokerTest {
 protected:
  ClientTest() { home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"})); }

  ConnectOptions OptionsFor(client::NegotiatorFactory negotiator) const {
    ConnectOptions options;
    options.service = "demo";
    options.wanted_version = "1.0.0";
    options.negotiator = std::move(negotiator);
    options.environment =
        [runtime = home_.runtime_dir()](
            absl::string_view name) -> absl::optional<std::string> {
      if (name == "XDG_RUNTIME_DIR") return runtime;
      if (name == "ZCCACHE_BROKER_CONNECT") return std::string("1");
      return absl::nullopt;
    };
    return options;
  }

  // Nobody listens there: only the broker can lead to a daemon.
  std::string DeadEndpoint() const { return home_.Entry("nobody.sock"); }
};

class ClientWayTest : public ClientTest,
                      public ::testing::WithParamInterface<Way> {
 protected:
  absl::StatusOr<ConnectedDaemon> Connect() const {
    ConnectOptions options = OptionsFor(GetParam().negotiator({}));
    options.accepted_lanes = {GetParam().lane};
    return client::ConnectDaemonWithRoute(DeadEndpoint(), options);
  }
};

INSTANTIATE_TEST_SUITE_P(
    Ways, ClientWayTest,
    ::testing::Values(
        Way{"GrpcBincodeV15", client::GrpcBroker, WireLane::kBincodeV15},
        Way{"GrpcProstV16", client::GrpcBroker, WireLane::kProstV16},
        Way{"GrpcFrameV1", client::GrpcBroker, WireLane::kFrameV1},
        Way{"FramedBincodeV15", client::FramedBroker, WireLane::kBincodeV15},
        Way{"FramedProstV16", client::FramedBroker, WireLane::kProstV16},
        Way{"FramedFrameV1", client::FramedBroker, WireLane::kFrameV1}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(ClientWayTest, DoesEverythingThroughTheBroker) {
  StartBroker();
  absl::StatusOr<ConnectedDaemon> daemon = Connect();
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  EXPECT_EQ(daemon->route.lane, ConnectLane::kBroker);
  EXPECT_FALSE(daemon->route.fallback.has_value());
  client::DaemonConnection& connection = daemon->connection;
  EXPECT_EQ(connection.lane(), GetParam().lane);

  EXPECT_TRUE(connection.Ping(Soon()).ok());
  const auto status = connection.GetStatus(Soon());
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "1.0.0");

  WriteFile(home_.Entry("work/x.c"), "int x;\n");
  zccache::v1::SessionStart start;
  start.set_client_pid(static_cast<uint32_t>(getpid()));
  start.mutable_working_dir()->set_value(home_.Entry("work"));
  const auto session = connection.StartSession(start, Soon());
  ASSERT_TRUE(session.ok()) << session.status();
  zccache::v1::Compile compile;
  compile.set_session_id(session->session_id());
  compile.mutable_cwd()->set_value(home_.Entry("work"));
  compile.mutable_compiler()->set_value("/usr/bin/gcc");
  for (const char* arg : {"-c", "x.c", "-o", "session.o"}) {
    compile.add_args(arg);
  }
  const auto compiled = connection.Compile(compile, Soon());
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  EXPECT_EQ(compiled->exit_code(), 0) << compiled->stderr_data();
  EXPECT_NE(ReadFile(home_.Entry("work/session.o")), "");
  EXPECT_TRUE(connection.EndSession(session->session_id(), Soon()).ok());

  zccache::v1::CompileEphemeral once;
  once.set_client_pid(static_cast<uint32_t>(getpid()));
  once.mutable_working_dir()->set_value(home_.Entry("work"));
  once.mutable_cwd()->set_value(home_.Entry("work"));
  once.mutable_compiler()->set_value("/usr/bin/gcc");
  for (const char* arg : {"-c", "x.c", "-o", "once.o"}) once.add_args(arg);
  const auto once_compiled = connection.CompileEphemeral(once, Soon());
  ASSERT_TRUE(once_compiled.ok()) << once_compiled.status();
  EXPECT_EQ(once_compiled->exit_code(), 0) << once_compiled->stderr_data();
  EXPECT_NE(ReadFile(home_.Entry("work/once.o")), "");

  once.set_args(1, "missing.c");
  const auto failed = connection.CompileEphemeral(once, Soon());
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_NE(failed->exit_code(), 0);
  EXPECT_NE(failed->stderr_data(), "");

  EXPECT_TRUE(connection.Clear(Soon()).ok());
  EXPECT_TRUE(connection.Shutdown(Soon()).ok());
  EXPECT_TRUE(ipc::WaitFor([&] { return Counter("backends_ended") == 1; },
                           "the broker to see its end", kPatience));
  daemon = Connect();
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  EXPECT_TRUE(daemon->connection.Ping(Soon()).ok());
  EXPECT_EQ(Counter("backends_started"), 2u);
}

TEST_P(ClientWayTest, ARefusalNamesItselfAndTheClientGoesDirect) {
  StartBroker();
  ConnectOptions options = OptionsFor(GetParam().negotiator({}));
  options.wanted_version = "9.9.9";
  // A daemon at the direct endpoint, which the broker knows nothing of.
  const std::string direct = home_.Entry("direct.sock");
  Process daemon({BackendProgram(), "--endpoint", direct}, home_.environment());
  ASSERT_TRUE(ipc::WaitFor(
      [&] { return client::ConnectDaemon(direct, ConnectOptions{}).ok(); },
      "the daemon to listen", kPatience));
  const auto connected = client::ConnectDaemonWithRoute(direct, options);
  ASSERT_TRUE(connected.ok()) << connected.status();
  EXPECT_EQ(connected->route.lane, ConnectLane::kDirect);
  EXPECT_EQ(connected->route.fallback, client::FallbackReason::kBrokerRefusal);
  EXPECT_EQ(client::RefusalNameOf(connected->route.fallback_status),
            "VERSION_NOT_INSTALLED");
}

// The budgets of a client. ThreadSanitizer's runtime stops the broker for
// seconds to look up the names of a suppressed report, and AddressSanitizer
// makes it several times slower, so there they are wide.
client::NegotiationBudgets Budgets() {
  client::NegotiationBudgets budgets;
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
  budgets.contact = absl::Seconds(20);
  budgets.negotiation = absl::Seconds(60);
#endif
#endif
  return budgets;
}

// So many compilers compute. A broker that ThreadSanitizer makes ten times
// slower would not be through its handshakes within their 5 s beside 64.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ZCB_FEW_COMPILERS
#endif
#endif
#ifdef ZCB_FEW_COMPILERS
constexpr int kCompilers = 8;
#else
constexpr int kCompilers = 64;
#endif

// Compilers that only compute, while callers come and go: none may take the
// busy broker for a mute one.
class BusyTest : public ClientTest {
 protected:
  void NegotiateUnderLoad(
      client::NegotiatorFactory (*negotiator)(client::NegotiationBudgets)) {
    StartBroker();
    std::vector<std::unique_ptr<Process>> busy;
    for (int i = 0; i < kCompilers; ++i) {
      busy.push_back(std::make_unique<Process>(
          std::vector<std::string>{"/bin/sh", "-c", "while :; do :; done"},
          home_.environment()));
    }
    // Not by ConnectDaemon, which would ask once and then know the way.
    const ConnectOptions options = OptionsFor(negotiator(Budgets()));
    client::NegotiationRequest request;
    request.service = options.service;
    request.wanted_version = options.wanted_version;
    for (int i = 0; i < 60; ++i) {
      const auto broker = options.negotiator(options.environment);
      ASSERT_TRUE(broker.ok()) << broker.status();
      const auto route = (*broker)->Negotiate(request);
      ASSERT_TRUE(route.ok()) << "call " << i << ": " << route.status();
    }
  }
};

TEST_F(BusyTest, ABusyBrokerIsNotTakenForAMuteOneOverGrpc) {
  NegotiateUnderLoad(client::GrpcBroker);
}

TEST_F(BusyTest, ABusyBrokerIsNotTakenForAMuteOneOverFramed) {
  NegotiateUnderLoad(client::FramedBroker);
}

TEST_F(ClientTest, ARouteOnceNamedNeedsNoBroker) {
  StartBroker();
  const ConnectOptions options = OptionsFor(client::GrpcBroker({}));
  ASSERT_TRUE(client::ConnectDaemonWithRoute(DeadEndpoint(), options).ok());
  broker().process().StopWhole();
  auto known = client::ConnectDaemonWithRoute(DeadEndpoint(), options);
  broker().process().Signal(SIGCONT);
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_EQ(known->route.backend->origin, client::RouteOrigin::kNamed);
  EXPECT_TRUE(known->connection.Ping(Soon()).ok());
}

TEST_F(ClientTest, ABackendThatDiedIsReplacedByAskingOnce) {
  StartBroker();
  const ConnectOptions options = OptionsFor(client::GrpcBroker({}));
  auto first = client::ConnectDaemonWithRoute(DeadEndpoint(), options);
  ASSERT_TRUE(first.ok()) << first.status();
  const pid_t pid = first->route.backend->pid;
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  ASSERT_TRUE(ipc::WaitFor([&] { return Counter("backends_ended") == 1; },
                           "the broker to notice", kPatience));
  auto next = client::ConnectDaemonWithRoute(DeadEndpoint(), options);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_NE(next->route.backend->pid, pid);
  EXPECT_TRUE(next->connection.Ping(Soon()).ok());
}

TEST_F(ClientTest, AStoppedBrokerIsMuteAndNobodyHangs) {
  StartBroker();
  broker().process().StopWhole();
  for (const auto negotiator : {client::GrpcBroker, client::FramedBroker}) {
    const auto reason = [&] {
      const auto daemon = client::ConnectDaemonWithRoute(
          DeadEndpoint(), OptionsFor(negotiator({})));
      EXPECT_FALSE(daemon.ok());
      return client::FallbackReasonOf(daemon.status());
    };
    const auto start = absl::Now();
    EXPECT_EQ(reason(), client::FallbackReason::kBrokerMute);
    EXPECT_LT(absl::Now() - start, absl::Seconds(30));
    // Whoever comes next does not wait for it.
    EXPECT_EQ(reason(), client::FallbackReason::kBreakerOpen);
    ASSERT_EQ(unlink(home_.Entry("run/zcbroker/breaker").c_str()), 0);
  }
  broker().process().Signal(SIGCONT);
  ExpectServesOthers();
}

}  // namespace
}  // namespace zcbroker::testing
