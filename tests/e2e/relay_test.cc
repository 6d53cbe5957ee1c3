// Public names and the relay behind them, with plain bytes: what clients that
// know nothing of a broker send, and what becomes of it.
#include "service/host/relay.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

using ipc::WireLane;
using zccache::v1::Request;
using zccache::v1::Response;

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

std::string Bytes(const Request& request, WireLane lane) {
  return ipc::Encode(lane, request, 5).value();
}

Request Ping() {
  Request request;
  request.mutable_ping();
  request.set_request_id("mine");
  return request;
}

class RelayTest : public BrokerTest {
 protected:
  RelayTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
    StartBroker();
    EXPECT_TRUE(ipc::WaitFor([&] { return Exists(name()); }, "the named route",
                             kPatience));
  }

  std::string name() const {
    return home_.Entry("run/zcbroker/routes/demo/1.0.0.sock");
  }
  std::string info() const {
    return home_.Entry("run/zcbroker/routes/demo/1.0.0.info");
  }

  static void Send(const ipc::UniqueFd& fd, absl::string_view bytes) {
    ASSERT_TRUE(ipc::WriteAll(fd, bytes, ipc::Deadline::After(kPatience)).ok());
  }

  // The next whole reply, whatever its lane.
  static Response Receive(const ipc::UniqueFd& fd) {
    std::string buffer;
    for (;;) {
      ipc::Decoded<Response> decoded = ipc::DecodeResponse(buffer);
      if (decoded.result == ipc::DecodeResult::kMessage) {
        EXPECT_EQ(decoded.consumed_bytes, buffer.size()) << "more than asked";
        return decoded.message;
      }
      if (decoded.result != ipc::DecodeResult::kNeedMore) {
        ADD_FAILURE() << decoded.error;
        return {};
      }
      const auto more =
          ipc::ReadExactly(fd, decoded.needed_bytes - buffer.size(),
                           ipc::Deadline::After(kPatience));
      if (!more.ok()) {
        ADD_FAILURE() << more.status();
        return {};
      }
      buffer += *more;
    }
  }

  // Whether the connection ends without another byte.
  static bool Ends(const ipc::UniqueFd& fd) {
    char byte = 0;
    const auto n = ipc::ReadSome(fd, &byte, 1, ipc::Deadline::After(kPatience));
    return (n.ok() && *n == 0) || absl::IsAborted(n.status());
  }

  ipc::UniqueFd Connect() const { return ConnectTo(name()); }

  // The one backend; 0 where none is ready.
  v1::BackendRoute Backend() const {
    for (const v1::Backend& backend : Client().Backends()) {
      if (backend.has_route()) return backend.route();
    }
    return {};
  }
  pid_t BackendPid() const { return static_cast<pid_t>(Backend().pid()); }

  void ExpectPong() {
    const ipc::UniqueFd fd = Connect();
    Send(fd, Bytes(Ping(), WireLane::kFrameV1));
    EXPECT_TRUE(Receive(fd).has_pong());
  }
};

TEST_F(RelayTest, TheFirstRequestStartsTheBackendOnEveryLane) {
  EXPECT_EQ(BackendPid(), 0);
  for (const WireLane lane :
       {WireLane::kBincodeV15, WireLane::kProstV16, WireLane::kFrameV1}) {
    const ipc::UniqueFd fd = Connect();
    Send(fd, Bytes(Ping(), lane));
    EXPECT_TRUE(Receive(fd).has_pong());
  }
  EXPECT_EQ(Counter("backends_started"), 1u);
  EXPECT_EQ(Counter("relay.requests"), 3u);
}

TEST_F(RelayTest, PipelinedRequestsAreAnsweredInOrder) {
  const ipc::UniqueFd fd = Connect();
  Request status;
  status.mutable_status();
  Send(fd, absl::StrCat(Bytes(Ping(), WireLane::kBincodeV15),
                        Bytes(status, WireLane::kFrameV1),
                        Bytes(Ping(), WireLane::kProstV16)));
  EXPECT_TRUE(Receive(fd).has_pong());
  EXPECT_EQ(Receive(fd).status().version(), "1.0.0");
  const Response last = Receive(fd);
  EXPECT_TRUE(last.has_pong());
  EXPECT_EQ(last.request_id(), "mine");
}

