// Row 3 of ConnectDaemon by route info: no broker on a hit, one negotiation
// where it leads nowhere, and what a mute broker costs.
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "client/fallback.h"
#include "client/fallback_records.h"
#include "client/framed_negotiator.h"
#include "client/testing/fake_daemon.h"
#include "gtest/gtest.h"
#include "ipc/boot_clock.h"
#include "ipc/breaker.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/process.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/fake_server.h"
#include "ipc/testing/foreign_listener.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::client {
namespace {

using ipc::WireLane;

constexpr char kVersion[] = "1.11.22";
constexpr NegotiationBudgets kShort = {absl::Milliseconds(50),
                                       absl::Milliseconds(200)};

// A child of this very process that does as it is told when it is told. What it
// is forked from must have no other threads: a lock that one of them held then
// would never be let go of.
class ForkedChild {
 public:
  // `act` gives its exit status. The test's objects are its own copies.
  explicit ForkedChild(const std::function<int()>& act) {
    int gate[2];
    EXPECT_EQ(pipe(gate), 0);
    pid_ = fork();
    if (pid_ == 0) {
      close(gate[1]);
      char byte = 0;
      _exit(read(gate[0], &byte, 1) == 1 ? act() : 0);
    }
    close(gate[0]);
    gate_.reset(gate[1]);
  }
  ForkedChild(ForkedChild&& other) noexcept
      : gate_(std::move(other.gate_)), pid_(std::exchange(other.pid_, -1)) {}
  ForkedChild& operator=(ForkedChild&&) = delete;
  ~ForkedChild() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  void Begin() { EXPECT_EQ(write(gate_.get(), "", 1), 1); }
  // Its exit status, or -1 where it had none.
  int Wait() {
    int status = 0;
    EXPECT_GT(waitpid(std::exchange(pid_, -1), &status, 0), 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  ipc::UniqueFd gate_;
  pid_t pid_ = -1;
};

// Before any daemon runs.
class ConnectByInfoForkTest : public testing::Test {
 protected:
  ConnectByInfoForkTest()
      : runtime_(*ipc::RuntimeDir::OpenOrCreate(dir_.inputs())) {
    variables_["XDG_RUNTIME_DIR"] = dir_.path();
    variables_["ZCCACHE_BROKER_CONNECT"] = "1";
    variables_["ZCCACHE_CACHE_DIR"] = "/cache";
    options_.wanted_version = kVersion;
    options_.environment =
        [this](absl::string_view name) -> absl::optional<std::string> {
      const auto found = variables_.find(std::string(name));
      if (found == variables_.end()) return absl::nullopt;
      return found->second;
    };
    // Counts how often a negotiator is made: for gRPC's that is where the
    // first of its objects would be.
    options_.negotiator = [this](const ipc::EnvironmentLookup& environment)
        -> absl::StatusOr<std::unique_ptr<BrokerNegotiator>> {
      ++negotiators_made_;
      return FramedBroker(kShort)(environment);
    };
  }

  // Which have threads of this process.
  void StartDaemons() {
    direct_ = std::make_unique<FakeDaemon>(direct_path(),
                                           FakeDaemon::Answering("direct"));
    backend_ = std::make_unique<FakeDaemon>(backend_path(),
                                            FakeDaemon::Answering("backend"));
  }
  std::string direct_path() const { return dir_.Entry("direct"); }
  std::string backend_path() const { return dir_.Entry("backend"); }

  zcbroker::v1::RouteInfo Info() {
    zcbroker::v1::RouteInfo info;
    info.set_service("zccache");
    info.set_version(kVersion);
    info.set_endpoint(backend_path());
    info.add_lanes(ipc::WireLaneNumber(WireLane::kProstV16));
    info.add_lanes(ipc::WireLaneNumber(WireLane::kBincodeV15));
    info.set_pid(static_cast<std::uint32_t>(getpid()));
    info.set_start_time(99);
    info.set_boot_id("boot");
    info.set_generation(3);
    info.set_cache_root("/cache");
    info.set_daemon_namespace("default");
    info.set_mount_namespace(*ipc::OwnMountNamespace());
    return info;
  }
  void Write(const zcbroker::v1::RouteInfo& info) {
    const absl::Status written = ipc::WriteRouteInfo(runtime_, info);
    ASSERT_TRUE(written.ok()) << written;
  }
  absl::StatusOr<ConnectedDaemon> Connect() {
    return ConnectDaemonWithRoute(direct_path(), options_);
  }
  static std::string Reached(absl::StatusOr<ConnectedDaemon>& connected) {
    if (!connected.ok()) return connected.status().ToString();
    const auto status = connected->connection.GetStatus(
        ipc::Deadline::After(absl::Seconds(20)));
    return status.ok() ? status->version() : status.status().ToString();
  }
  // The info leads nowhere, so the broker, which is missing, is asked.
  void ExpectAskedInVain() {
    const int before = negotiators_made_;
    auto connected = Connect();
    EXPECT_EQ(Reached(connected), "direct");
    EXPECT_EQ(connected->route.fallback, FallbackReason::kBrokerMissing);
    EXPECT_EQ(negotiators_made_, before + 1);
  }

  ipc::ScopedRuntimeDir dir_;
  ipc::RuntimeDir runtime_;
  std::unique_ptr<FakeDaemon> direct_;
  std::unique_ptr<FakeDaemon> backend_;
  std::map<std::string, std::string> variables_;
  ConnectOptions options_;
  int negotiators_made_ = 0;
};

class ConnectByInfoTest : public ConnectByInfoForkTest {
 protected:
  ConnectByInfoTest() { StartDaemons(); }
};

TEST_F(ConnectByInfoTest, AHitAsksNoBrokerAndMakesNoNegotiator) {
  Write(Info());
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "backend");
  EXPECT_EQ(negotiators_made_, 0);
  EXPECT_EQ(connected->route.lane, ConnectLane::kBroker);
  EXPECT_EQ(connected->route.endpoint, backend_path());
  EXPECT_FALSE(connected->route.fallback.has_value());
  EXPECT_EQ(connected->connection.lane(), WireLane::kProstV16);
  const BackendRoute& backend = *connected->route.backend;
  EXPECT_EQ(backend.origin, RouteOrigin::kNamed);
  EXPECT_EQ(backend.version, kVersion);
  EXPECT_EQ(backend.pid, getpid());
  EXPECT_EQ(backend.start_time, 99U);
  EXPECT_EQ(backend.boot_id, "boot");
  EXPECT_EQ(backend.generation, 3U);
  EXPECT_TRUE(ReadFallbackRecords(runtime_)->empty());
}

TEST_F(ConnectByInfoTest, AnInfoThatChangesIsReadAgain) {
  Write(Info());
  auto first = Connect();
  ASSERT_EQ(Reached(first), "backend");
  // The same twice, from memory.
  auto known = Connect();
  EXPECT_EQ(Reached(known), "backend");
  EXPECT_EQ(known->route.backend->generation, 3U);
  // Elsewhere now.
  FakeDaemon successor(dir_.Entry("successor"),
                       FakeDaemon::Answering("successor"));
  zcbroker::v1::RouteInfo info = Info();
  info.set_endpoint(successor.path());
  info.set_generation(4);
  Write(info);
  auto next = Connect();
  EXPECT_EQ(Reached(next), "successor");
  EXPECT_EQ(next->route.backend->generation, 4U);
  // Another world of this process.
  variables_["ZCCACHE_CACHE_DIR"] = "/elsewhere";
  ExpectAskedInVain();
  variables_["ZCCACHE_CACHE_DIR"] = "/cache";
  // Gone.
  ASSERT_TRUE(ipc::RemoveRouteInfo(runtime_, "zccache", kVersion).ok());
  ExpectAskedInVain();
  EXPECT_EQ(negotiators_made_, 2);
}

TEST_F(ConnectByInfoTest, AKnownRouteThatDiedIsAQuestionToo) {
  {
    FakeDaemon mortal(dir_.Entry("mortal"), FakeDaemon::Answering("mortal"));
    zcbroker::v1::RouteInfo info = Info();
    info.set_endpoint(mortal.path());
    Write(info);
    auto first = Connect();
    ASSERT_EQ(Reached(first), "mortal");
  }
  ExpectAskedInVain();
}

TEST_F(ConnectByInfoForkTest, AKnownRouteIsNotForAnotherMountNamespace) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ForkedChild child([this] {
    auto first = Connect();
    if (Reached(first) != "backend") return 1;
    if (unshare(CLONE_NEWNS) != 0) return 77;
    auto there = Connect();
    return there.ok() && there->route.lane == ConnectLane::kDirect ? 0 : 2;
  });
  StartDaemons();
  Write(Info());
  child.Begin();
  const int status = child.Wait();
  if (status == 77) GTEST_SKIP() << "unshare is forbidden";
  EXPECT_EQ(status, 0);
}

TEST_F(ConnectByInfoTest, AHitNeedsNoNegotiatorAtAll) {
  Write(Info());
  options_.negotiator = nullptr;
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "backend");
}

