#include "client/connect_daemon.h"

#include <sys/stat.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "client/testing/fake_daemon.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/testing/foreign_listener.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/wire_lane.h"

namespace zcbroker::client {
namespace {

using ipc::WireLane;
using Variables = std::map<std::string, std::string>;

constexpr char kVersion[] = "1.11.22";

// Answers as a test says and notes what it was asked.
struct FakeBroker {
  absl::StatusOr<BackendRoute> answer = absl::UnknownError("not set");
  std::vector<NegotiationRequest> asked;

  NegotiatorFactory Factory() {
    class Negotiator : public BrokerNegotiator {
     public:
      explicit Negotiator(FakeBroker& broker) : broker_(broker) {}
      absl::StatusOr<BackendRoute> Negotiate(
          const NegotiationRequest& request) override {
        broker_.asked.push_back(request);
        return broker_.answer;
      }
      const ipc::Endpoint& broker() const override { return socket_; }

     private:
      FakeBroker& broker_;
      const ipc::Endpoint socket_ = *ipc::Endpoint::Parse("/nonexistent");
    };
    return [this](const ipc::EnvironmentLookup&)
               -> absl::StatusOr<std::unique_ptr<BrokerNegotiator>> {
      return std::unique_ptr<BrokerNegotiator>(
          std::make_unique<Negotiator>(*this));
    };
  }
};

class ConnectDaemonTest : public testing::Test {
 protected:
  ConnectDaemonTest()
      : direct_(dir_.Entry("direct"), FakeDaemon::Answering("direct")),
        fake_(dir_.Entry("fake"), FakeDaemon::Answering("fake")),
        backend_(dir_.Entry("backend"), FakeDaemon::Answering("backend")) {
    RouteTo(backend_.path());
    options_.wanted_version = kVersion;
    options_.client_name = "test";
    options_.negotiator = broker_.Factory();
    options_.warn = [this](absl::string_view text) {
      warnings_.emplace_back(text);
    };
    options_.environment =
        [this](absl::string_view name) -> absl::optional<std::string> {
      read_.emplace_back(name);
      const auto found = variables_.find(std::string(name));
      if (found != variables_.end()) return found->second;
      // Never the machine's own.
      if (name == "XDG_RUNTIME_DIR") return dir_.path();
      return absl::nullopt;
    };
  }

  void RouteTo(const std::string& path, std::vector<WireLane> lanes = {}) {
    BackendRoute route(*ipc::Endpoint::Parse(path), kVersion);
    route.lanes = std::move(lanes);
    broker_.answer = route;
  }
  absl::StatusOr<ConnectedDaemon> Connect() {
    return ConnectDaemonWithRoute(direct_.path(), options_);
  }
  // Which daemon is at the other end, or the error.
  static std::string Reached(absl::StatusOr<ConnectedDaemon>& connected) {
    if (!connected.ok()) return connected.status().ToString();
    const auto status = connected->connection.GetStatus(
        ipc::Deadline::After(absl::Seconds(20)));
    return status.ok() ? status->version() : status.status().ToString();
  }