TEST_F(RelayTest, ARequestMayArriveByteByByte) {
  const ipc::UniqueFd fd = Connect();
  for (const char byte : Bytes(Ping(), WireLane::kFrameV1)) {
    Send(fd, absl::string_view(&byte, 1));
  }
  EXPECT_TRUE(Receive(fd).has_pong());
}

TEST_F(RelayTest, AHalfCloseIsNoHangUp) {
  const ipc::UniqueFd fd = Connect();
  Send(fd, Bytes(Ping(), WireLane::kBincodeV15));
  ASSERT_EQ(shutdown(fd.get(), SHUT_WR), 0);
  EXPECT_TRUE(Receive(fd).has_pong());
  EXPECT_TRUE(Ends(fd));
}

TEST_F(RelayTest, ADeathBetweenTwoRequestsCostsNothing) {
  const ipc::UniqueFd fd = Connect();
  Send(fd, Bytes(Ping(), WireLane::kProstV16));
  EXPECT_TRUE(Receive(fd).has_pong());
  ASSERT_EQ(kill(BackendPid(), SIGKILL), 0);
  Send(fd, Bytes(Ping(), WireLane::kProstV16));
  EXPECT_TRUE(Receive(fd).has_pong());
  EXPECT_EQ(Counter("backends_started"), 2u);
}

TEST_F(RelayTest, ARequestOutlivesAWedgedBackend) {
  ExpectPong();
  const pid_t stopped = BackendPid();
  StopWhole(stopped);
  const ipc::UniqueFd fd = Connect();
  Send(fd, Bytes(Ping(), WireLane::kFrameV1));
  EXPECT_TRUE(Receive(fd).has_pong());
  EXPECT_NE(BackendPid(), stopped);
  EXPECT_EQ(Counter("backends_wedged"), 1u);
  EXPECT_EQ(Counter("relay.replays"), 1u);
}

TEST_F(RelayTest, WhatMayNotBeAskedTwiceIsNot) {
  ExpectPong();
  StopWhole(BackendPid());
  const ipc::UniqueFd fd = Connect();
  Request clear;
  clear.mutable_clear();
  Send(fd, Bytes(clear, WireLane::kProstV16));
  EXPECT_TRUE(Ends(fd));
  EXPECT_EQ(Counter("relay.not_replayed"), 1u);
  ExpectPong();
}

TEST_F(RelayTest, AClientThatHungUpIsDropped) {
  ExpectPong();
  StopWhole(BackendPid());
  {
    const ipc::UniqueFd fd = Connect();
    Send(fd, Bytes(Ping(), WireLane::kFrameV1));
  }
  EXPECT_TRUE(ipc::WaitFor([&] { return Counter("relay.hung_up") == 1; },
                           "the hang-up to be noticed", kPatience));
  ASSERT_EQ(kill(BackendPid(), SIGCONT), 0);
}

TEST_F(RelayTest, ARequestTooLargeToKeepIsPassedOnWithoutANet) {
  Request lookup;
  lookup.mutable_lookup()->set_cache_key(std::string(2 << 20, 'k'));
  const ipc::UniqueFd fd = Connect();
  Send(fd, Bytes(lookup, WireLane::kProstV16));
  EXPECT_NE(Receive(fd).body_case(), Response::BODY_NOT_SET);
  EXPECT_EQ(Counter("relay.without_net"), 1u);
  EXPECT_TRUE(TellsOfLimit("relay.without_net"));
  Send(fd, Bytes(Ping(), WireLane::kProstV16));
  EXPECT_TRUE(Receive(fd).has_pong());
  EXPECT_EQ(Counter("relay.without_net"), 1u);
}

// A request of exactly so many bytes on the wire.
std::string LookupOf(size_t bytes) {
  Request lookup;
  lookup.mutable_lookup()->set_cache_key(std::string(bytes, 'k'));
  const size_t around = Bytes(lookup, WireLane::kProstV16).size() - bytes;
  lookup.mutable_lookup()->set_cache_key(std::string(bytes - around, 'k'));
  return Bytes(lookup, WireLane::kProstV16);
}