TEST_F(ConnectByInfoTest, OnlyRowThreeReadsIt) {
  Write(Info());
  variables_.erase("ZCCACHE_BROKER_CONNECT");
  auto row4 = Connect();
  EXPECT_EQ(Reached(row4), "direct");
  variables_["ZCCACHE_BROKER_CONNECT"] = "1";
  variables_["RUNNING_PROCESS_DISABLE"] = "1";
  auto row1 = Connect();
  EXPECT_EQ(Reached(row1), "direct");
}

TEST_F(ConnectByInfoTest, WithoutOneTheBrokerIsAsked) { ExpectAskedInVain(); }

TEST_F(ConnectByInfoTest, AStaleOneIsNoFallbackButAQuestion) {
  zcbroker::v1::RouteInfo info = Info();
  info.set_endpoint(dir_.Entry("gone"));
  Write(info);
  ExpectAskedInVain();
  { auto dead = ipc::Listener::Bind(*ipc::Endpoint::Parse(info.endpoint())); }
  ExpectAskedInVain();
}

TEST_F(ConnectByInfoTest, AnotherProcessAtItsEndpointIsNotItsBackend) {
  zcbroker::v1::RouteInfo info = Info();
  info.set_pid(static_cast<std::uint32_t>(getppid()));
  Write(info);
  ExpectAskedInVain();
  // The broker could not tell which it is.
  info.clear_pid();
  Write(info);
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "backend");
}