  ipc::ScopedRuntimeDir dir_;
  FakeDaemon direct_;
  FakeDaemon fake_;
  FakeDaemon backend_;
  FakeBroker broker_;
  ConnectOptions options_;
  Variables variables_;
  std::vector<std::string> read_;
  std::vector<std::string> warnings_;
};

TEST_F(ConnectDaemonTest, TheTableAndItsInteractions) {
  const std::string fake = fake_.path();
  const std::string dead = dir_.Entry("dead");
  const std::string kDisable = "RUNNING_PROCESS_DISABLE";
  const std::string kFake = "RUNNING_PROCESS_FAKE_BACKEND";
  const std::string kBroker = "ZCCACHE_BROKER_CONNECT";
  struct Row {
    Variables variables;
    std::string reached;
    ConnectLane lane;
    absl::optional<FallbackReason> fallback;
    std::size_t asked;
  };
  const auto no_fallback = absl::optional<FallbackReason>();
  const auto fake_dead =
      absl::optional<FallbackReason>(FallbackReason::kFakeBackendDead);
  const std::vector<Row> rows = {
      // Row 4, and everything that is not exactly "1".
      {{}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kBroker, ""}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kBroker, "0"}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kBroker, "true"}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kBroker, " 1"}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kBroker, "11"}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kFake, ""}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      // Row 3.
      {{{kBroker, "1"}}, "backend", ConnectLane::kBroker, no_fallback, 1},
      {{{kBroker, "1"}, {kFake, ""}},
       "backend",
       ConnectLane::kBroker,
       no_fallback,
       1},
      // Row 2 comes before it, dead or alive.
      {{{kFake, fake}}, "fake", ConnectLane::kFakeBackend, no_fallback, 0},
      {{{kFake, fake}, {kBroker, "1"}},
       "fake",
       ConnectLane::kFakeBackend,
       no_fallback,
       0},
      {{{kFake, dead}}, "direct", ConnectLane::kDirect, fake_dead, 0},
      {{{kFake, dead}, {kBroker, "1"}},
       "direct",
       ConnectLane::kDirect,
       fake_dead,
       0},
      {{{kFake, "no path"}}, "direct", ConnectLane::kDirect, fake_dead, 0},
      // Row 1 comes first, and only "1" is row 1.
      {{{kDisable, "1"}}, "direct", ConnectLane::kDirect, no_fallback, 0},
      {{{kDisable, "1"}, {kBroker, "1"}},
       "direct",
       ConnectLane::kDirect,
       no_fallback,
       0},
      {{{kDisable, "1"}, {kFake, fake}},
       "direct",
       ConnectLane::kDirect,
       no_fallback,
       0},
      {{{kDisable, "0"}, {kFake, fake}},
       "fake",
       ConnectLane::kFakeBackend,
       no_fallback,
       0},
      {{{kDisable, ""}, {kBroker, "1"}},
       "backend",
       ConnectLane::kBroker,
       no_fallback,
       1},
      {{{kDisable, "true"}, {kBroker, "1"}},
       "backend",
       ConnectLane::kBroker,
       no_fallback,
       1},
      {{{kDisable, " 1"}, {kBroker, "1"}},
       "backend",
       ConnectLane::kBroker,
       no_fallback,
       1},
  };
  for (const Row& row : rows) {
    std::string trace;
    for (const auto& [name, value] : row.variables) {
      absl::StrAppend(&trace, name, "=", value, " ");
    }
    SCOPED_TRACE(trace);
    variables_ = row.variables;
    broker_.asked.clear();
    warnings_.clear();
    auto connected = Connect();
    EXPECT_EQ(Reached(connected), row.reached);
    ASSERT_TRUE(connected.ok());
    EXPECT_EQ(connected->route.lane, row.lane);
    EXPECT_EQ(connected->route.fallback, row.fallback);
    EXPECT_EQ(connected->route.fallback_status.ok(), !row.fallback.has_value());
    EXPECT_EQ(broker_.asked.size(), row.asked);
    EXPECT_EQ(warnings_.size(), row.fallback.has_value() ? 1U : 0U);
    EXPECT_EQ(connected->route.endpoint, dir_.Entry(row.reached));
    EXPECT_EQ(connected->route.backend != nullptr,
              row.lane == ConnectLane::kBroker);
  }
}

TEST_F(ConnectDaemonTest, DisabledReadsNoOtherVariable) {
  variables_ = {{"RUNNING_PROCESS_DISABLE", "1"}, {"ZCBROKER_STRICT", "1"}};
  ASSERT_TRUE(Connect().ok());
  EXPECT_EQ(read_, std::vector<std::string>{"RUNNING_PROCESS_DISABLE"});
}

TEST_F(ConnectDaemonTest, DirectReadsTheSwitchesOnly) {
  ASSERT_TRUE(Connect().ok());
  EXPECT_EQ(read_, (std::vector<std::string>{"RUNNING_PROCESS_DISABLE",
                                             "RUNNING_PROCESS_FAKE_BACKEND",
                                             "ZCCACHE_BROKER_CONNECT"}));
}

TEST_F(ConnectDaemonTest, TheBrokerIsToldWhoAsksFromWhichWorld) {
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"},
                {"ZCCACHE_CACHE_DIR", "/cache"},
                {"ZCCACHE_DAEMON_NAMESPACE", "dev"}};
  ASSERT_TRUE(Connect().ok());
  ASSERT_EQ(broker_.asked.size(), 1U);
  const NegotiationRequest& asked = broker_.asked[0];
  EXPECT_EQ(asked.service, "zccache");
  EXPECT_EQ(asked.wanted_version, kVersion);
  EXPECT_EQ(asked.client_name, "test");
  EXPECT_EQ(asked.accepted_lanes, options_.accepted_lanes);
  EXPECT_EQ(asked.world.cache_root, "/cache");
  EXPECT_EQ(asked.world.daemon_namespace, "dev");
  EXPECT_TRUE(absl::StartsWith(asked.world.mount_namespace, "mnt:["));
}