TEST_F(RelayTest, SoManyBytesOfARequestAreKept) {
  constexpr size_t kEach = service::RelayLimits().kept_bytes_each;
  const ipc::UniqueFd fd = Connect();
  for (const size_t bytes : {kEach - 1, kEach, kEach + 1}) {
    const std::string request = LookupOf(bytes);
    ASSERT_EQ(request.size(), bytes);
    Send(fd, request);
    EXPECT_NE(Receive(fd).body_case(), Response::BODY_NOT_SET);
    EXPECT_EQ(Counter("relay.without_net"), bytes > kEach ? 1u : 0u) << bytes;
  }
}

TEST_F(RelayTest, SoManyBytesOfAllRequestsAreKept) {
  constexpr size_t kEach = service::RelayLimits().kept_bytes_each;
  constexpr size_t kAll = service::RelayLimits().kept_bytes;
  // They wait for its start, which is ended with the test.
  home_.Define("slow", ReferenceDefinition("slow", {"1.0.0"},
                                           {"--start-delay-ms", "60000"},
                                           "start_timeout { seconds: 60 }"));
  Client().Reload();
  const std::string slow = home_.Entry("run/zcbroker/routes/slow/1.0.0.sock");
  ASSERT_TRUE(
      ipc::WaitFor([&] { return Exists(slow); }, "its named route", kPatience));
  const auto arrived = [this](uint64_t requests) {
    return ipc::WaitFor([&] { return Counter("relay.requests") == requests; },
                        absl::StrCat(requests, " requests"), kPatience);
  };
  std::vector<ipc::UniqueFd> waiting;
  const std::string request = LookupOf(kEach);
  for (size_t kept = 0; kept < kAll; kept += kEach) {
    waiting.push_back(ConnectTo(slow));
    Send(waiting.back(), request);
  }
  ASSERT_TRUE(arrived(kAll / kEach));
  EXPECT_EQ(Counter("relay.without_net"), 0u);
  waiting.push_back(ConnectTo(slow));
  Send(waiting.back(), Bytes(Ping(), WireLane::kProstV16));
  ASSERT_TRUE(arrived(kAll / kEach + 1));
  EXPECT_EQ(Counter("relay.without_net"), 1u);
}

TEST_F(RelayTest, GarbageAfterARequestLeaksNothing) {
  ExpectPong();
  const auto descriptors = [this] {
    return std::distance(std::filesystem::directory_iterator(absl::StrCat(
                             "/proc/", broker().process().pid(), "/fd")),
                         std::filesystem::directory_iterator());
  };
  const auto before = descriptors();
  for (int i = 0; i < 20; ++i) {
    const ipc::UniqueFd fd = Connect();
    Send(fd, Bytes(Ping(), WireLane::kFrameV1));
    EXPECT_TRUE(Receive(fd).has_pong());
    Send(fd, std::string(16, '\0'));
    EXPECT_TRUE(Ends(fd));
  }
  // One spare connection, and the one that asked.
  EXPECT_TRUE(ipc::WaitFor([&] { return descriptors() <= before + 3; },
                           "descriptors to be closed", kPatience));
}

TEST_F(RelayTest, ALargeRequestOutlivesAWedgedBackend) {
  ExpectPong();
  StopWhole(BackendPid());
  Request lookup;
  // More than a socket takes, less than is kept.
  lookup.mutable_lookup()->set_cache_key(std::string(900 << 10, 'k'));
  const ipc::UniqueFd fd = Connect();
  Send(fd, Bytes(lookup, WireLane::kProstV16));
  EXPECT_NE(Receive(fd).body_case(), Response::BODY_NOT_SET);
  EXPECT_EQ(Counter("backends_wedged"), 1u);
}

TEST_F(RelayTest, HalfARequestIsNotWaitedForLong) {
  const ipc::UniqueFd fd = Connect();
  Send(fd, absl::string_view(Bytes(Ping(), WireLane::kFrameV1)).substr(0, 10));
  EXPECT_TRUE(Ends(fd));
  EXPECT_EQ(Counter("relay.slow_requests"), 1u);
  EXPECT_TRUE(TellsOfLimit("relay.slow_requests"));
}