TEST_F(ConnectByInfoForkTest, NorIsItThatOfAKnownRoute) {
  const std::string path = dir_.Entry("taken");
  int bound[2];
  ASSERT_EQ(pipe(bound), 0);
  const ipc::UniqueFd reads(bound[0]);
  ipc::UniqueFd writes(bound[1]);
  int end[2];
  ASSERT_EQ(pipe(end), 0);
  const ipc::UniqueFd ended(end[0]);
  ipc::UniqueFd ends(end[1]);
  // Another process that listens there, while the info stays as it was.
  ForkedChild other([&] {
    ends.reset();
    auto listener = ipc::Listener::Bind(*ipc::Endpoint::Parse(path));
    char byte = 0;
    if (!listener.ok() || write(writes.get(), &byte, 1) != 1) return 1;
    return read(ended.get(), &byte, 1) == 0 ? 0 : 2;
  });
  writes.reset();
  StartDaemons();
  zcbroker::v1::RouteInfo info = Info();
  info.set_endpoint(path);
  {
    FakeDaemon first(path, FakeDaemon::Answering("first"));
    Write(info);
    auto connected = Connect();
    ASSERT_EQ(Reached(connected), "first");
  }
  other.Begin();
  char byte = 0;
  ASSERT_EQ(read(reads.get(), &byte, 1), 1);
  ExpectAskedInVain();
  ends.reset();
  EXPECT_EQ(other.Wait(), 0);
}

TEST_F(ConnectByInfoTest, AnotherWorldIsNotEntered) {
  const std::string mount = *ipc::OwnMountNamespace();
  for (const auto& [cache, space, mnt] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"/other", "default", mount},
           {"/cache", "other", mount},
           {"/cache", "default", "mnt:[1]"}}) {
    zcbroker::v1::RouteInfo info = Info();
    info.set_cache_root(cache);
    info.set_daemon_namespace(space);
    info.set_mount_namespace(mnt);
    Write(info);
    ExpectAskedInVain();
  }
  // What the broker did not tell is not compared.
  zcbroker::v1::RouteInfo info = Info();
  info.clear_cache_root();
  info.clear_daemon_namespace();
  info.clear_mount_namespace();
  Write(info);
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "backend");
}

TEST_F(ConnectByInfoTest, NoCommonLaneIsNotUsed) {
  zcbroker::v1::RouteInfo info = Info();
  info.clear_lanes();
  info.add_lanes(ipc::WireLaneNumber(WireLane::kOpaque));
  info.add_lanes(77);  // of a later version
  Write(info);
  ExpectAskedInVain();
  options_.accepted_lanes = {WireLane::kBincodeV15};
  Write(Info());
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "backend");
  EXPECT_EQ(connected->connection.lane(), WireLane::kBincodeV15);
}

TEST_F(ConnectByInfoTest, ASocketOfAnotherUserIsNotUsed) {
  if (!ipc::ForeignListener::IsPossible()) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chmod(dir_.path().c_str(), 0777), 0);
  const ipc::ForeignListener foreign(dir_.Entry("foreign"));
  ASSERT_EQ(chmod(dir_.path().c_str(), 0700), 0);
  zcbroker::v1::RouteInfo info = Info();
  info.set_endpoint(dir_.Entry("foreign"));
  Write(info);
  ExpectAskedInVain();
}

TEST_F(ConnectByInfoTest, AHostileRoutesDirectoryIsNotUsed) {
  Write(Info());
  ASSERT_EQ(chmod(runtime_.Entry("routes").c_str(), 0777), 0);
  ExpectAskedInVain();
}