TEST_F(ConnectDaemonTest, UsesALaneBothSpeak) {
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"}};
  const struct {
    std::vector<WireLane> backend;
    WireLane chosen;
  } kRows[] = {
      {{}, WireLane::kFrameV1},
      {{WireLane::kBincodeV15, WireLane::kFrameV1}, WireLane::kFrameV1},
      {{WireLane::kBincodeV15}, WireLane::kBincodeV15},
      {{WireLane::kOpaque, WireLane::kProstV16}, WireLane::kProstV16},
  };
  for (const auto& row : kRows) {
    RouteTo(backend_.path(), row.backend);
    auto connected = Connect();
    ASSERT_TRUE(connected.ok()) << connected.status();
    EXPECT_EQ(connected->connection.lane(), row.chosen);
    EXPECT_EQ(Reached(connected), "backend");
  }
}

TEST_F(ConnectDaemonTest, EveryFailureBehindTheBrokerFallsBackWithItsReason) {
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"}};
  for (const FallbackReason reason :
       {FallbackReason::kBrokerMute, FallbackReason::kBrokerRefusal}) {
    broker_.answer = WithFallbackReason(absl::AbortedError("no"), reason);
    const auto before = FallbackCount(reason);
    auto connected = Connect();
    EXPECT_EQ(Reached(connected), "direct");
    EXPECT_EQ(connected->route.fallback, reason);
    EXPECT_EQ(connected->route.fallback_status.message(), "no");
    EXPECT_EQ(FallbackCount(reason), before + 1);
  }
  RouteTo(dir_.Entry("dead"));
  auto dead = Connect();
  EXPECT_EQ(Reached(dead), "direct");
  EXPECT_EQ(dead->route.fallback, FallbackReason::kRouteDead);
  RouteTo(backend_.path(), {WireLane::kOpaque});
  auto opaque = Connect();
  EXPECT_EQ(Reached(opaque), "direct");
  EXPECT_EQ(opaque->route.fallback, FallbackReason::kLaneUnsupported);
  options_.negotiator = nullptr;
  auto nobody = Connect();
  EXPECT_EQ(Reached(nobody), "direct");
  EXPECT_EQ(nobody->route.fallback, FallbackReason::kBrokerMissing);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(ConnectDaemonTest, ABackendOfAnotherUserIsNotUsed) {
  if (!ipc::ForeignListener::IsPossible()) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chmod(dir_.path().c_str(), 0777), 0);
  const ipc::ForeignListener foreign(dir_.Entry("foreign"));
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"}};
  RouteTo(dir_.Entry("foreign"));
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "direct");
  EXPECT_EQ(connected->route.fallback, FallbackReason::kRouteForeign);
}

TEST_F(ConnectDaemonTest, StrictTurnsFallbackIntoAnError) {
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"}, {"ZCBROKER_STRICT", "1"}};
  ASSERT_TRUE(Connect().ok());
  broker_.answer = WithFallbackReason(absl::NotFoundError("unknown"),
                                      FallbackReason::kBrokerRefusal);
  const absl::Status refused = Connect().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FallbackReasonOf(refused), FallbackReason::kBrokerRefusal);
  variables_ = {{"RUNNING_PROCESS_FAKE_BACKEND", dir_.Entry("dead")},
                {"ZCBROKER_STRICT", "1"}};
  EXPECT_EQ(Connect().status().code(), absl::StatusCode::kUnavailable);
  // Rows 1 and 4 are no fallback.
  variables_ = {{"ZCBROKER_STRICT", "1"}};
  EXPECT_TRUE(Connect().ok());
  variables_["RUNNING_PROCESS_DISABLE"] = "1";
  EXPECT_TRUE(Connect().ok());
  // Only "1" is strict.
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"}, {"ZCBROKER_STRICT", "yes"}};
  EXPECT_TRUE(Connect().ok());
}

TEST_F(ConnectDaemonTest, WithoutAnyDaemonTheErrorTellsBoth) {
  variables_ = {{"ZCCACHE_BROKER_CONNECT", "1"}};
  broker_.answer = WithFallbackReason(absl::AbortedError("hung up"),
                                      FallbackReason::kBrokerClosed);
  const absl::Status status =
      ConnectDaemonWithRoute(dir_.Entry("nobody"), options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(status.message(), "nobody")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "hung up")) << status;
  EXPECT_EQ(FallbackReasonOf(status), FallbackReason::kBrokerClosed);
}

TEST_F(ConnectDaemonTest, RefusesOptionsThatMakeNoSense) {
  EXPECT_EQ(ConnectDaemonWithRoute("relative", options_).status().code(),
            absl::StatusCode::kInvalidArgument);
  options_.accepted_lanes = {};
  EXPECT_EQ(Connect().status().code(), absl::StatusCode::kInvalidArgument);
  options_.accepted_lanes = {WireLane::kOpaque};
  EXPECT_EQ(Connect().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ConnectDaemonTest, TheShortFormGivesTheConnection) {
  auto connection = ConnectDaemon(direct_.path(), options_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(absl::Seconds(20))).ok());
}

}  // namespace
}  // namespace zcbroker::client