TEST_F(RelayTest, OfSoManyConnectionsTheLongestIdleMakesRoom) {
  home_.SetPolicy("limits { relayed_connections: 3 }");
  Client().Reload();
  const std::string half = Bytes(Ping(), WireLane::kFrameV1).substr(0, 4);
  const auto served = [&] {
    ipc::UniqueFd fd = Connect();
    Send(fd, Bytes(Ping(), WireLane::kFrameV1));
    EXPECT_TRUE(Receive(fd).has_pong());
    return fd;
  };
  const ipc::UniqueFd first = served();
  const ipc::UniqueFd second = served();
  const ipc::UniqueFd third = served();
  EXPECT_EQ(Counter("relay.idle_ended"), 0u);
  const ipc::UniqueFd fourth = served();
  EXPECT_TRUE(Ends(first));
  EXPECT_EQ(Counter("relay.idle_ended"), 1u);
  EXPECT_TRUE(TellsOfLimit("relay.idle_ended"));
  // Whoever has begun to say something is not idle.
  for (const ipc::UniqueFd* fd : {&second, &third, &fourth}) Send(*fd, half);
  const ipc::UniqueFd fifth = Connect();
  EXPECT_TRUE(Ends(fifth));
  EXPECT_EQ(Counter("relay.limit"), 1u);
  EXPECT_TRUE(TellsOfLimit("relay.limit"));
}

// As the broker, so the relay: whoever is idle is no hindrance.
TEST_F(RelayTest, WithoutDescriptorsTheLongestIdleMakesRoom) {
  if (kChecksNeedPipes) GTEST_SKIP() << "the sanitizer needs descriptors";
  StopBroker();
  Broker::Options options;
  options.descriptor_limit = 160;
  StartBroker(options);
  ASSERT_TRUE(ipc::WaitFor([&] { return Exists(name()); }, "the named route",
                           kPatience));
  std::vector<ipc::UniqueFd> idle;
  for (int i = 0; i < 200; ++i) idle.push_back(Connect());
  ExpectPong();
  EXPECT_GT(Counter("relay.idle_ended"), 0u);
  EXPECT_TRUE(Ends(idle.front()));
}

TEST_F(RelayTest, WhatIsNotUnderstoodIsTheBackendsToRefuse) {
  const ipc::UniqueFd fd = Connect();
  Send(fd, "GET / HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(Ends(fd));
  EXPECT_EQ(Counter("relay.streams"), 1u);
  ExpectPong();
}

TEST_F(RelayTest, ShutdownWhileNothingRunsStartsNothing) {
  const ipc::UniqueFd fd = Connect();
  Request shutdown;
  shutdown.mutable_shutdown();
  Send(fd, Bytes(shutdown, WireLane::kProstV16));
  EXPECT_TRUE(Receive(fd).has_shutting_down());
  EXPECT_FALSE(Exists(name())) << "whoever stops waits to see it gone";
  EXPECT_EQ(BackendPid(), 0);
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Exists(name()); }, "the name", kPatience));
  EXPECT_EQ(Counter("backends_started"), 0u);
}

TEST_F(RelayTest, ShutdownIsPassedOnAndItsBackendStaysGone) {
  ExpectPong();
  Request shutdown;
  shutdown.mutable_shutdown();
  const ipc::UniqueFd fd = Connect();
  Send(fd, Bytes(shutdown, WireLane::kFrameV1));
  EXPECT_TRUE(Receive(fd).has_shutting_down());
  EXPECT_TRUE(ipc::WaitFor([&] { return Counter("backends_ended") == 1; },
                           "the backend to end", kPatience));
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Exists(name()); }, "the name", kPatience));
  EXPECT_EQ(Counter("backends_started"), 1u);
  ExpectPong();
  EXPECT_EQ(Counter("backends_started"), 2u);
}

