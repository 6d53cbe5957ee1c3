// Clients whose cache or namespace is another than the broker's have backends
// and routes of their own.
#include <signal.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/environment.h"
#include "ipc/process.h"
#include "ipc/testing/wait_for.h"
#include "ipc/zccache_rules.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

// docs/operations.md, "Limits".
constexpr int kOtherWorlds = 16;

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

class WorldsTest : public BrokerTest {
 protected:
  WorldsTest() {
    home_.Define("cache",
                 ReferenceDefinition("cache", {"1.0.0"}, {},
                                     "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  }

  v1::World World(const std::string& leaf, const std::string& ns = "default") {
    v1::World world;
    world.set_cache_root(home_.Entry(leaf));
    world.set_daemon_namespace(ns);
    return world;
  }
  // That of the broker.
  v1::World Own() { return World(".zccache"); }
  v1::World Other() { return World("other"); }

  GrpcAnswer Ask(const v1::World& world) {
    v1::NegotiateRequest request = RequestFor("cache", "1.0.0");
    *request.mutable_world() = world;
    return Client().Negotiate(request);
  }

  v1::BackendRoute RouteFor(const v1::World& world) {
    const GrpcAnswer answer = Ask(world);
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    return answer.response.route();
  }

  std::string InfoOf(const v1::World& world) {
    const std::string id =
        ipc::ZccacheWorldId({world.cache_root(), world.daemon_namespace()});
    return home_.Entry(
        absl::StrCat("run/zcbroker/worlds/", id, "/routes/cache/1.0.0.info"));
  }

  v1::Backend Stop(const v1::World& world) {
    v1::StopBackendRequest request;
    request.set_service("cache");
    request.set_version("1.0.0");
    *request.mutable_world() = world;
    v1::StopBackendResponse response;
    grpc::ClientContext context;
    GrpcClient client = Client();
    const grpc::Status status =
        client.admin().StopBackend(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.backend();
  }

  static bool Lives(const v1::BackendRoute& route) {
    return ipc::IsAlive(
        {static_cast<int>(route.pid()), route.start_time(), route.boot_id()});
  }
};

TEST_F(WorldsTest, EachHasItsBackendItsEnvironmentAndItsRoute) {
  StartBroker();
  const v1::BackendRoute own = RouteFor(Own());
  const v1::BackendRoute other = RouteFor(Other());
  const v1::BackendRoute ci = RouteFor(World("other", "ci"));
  EXPECT_EQ((std::set<uint32_t>{own.pid(), other.pid(), ci.pid()}.size()), 3u);
  EXPECT_EQ(
      (std::set<std::string>{own.endpoint(), other.endpoint(), ci.endpoint()}
           .size()),
      3u);
  EXPECT_EQ(RouteFor(Other()).pid(), other.pid());

  const auto variables = ipc::ReadEnvironment(static_cast<int>(ci.pid()),
                                              ipc::ZccacheWorldVariables());
  ASSERT_TRUE(variables.ok()) << variables.status();
  EXPECT_EQ(variables->at("ZCCACHE_CACHE_DIR"), home_.Entry("other"));
  EXPECT_EQ(variables->at("ZCCACHE_DAEMON_NAMESPACE"), "ci");

  EXPECT_TRUE(Exists(home_.Entry("run/zcbroker/routes/cache/1.0.0.info")));
  EXPECT_TRUE(Exists(InfoOf(Other())));
  EXPECT_TRUE(Exists(InfoOf(World("other", "ci"))));
  EXPECT_TRUE(other.named_route().empty());

  std::map<std::string, uint32_t> rows;
  for (const v1::Backend& row : Client().Backends()) {
    rows[row.has_world() ? absl::StrCat(row.world().cache_root(), " ",
                                        row.world().daemon_namespace())
                         : "own"] = row.route().pid();
  }
  EXPECT_EQ(rows["own"], own.pid());
  EXPECT_EQ(rows[absl::StrCat(home_.Entry("other"), " default")], other.pid());
  EXPECT_EQ(rows[absl::StrCat(home_.Entry("other"), " ci")], ci.pid());
  EXPECT_EQ(Counter("worlds_opened"), 2u);
  EXPECT_EQ(Counter("backends_started"), 3u);
}

TEST_F(WorldsTest, WhatIsAskedOfOneIsNotDoneToAnother) {
  StartBroker();
  const v1::BackendRoute own = RouteFor(Own());
  const v1::BackendRoute other = RouteFor(Other());
  const v1::Backend nobody = Stop(World("nobody-came-from-there"));
  EXPECT_EQ(nobody.state(), v1::BACKEND_STATE_GONE);
  EXPECT_EQ(nobody.world().cache_root(), home_.Entry("nobody-came-from-there"));
  EXPECT_TRUE(Lives(own));
  EXPECT_TRUE(Lives(other));

  EXPECT_EQ(Stop(Other()).state(), v1::BACKEND_STATE_GONE);
  EXPECT_FALSE(Lives(other));
  EXPECT_FALSE(Exists(InfoOf(Other())));
  EXPECT_TRUE(Lives(own));
  EXPECT_NE(RouteFor(Other()).pid(), other.pid());
}

TEST_F(WorldsTest, AReportReachesTheWorldThatItIsAbout) {
  StartBroker();
  RouteFor(Own());
  const v1::BackendRoute other = RouteFor(Other());
  v1::ReportBackendRequest report;
  report.set_service("cache");
  report.set_version("1.0.0");
  report.set_pid(other.pid());
  report.set_start_time(other.start_time());
  ASSERT_EQ(kill(static_cast<pid_t>(other.pid()), SIGKILL), 0);
  v1::ReportBackendResponse response;
  grpc::ClientContext context;
  GrpcClient client = Client();
  ASSERT_TRUE(client.broker().ReportBackend(&context, report, &response).ok());
  EXPECT_EQ(response.verdict(), v1::BACKEND_VERDICT_GONE);
  EXPECT_NE(RouteFor(Other()).pid(), other.pid());
}

TEST_F(WorldsTest, TheNextBrokerGoesOnWithEachInItsWorld) {
  StartBroker();
  const v1::BackendRoute own = RouteFor(Own());
  const v1::BackendRoute other = RouteFor(Other());
  broker().process().Signal(SIGKILL);
  broker().process().Wait();
  StartBroker();
  EXPECT_EQ(RouteFor(Own()).pid(), own.pid());
  EXPECT_EQ(RouteFor(Other()).pid(), other.pid());

  // What was its own world is another one's now.
  broker().process().Signal(SIGKILL);
  broker().process().Wait();
  Broker::Options options;
  options.environment["ZCCACHE_CACHE_DIR"] = home_.Entry("other");
  StartBroker(options);
  EXPECT_EQ(RouteFor(Own()).pid(), own.pid());
  EXPECT_EQ(RouteFor(Other()).pid(), other.pid());
  EXPECT_TRUE(Exists(InfoOf(Own())));
  EXPECT_EQ(Counter("backends_started"), 0u);
}

TEST_F(WorldsTest, NotMoreThanSoManyAndThoseThatRestMakeRoom) {
  StartBroker();
  for (int i = 1; i <= kOtherWorlds; ++i) {
    RouteFor(World(absl::StrCat("cache-", i)));
  }
  const v1::World last = World("one-too-many");
  const GrpcAnswer answer = Ask(last);
  EXPECT_EQ(answer.reason, "RATE_LIMITED");
  EXPECT_TRUE(answer.retry.has_value());
  EXPECT_TRUE(absl::StrContains(answer.status.error_message(), "other worlds"))
      << answer.status.error_message();
  EXPECT_EQ(Counter("refused.RATE_LIMITED"), 1u);
  RouteFor(Own());

  EXPECT_EQ(Stop(World("cache-3")).state(), v1::BACKEND_STATE_GONE);
  EXPECT_TRUE(ipc::WaitFor([&] { return Ask(last).ok(); }, "room", kPatience));
}

TEST_F(WorldsTest, AWorldThatNobodyCouldLiveInIsRefused) {
  StartBroker();
  v1::World world = Own();
  world.set_mount_namespace("mnt:[1]");
  EXPECT_EQ(Ask(world).reason, "WORLD_MISMATCH");
  world = Own();
  world.set_cache_root("relative");
  EXPECT_EQ(Ask(world).reason, "WORLD_MISMATCH");
  EXPECT_EQ(Counter("worlds_opened"), 0u);
}

// By the route info of its world; the broker is not asked.
TEST_F(WorldsTest, AClientFindsTheWayInItsWorld) {
  StartBroker();
  const v1::BackendRoute own = RouteFor(Own());
  const v1::BackendRoute other = RouteFor(Other());
  client::ConnectOptions options;
  options.service = "cache";
  options.wanted_version = "1.0.0";
  const Environment variables = home_.environment();
  options.environment =
      [&](absl::string_view name) -> absl::optional<std::string> {
    if (name == "ZCCACHE_BROKER_CONNECT") return "1";
    const auto found = variables.find(std::string(name));
    if (found == variables.end()) return absl::nullopt;
    return found->second;
  };
  for (const auto& [world, route] :
       {std::make_pair(Own(), own), std::make_pair(Other(), other)}) {
    options.world = client::World{world.cache_root(), world.daemon_namespace(),
                                  ipc::OwnMountNamespace().value_or("")};
    // The second time from memory.
    for (int i = 0; i < 2; ++i) {
      const absl::StatusOr<client::ConnectedDaemon> connected =
          client::ConnectDaemonWithRoute("/nowhere.sock", options);
      ASSERT_TRUE(connected.ok()) << connected.status();
      ASSERT_NE(connected->route.backend, nullptr);
      EXPECT_EQ(connected->route.backend->pid, static_cast<int>(route.pid()));
    }
  }
}

TEST_F(WorldsTest, TheEndOfAllIsTheEndOfTheirsToo) {
  StartBroker();
  const v1::BackendRoute own = RouteFor(Own());
  const v1::BackendRoute other = RouteFor(Other());
  v1::ShutdownRequest request;
  request.set_backends(v1::ShutdownRequest::BACKENDS_STOP);
  v1::ShutdownResponse response;
  grpc::ClientContext context;
  {
    GrpcClient client = Client();
    ASSERT_TRUE(client.admin().Shutdown(&context, request, &response).ok());
  }
  EXPECT_EQ(response.backends_to_stop(), 2u);
  EXPECT_EQ(AwaitBrokersEnd(), 0);
  EXPECT_FALSE(Lives(own));
  EXPECT_FALSE(Lives(other));
}

}  // namespace
}  // namespace zcbroker::testing