TEST_F(ConnectByInfoTest, AFallbackLeavesItsRecord) {
  ExpectAskedInVain();
  const auto records = ReadFallbackRecords(runtime_);
  ASSERT_TRUE(records.ok());
  ASSERT_EQ(records->size(), 1U);
  EXPECT_EQ((*records)[0].reason, FallbackReason::kBrokerMissing);
  EXPECT_EQ((*records)[0].origin, FallbackOrigin::kLibrary);
  EXPECT_EQ((*records)[0].service, "zccache");
  EXPECT_EQ((*records)[0].version, kVersion);
  variables_["ZCBROKER_STRICT"] = "1";
  EXPECT_FALSE(Connect().ok());
  EXPECT_EQ(ReadFallbackRecords(runtime_)->size(), 1U);
}

// --- The breaker

TEST_F(ConnectByInfoTest, AMuteBrokerIsWaitedForOnceNotByEveryClient) {
  const ipc::FakeServer broker(
      runtime_.broker_socket(),
      [](ipc::UniqueFd& fd, int) { ipc::StayMute(fd); });
  auto first = Connect();
  EXPECT_EQ(Reached(first), "direct");
  EXPECT_EQ(first->route.fallback, FallbackReason::kBrokerMute);
  const int connections = broker.connections();
  for (int i = 0; i < 5; ++i) {
    const absl::Time start = absl::Now();
    auto next = Connect();
    EXPECT_LT(absl::Now() - start, absl::Seconds(4));
    EXPECT_EQ(Reached(next), "direct");
    EXPECT_EQ(next->route.fallback, FallbackReason::kBreakerOpen);
  }
  EXPECT_EQ(broker.connections(), connections);
  // A broker that starts is asked at once.
  ASSERT_TRUE(ipc::RemoveBreaker(runtime_).ok());
  auto asked = Connect();
  EXPECT_EQ(asked->route.fallback, FallbackReason::kBrokerMute);
}

TEST_F(ConnectByInfoTest, AnOpenBreakerNeverHidesAnInfo) {
  const ipc::FakeServer broker(
      runtime_.broker_socket(),
      [](ipc::UniqueFd& fd, int) { ipc::StayMute(fd); });
  auto mute = Connect();
  ASSERT_EQ(mute->route.fallback, FallbackReason::kBrokerMute);
  Write(Info());
  auto connected = Connect();
  EXPECT_EQ(Reached(connected), "backend");
}

TEST_F(ConnectByInfoTest, ARefusedOrMissingSocketOpensNoBreaker) {
  ExpectAskedInVain();
  {
    const ipc::FakeServer gone(runtime_.broker_socket(),
                               [](ipc::UniqueFd&, int) {});
  }
  auto refused = Connect();
  EXPECT_EQ(refused->route.fallback, FallbackReason::kBrokerRefused);
  EXPECT_FALSE(ipc::ReadBreaker(runtime_).has_value());
}

TEST_F(ConnectByInfoTest, ABrokerThatHangsUpOpensNoBreaker) {
  const ipc::FakeServer broker(runtime_.broker_socket(),
                               [](ipc::UniqueFd&, int) {});
  auto closed = Connect();
  EXPECT_EQ(closed->route.fallback, FallbackReason::kBrokerClosed);
  EXPECT_FALSE(ipc::ReadBreaker(runtime_).has_value());
}

TEST_F(ConnectByInfoTest, TheProberThatIsHeardClosesIt) {
  const ipc::FakeServer broker(runtime_.broker_socket(),
                               [](ipc::UniqueFd&, int) {});
  // Opened longer ago than it lasts.
  ipc::Breaker old(runtime_, runtime_.broker_socket());
  old.Look(ipc::SinceBoot());
  old.Trip(ipc::SinceBoot() - 2 * ipc::kBreakerTime);
  ASSERT_TRUE(ipc::ReadBreaker(runtime_).has_value());
  auto probed = Connect();
  EXPECT_EQ(probed->route.fallback, FallbackReason::kBrokerClosed);
  EXPECT_FALSE(ipc::ReadBreaker(runtime_).has_value());
}

TEST_F(ConnectByInfoForkTest, ManyProcessesAtOnceAllGetTheirDaemon) {
  std::vector<ForkedChild> children;
  for (int i = 0; i < 32; ++i) {
    children.emplace_back([this] {
      for (int n = 0; n < 20; ++n) {
        auto connected = Connect();
        if (Reached(connected) != "backend") return 1;
      }
      return negotiators_made_ == 0 ? 0 : 2;
    });
  }
  StartDaemons();
  Write(Info());
  for (ForkedChild& child : children) child.Begin();
  // Replaced all the while, as a broker does with each generation.
  for (int i = 0; i < 200; ++i) {
    zcbroker::v1::RouteInfo info = Info();
    info.set_generation(static_cast<std::uint64_t>(i));
    Write(info);
  }
  for (ForkedChild& child : children) EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace zcbroker::client