TEST_F(RelayTest, TheRouteInfoSaysWhereTheBackendIsWhileItIsThere) {
  EXPECT_FALSE(Exists(info()));
  ExpectPong();
  const v1::BackendRoute route = Backend();
  EXPECT_EQ(route.named_route(), name());
  ASSERT_TRUE(Exists(info()));
  ASSERT_EQ(kill(static_cast<pid_t>(route.pid()), SIGKILL), 0);
  EXPECT_TRUE(ipc::WaitFor([&] { return !Exists(info()); },
                           "the info to be withdrawn", kPatience));
}

TEST_F(RelayTest, ANameThatSomebodyRemovesComesBack) {
  ASSERT_EQ(unlink(name().c_str()), 0);
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Exists(name()); }, "the name", kPatience));
  ExpectPong();
}

TEST_F(RelayTest, AnOrderlyExitLeavesALinkToWhatRuns) {
  ExpectPong();
  StopBroker();
  // Both lead to it without a broker.
  EXPECT_TRUE(Exists(info()));
  ExpectPong();
}

class ReportTest : public RelayTest {
 protected:
  v1::ReportBackendResponse Report(const v1::BackendRoute& route) {
    v1::ReportBackendRequest request;
    request.set_service("demo");
    request.set_version("1.0.0");
    request.set_pid(route.pid());
    request.set_start_time(route.start_time());
    request.set_reason("did not answer a test");
    grpc::ClientContext context;
    v1::ReportBackendResponse response;
    GrpcClient client(socket());
    const grpc::Status status =
        client.broker().ReportBackend(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
};

TEST_F(ReportTest, ABackendThatWorksIsBusy) {
  ExpectPong();
  EXPECT_EQ(Report(Backend()).verdict(), v1::BACKEND_VERDICT_BUSY);
}

TEST_F(ReportTest, AStoppedBackendIsGoneWhenItIsReported) {
  ExpectPong();
  const v1::BackendRoute route = Backend();
  StopWhole(static_cast<pid_t>(route.pid()));
  const v1::ReportBackendResponse response = Report(route);
  EXPECT_EQ(response.verdict(), v1::BACKEND_VERDICT_GONE);
  EXPECT_TRUE(std::any_of(response.evidence().begin(),
                          response.evidence().end(),
                          [](const std::string& line) {
                            return absl::StrContains(line, "stopped (state T)");
                          }));
  EXPECT_EQ(kill(static_cast<pid_t>(route.pid()), 0), -1) << "it is reaped";
  // Also for who comes late, and nobody is taken for somebody else.
  EXPECT_EQ(Report(route).verdict(), v1::BACKEND_VERDICT_GONE);
}

TEST_F(ReportTest, AStrangerIsUnknown) {
  v1::BackendRoute route;
  route.set_pid(1);
  EXPECT_EQ(Report(route).verdict(), v1::BACKEND_VERDICT_UNKNOWN);
}

TEST_F(BrokerTest, WhatIsNoSocketAtANameIsLeftAloneAndSaid) {
  const std::string directory = home_.Entry("run/zcbroker/routes/demo");
  ASSERT_EQ(mkdir(home_.Entry("run/zcbroker/routes").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(directory.c_str(), 0700), 0);
  ASSERT_EQ(symlink("1.0.0.sock", (directory + "/1.0.0.sock").c_str()), 0);
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  StartBroker();
  bool said = false;
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const v1::GetStatusResponse status = Client().Status();
        for (const v1::Problem& problem : status.problems()) {
          said |= problem.where() == directory + "/1.0.0.sock";
        }
        return said;
      },
      "the problem", kPatience));
  EXPECT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
}

TEST_F(BrokerTest, RoutesThatOthersMayWriteAreNotUsed) {
  ASSERT_EQ(mkdir(home_.Entry("run/zcbroker/routes").c_str(), 0700), 0);
  ASSERT_EQ(chmod(home_.Entry("run/zcbroker/routes").c_str(), 0777), 0);
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  StartBroker();
  bool said = false;
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const v1::GetStatusResponse status = Client().Status();
        for (const v1::Problem& problem : status.problems()) {
          said |= absl::StrContains(problem.what(), "0700");
        }
        return said;
      },
      "the problem", kPatience));
  EXPECT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  EXPECT_FALSE(Exists(home_.Entry("run/zcbroker/routes/demo")));
}

}  // namespace
}  // namespace zcbroker::testing
