// Backends that started themselves (Broker.Register): the reference backend,
// and this process, which listens itself to say what a real one would not.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "client/daemon_connection.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

std::string OwnProgram() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof(path));
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : "";
}

std::string KeeperProgram() {
  char resolved[PATH_MAX];
  return realpath(getenv("ZCBROKER_KEEPER"), resolved);
}

// A call of Register by this process.
class Registering {
 public:
  Registering(GrpcClient& client, const std::string& service,
              const std::string& version, const std::string& endpoint)
      : stream_(client.broker().Register(&context_)) {
    request_.set_service(service);
    request_.set_version(version);
    request_.set_endpoint(endpoint);
  }
  ~Registering() { context_.TryCancel(); }

  v1::RegisterRequest& request() { return request_; }
  // The route; nothing where it is refused.
  absl::optional<v1::BackendRoute> Ask() {
    stream_->Write(request_);
    v1::RegisterResponse response;
    if (!stream_->Read(&response)) return absl::nullopt;
    return response.route();
  }
  void GiveUp() { stream_->WritesDone(); }
  void Vanish() { context_.TryCancel(); }
  // How it ended.
  GrpcAnswer AwaitEnd() {
    v1::RegisterResponse response;
    EXPECT_FALSE(stream_->Read(&response)) << "one answer, and no more";
    return ReadAnswer(stream_->Finish(), {});
  }

 private:
  grpc::ClientContext context_;
  v1::RegisterRequest request_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::RegisterRequest, v1::RegisterResponse>>
      stream_;
};

class RegisterTest : public BrokerTest {
 protected:
  RegisterTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "2.0.0"}));
    home_.Define("own", PlainDefinition("own", OwnProgram()));
    listener_.emplace(
        *ipc::Listener::Bind(*ipc::Endpoint::Parse(own_endpoint())));
  }

  std::string endpoint() const { return home_.Entry("work/demo.sock"); }
  std::string own_endpoint() const { return home_.Entry("work/own.sock"); }

  // The reference backend, which registers itself as the service demo.
  Process StartDemo(const std::string& version = "1.0.0") const {
    return StartAs("demo", version, home_.environment());
  }
  Process StartAs(const std::string& service, const std::string& version,
                  const Environment& environment) const {
    return Process({BackendProgram(), "--endpoint", endpoint(),
                    "--report-version", version, "--register", service},
                   environment);
  }
  // So that it neither withdraws nor writes anything any more.
  void KillBroker() {
    broker().process().Signal(SIGKILL);
    EXPECT_EQ(AwaitBrokersEnd(), 128 + SIGKILL);
  }
  std::string InfoFile() const {
    return home_.Entry("run/zcbroker/routes/demo/1.0.0.info");
  }
  // The process that compiles for a client of demo 1.0.0, which finds it by
  // its route info first; empty where there is none.
  std::string WhoCompiles() const {
    return RunToEnd(
               {CommandLineProgram(), "compile", "--service", "demo",
                "--wanted", "1.0.0", "--", "/bin/sh", "-c", "printf %s $PPID"},
               home_.environment())
        .out;
  }
  // Somebody asks for demo 1.0.0 and waits for the answer.
  std::future<GrpcAnswer> Ask() const {
    const uint64_t before = Counter("negotiations");
    std::future<GrpcAnswer> answer = std::async(std::launch::async, [this] {
      return Client().Negotiate("demo", "1.0.0");
    });
    EXPECT_TRUE(ipc::WaitFor([&] { return Counter("negotiations") > before; },
                             "the question to arrive", kPatience));
    return answer;
  }

  GrpcAnswer FindRunning(const std::string& service) const {
    v1::NegotiateRequest request = RequestFor(service, "1.0.0");
    request.set_start_policy(v1::START_POLICY_ONLY_IF_RUNNING);
    return Client().Negotiate(request);
  }
  void AwaitRegistrations(uint64_t count) const {
    ASSERT_TRUE(
        ipc::WaitFor([&] { return Counter("backends_registered") == count; },
                     absl::StrCat(count, " registrations"), kPatience));
  }
  v1::Backend Row(const std::string& service) const {
    for (const v1::Backend& backend : Client().Backends()) {
      if (backend.service() == service) return backend;
    }
    return {};
  }

  absl::optional<ipc::Listener> listener_;
};

TEST_F(RegisterTest, ItsClientsAreRoutedToItInEveryWay) {
  StartBroker();
  const Process demo = StartDemo();
  AwaitRegistrations(1);
  const GrpcAnswer grpc = FindRunning("demo");
  ASSERT_TRUE(grpc.ok()) << grpc.status.error_message();
  EXPECT_EQ(grpc.response.route().endpoint(), endpoint());
  EXPECT_EQ(grpc.response.route().pid(), static_cast<uint32_t>(demo.pid()));
  const FramedAnswer framed = NegotiateFramed(socket(), "demo", "1.0.0");
  ASSERT_TRUE(framed.negotiated.has_value());
  EXPECT_EQ(framed.negotiated->backend_pipe(), endpoint());
  // The relay, at its named route.
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        struct stat status;
        return stat(grpc.response.route().named_route().c_str(), &status) == 0;
      },
      "its named route", kPatience));
  client::DaemonConnection relayed(
      ConnectTo(grpc.response.route().named_route()), ipc::WireLane::kFrameV1);
  const absl::Status pong = relayed.Ping(ipc::Deadline::After(kPatience));
  EXPECT_TRUE(pong.ok()) << pong;
  EXPECT_EQ(Row("demo").origin(), v1::ROUTE_ORIGIN_ADOPTED);
  EXPECT_EQ(Counter("backends_started"), 0u);
}

TEST_F(RegisterTest, ItsRouteGoesWhenItDiesAndTheNextOneIsOurs) {
  StartBroker();
  Process demo = StartDemo();
  AwaitRegistrations(1);
  demo.Signal(SIGKILL);
  EXPECT_EQ(demo.Wait(), 128 + SIGKILL);
  ASSERT_TRUE(ipc::WaitFor([&] { return Counter("backends_ended") == 1; },
                           "its end to be noticed", kPatience));
  const GrpcAnswer next = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(next.ok()) << next.status.error_message();
  EXPECT_NE(next.response.route().endpoint(), endpoint());
  EXPECT_EQ(next.response.route().generation(), 2u);
  EXPECT_EQ(Counter("backends_started"), 1u);
}

TEST_F(RegisterTest, ItRegistersWithTheNextBroker) {
  StartBroker();
  Process demo = StartDemo();
  AwaitRegistrations(1);
  StopBroker();
  EXPECT_TRUE(IsRunning(demo.pid()));
  StartBroker();
  AwaitRegistrations(1);
  EXPECT_EQ(FindRunning("demo").response.route().pid(),
            static_cast<uint32_t>(demo.pid()));
  // It ends in order, too.
  demo.Signal(SIGTERM);
  EXPECT_EQ(demo.Wait(), 0);
  EXPECT_TRUE(ipc::WaitFor(
      [&] { return Row("demo").state() == v1::BACKEND_STATE_GONE; },
      "its end to be noticed", kPatience));
}

// --- Between two brokers

// A stopped one cannot register again before somebody asks.
TEST_F(RegisterTest, TheNextBrokerAwaitsItAndStartsNoneBesideIt) {
  for (const bool in_order : {true, false}) {
    StartBroker();
    Process demo = StartDemo();
    AwaitRegistrations(1);
    if (in_order) {
      StopBroker();
      demo.StopWhole();
    } else {
      demo.StopWhole();
      KillBroker();
    }
    StartBroker();
    std::future<GrpcAnswer> asked = Ask();
    demo.Signal(SIGCONT);
    const GrpcAnswer answer = asked.get();
    ASSERT_TRUE(answer.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.response.route().pid(), static_cast<uint32_t>(demo.pid()));
    EXPECT_EQ(Counter("backends_started"), 0u);
    EXPECT_EQ(Counter("backends_registered"), 1u);
    demo.Signal(SIGTERM);
    EXPECT_EQ(demo.Wait(), 0);
    StopBroker();
  }
}

TEST_F(RegisterTest, ASuccessorAwaitsItToo) {
  Process keeper(
      {KeeperProgram(), "--broker", BrokerProgram(), "--", "--allow-root"},
      home_.environment());
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        struct stat status;
        return stat(socket().c_str(), &status) == 0;
      },
      "the broker", kPatience));
  const Process demo = StartDemo();
  AwaitRegistrations(1);
  const uint32_t first = Client().Status().pid();
  keeper.Signal(SIGUSR2);
  // All the while somebody asks; the elder's answers and the successor's are
  // the same.
  absl::optional<uint32_t> other;
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
        if (answer.ok() && answer.response.route().pid() !=
                               static_cast<uint32_t>(demo.pid())) {
          other = answer.response.route().pid();
        }
        const v1::GetStatusResponse now = Client().Status();
        const auto back = now.counters().find("backends_registered");
        return other.has_value() ||
               (now.pid() != first && back != now.counters().end());
      },
      "its registration with the successor", kPatience));
  EXPECT_FALSE(other.has_value())
      << "process " << other.value_or(0) << " runs beside it";
  EXPECT_EQ(Counter("backends_started"), 0u);
  keeper.Signal(SIGTERM);
  EXPECT_EQ(keeper.Wait(), 0);
}

TEST_F(RegisterTest, WhoIsAwaitedAndEndsIsReplaced) {
  StartBroker();
  Process demo = StartDemo();
  AwaitRegistrations(1);
  demo.StopWhole();
  KillBroker();
  StartBroker();
  std::future<GrpcAnswer> asked = Ask();
  demo.Signal(SIGKILL);
  EXPECT_EQ(demo.Wait(), 128 + SIGKILL);
  const GrpcAnswer answer = asked.get();
  ASSERT_TRUE(answer.ok()) << answer.status.error_message();
  EXPECT_NE(answer.response.route().endpoint(), endpoint());
  EXPECT_EQ(Counter("backends_started"), 1u);
}

// Nobody is refused for its sake: others wait longer than it is waited for.
TEST_F(RegisterTest, WhoIsAwaitedAndDoesNotComeIsReplaced) {
  StartBroker();
  const Process demo = StartDemo();
  AwaitRegistrations(1);
  demo.StopWhole();
  KillBroker();
  StartBroker();
  const GrpcAnswer answer = Ask().get();
  ASSERT_TRUE(answer.ok()) << answer.status.error_message();
  EXPECT_NE(answer.response.route().endpoint(), endpoint());
  // And the way of our clients leads to the new one.
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        return WhoCompiles() == absl::StrCat(answer.response.route().pid());
      },
      "its route info", kPatience));
}

TEST_F(RegisterTest, WhatListensAtItsEndpointLaterIsNotTakenForIt) {
  StartBroker();
  Process demo = StartDemo();
  AwaitRegistrations(1);
  // Nobody withdraws its route.
  KillBroker();
  ASSERT_EQ(WhoCompiles(), absl::StrCat(demo.pid()));
  demo.Signal(SIGKILL);
  EXPECT_EQ(demo.Wait(), 128 + SIGKILL);
  const Process other = StartDemo("2.0.0");
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        return ipc::Connect(*ipc::Endpoint::Parse(endpoint()),
                            ipc::Deadline::After(kPatience))
            .ok();
      },
      "the other one", kPatience));
  EXPECT_EQ(WhoCompiles(), "");
}

TEST_F(RegisterTest, ItsRouteIsWithdrawnByTheNextBroker) {
  for (const bool with_journal : {true, false}) {
    StartBroker();
    Process demo = StartDemo();
    AwaitRegistrations(1);
    ASSERT_EQ(access(InfoFile().c_str(), F_OK), 0);
    KillBroker();
    demo.Signal(SIGKILL);
    EXPECT_EQ(demo.Wait(), 128 + SIGKILL);
    if (!with_journal) {
      std::filesystem::remove_all(home_.Entry("run/zcbroker/backends"));
    }
    StartBroker();
    EXPECT_TRUE(
        ipc::WaitFor([&] { return access(InfoFile().c_str(), F_OK) != 0; },
                     "its route info to be withdrawn", kPatience));
    StopBroker();
  }
}

// --- Against others

TEST_F(RegisterTest, ItNeverDisplacesAnother) {
  StartBroker();
  const GrpcAnswer ours = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(ours.ok());
  Process demo = StartDemo();
  ASSERT_TRUE(
      ipc::WaitFor([&] { return Counter("refused.BACKEND_EXISTS") > 0; },
                   "the refusal", kPatience));
  EXPECT_EQ(FindRunning("demo").response.route().pid(),
            ours.response.route().pid());
  // It goes on asking, and is there when the other one is not.
  kill(static_cast<pid_t>(ours.response.route().pid()), SIGKILL);
  AwaitRegistrations(1);
  EXPECT_EQ(FindRunning("demo").response.route().pid(),
            static_cast<uint32_t>(demo.pid()));
}

TEST_F(RegisterTest, ItIsEndedWhenSomebodyAsks) {
  StartBroker();
  Process demo = StartDemo();
  AwaitRegistrations(1);
  grpc::ClientContext context;
  v1::StopBackendRequest request;
  request.set_service("demo");
  request.set_version("1.0.0");
  v1::StopBackendResponse response;
  ASSERT_TRUE(Client().admin().StopBackend(&context, request, &response).ok());
  EXPECT_EQ(response.backend().state(), v1::BACKEND_STATE_GONE);
  EXPECT_EQ(demo.Wait(), 0);
}

// --- This process as a backend

TEST_F(RegisterTest, WhoGivesUpItsLeaseIsLeftAlone) {
  StartBroker();
  GrpcClient client = Client();
  Registering lease(client, "own", "1.0.0", own_endpoint());
  const auto route = lease.Ask();
  ASSERT_TRUE(route.has_value()) << lease.AwaitEnd().status.error_message();
  EXPECT_EQ(route->pid(), static_cast<uint32_t>(getpid()));
  EXPECT_TRUE(FindRunning("own").ok());
  lease.GiveUp();
  EXPECT_TRUE(lease.AwaitEnd().ok());
  EXPECT_EQ(FindRunning("own").reason, "BACKEND_START_FAILED");
  ASSERT_TRUE(ipc::WaitFor([&] { return Counter("leases_ended") == 1; },
                           "the lease to end", kPatience));
  EXPECT_EQ(Row("own").last_end(), "its lease ended");
  // Nothing is left of it: it may come again.
  Registering again(client, "own", "1.0.0", own_endpoint());
  EXPECT_TRUE(again.Ask().has_value());
}

TEST_F(RegisterTest, WhoseConnectionBreaksHasNoLease) {
  StartBroker();
  GrpcClient client = Client();
  Registering lease(client, "own", "1.0.0", own_endpoint());
  ASSERT_TRUE(lease.Ask().has_value());
  lease.Vanish();
  ASSERT_TRUE(ipc::WaitFor([&] { return Counter("leases_ended") == 1; },
                           "the lease to end", kPatience));
  EXPECT_EQ(FindRunning("own").reason, "BACKEND_START_FAILED");
}

TEST_F(RegisterTest, TheBrokersEndIsToldAndLeavesItRunning) {
  StartBroker();
  GrpcClient client = Client();
  Registering lease(client, "own", "1.0.0", own_endpoint());
  ASSERT_TRUE(lease.Ask().has_value());
  StopBroker();
  const GrpcAnswer end = lease.AwaitEnd();
  EXPECT_EQ(end.reason, "SHUTTING_DOWN") << end.status.error_message();
  EXPECT_TRUE(end.retry.has_value());
}

TEST_F(RegisterTest, AStreamThatSaysNothingIsNoRegistration) {
  StartBroker();
  GrpcClient client = Client();
  Registering lease(client, "own", "1.0.0", own_endpoint());
  lease.GiveUp();
  EXPECT_EQ(lease.AwaitEnd().status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

struct BadRegistration {
  const char* name;
  std::string service;
  std::string version;
  // Below the test's directory of work.
  std::string endpoint;
  const char* reason;
  const char* told;
};

void PrintTo(const BadRegistration& bad, std::ostream* out) {
  *out << bad.name;
}

class BadRegistrationTest
    : public RegisterTest,
      public ::testing::WithParamInterface<BadRegistration> {};

INSTANTIATE_TEST_SUITE_P(
    Table, BadRegistrationTest,
    ::testing::Values(
        BadRegistration{"UnknownService", "nosuch", "1.0.0", "own.sock",
                        "SERVICE_UNKNOWN", "nosuch"},
        BadRegistration{"NoVersion", "own", "one", "own.sock",
                        "VERSION_INVALID", ""},
        BadRegistration{"OtherVersion", "own", "3.0.0", "own.sock",
                        "VERSION_NOT_INSTALLED", "3.0.0"},
        BadRegistration{"NobodyListens", "own", "1.0.0", "nobody.sock",
                        "REGISTRATION_INVALID", "nobody.sock"},
        BadRegistration{"NoPath", "own", "1.0.0", "", "REGISTRATION_INVALID",
                        ""},
        // Somebody else's, of the same user.
        BadRegistration{"AnothersEndpoint", "demo", "1.0.0", "demo.sock",
                        "REGISTRATION_INVALID",
                        "is not the one that registers it"},
        BadRegistration{"TheBrokersOwn", "own", "1.0.0",
                        "../run/zcbroker/broker.sock", "REGISTRATION_INVALID",
                        "is not the one that registers it"},
        BadRegistration{"OtherBinary", "other", "1.0.0", "own.sock",
                        "REGISTRATION_INVALID", "does not run from"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BadRegistrationTest, IsRefusedByName) {
  const BadRegistration& bad = GetParam();
  home_.Define("other", PlainDefinition("other", "/bin/true"));
  StartBroker();
  const Process demo(
      {BackendProgram(), "--endpoint", endpoint(), "--report-version", "1.0.0"},
      home_.environment());
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        struct stat status;
        return stat(endpoint().c_str(), &status) == 0;
      },
      "another's endpoint", kPatience));
  GrpcClient client = Client();
  Registering lease(
      client, bad.service, bad.version,
      bad.endpoint.empty() ? "" : home_.Entry("work/" + bad.endpoint));
  EXPECT_FALSE(lease.Ask().has_value());
  const GrpcAnswer answer = lease.AwaitEnd();
  EXPECT_EQ(answer.reason, bad.reason) << answer.status.error_message();
  EXPECT_TRUE(absl::StrContains(answer.status.error_message(), bad.told))
      << answer.status.error_message();
  EXPECT_EQ(Counter(absl::StrCat("refused.", bad.reason)), 1u);
  EXPECT_EQ(Counter("backends_registered"), 0u);
  // It says nothing about the backends that we start.
  EXPECT_EQ(Counter("start_failures"), 0u);
  EXPECT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
}

// It is connected, it runs from the binary, and is another version.
TEST_F(RegisterTest, WhoCallsItselfAnotherVersionIsRefused) {
  home_.Define("twin", ReferenceDefinition("twin", {"2.0.0"}));
  StartBroker();
  const Process twin = StartAs("twin", "2.0.0", home_.environment());
  AwaitRegistrations(1);
  GrpcClient client = Client();
  Registering lease(client, "demo", "1.0.0", endpoint());
  EXPECT_FALSE(lease.Ask().has_value());
  const GrpcAnswer answer = lease.AwaitEnd();
  EXPECT_EQ(answer.reason, "REGISTRATION_INVALID");
  EXPECT_TRUE(absl::StrContains(answer.status.error_message(),
                                "calls itself version 2.0.0"))
      << answer.status.error_message();
}

TEST_F(RegisterTest, APolicyForbidsItToo) {
  home_.SetPolicy("services { name: 'own' blocked_versions: '1.0.0' }");
  StartBroker();
  GrpcClient client = Client();
  Registering lease(client, "own", "1.0.0", own_endpoint());
  EXPECT_FALSE(lease.Ask().has_value());
  EXPECT_EQ(lease.AwaitEnd().reason, "VERSION_BLOCKED");
}

TEST_F(RegisterTest, AnotherWorldsIsRefused) {
  home_.Define("own",
               PlainDefinition("own", OwnProgram(),
                               "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  StartBroker();
  GrpcClient client = Client();
  Registering lease(client, "own", "1.0.0", own_endpoint());
  lease.request().mutable_world()->set_cache_root("/somewhere/else");
  EXPECT_FALSE(lease.Ask().has_value());
  EXPECT_EQ(lease.AwaitEnd().reason, "WORLD_MISMATCH");
}

// Whatever it says, and even if it says nothing.
TEST_F(RegisterTest, AProcessOfAnotherWorldIsRefused) {
  home_.Define("cache",
               ReferenceDefinition("cache", {"1.0.0"}, {},
                                   "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  StartBroker();
  {
    Environment elsewhere = home_.environment();
    elsewhere["ZCCACHE_CACHE_DIR"] = home_.Entry("elsewhere");
    const Process other = StartAs("cache", "1.0.0", elsewhere);
    ASSERT_TRUE(ipc::WaitFor(
        [&] { return Counter("refused.REGISTRATION_INVALID") > 0; },
        "the refusal", kPatience));
    EXPECT_EQ(Counter("backends_registered"), 0u);
  }
  const Process same = StartAs("cache", "1.0.0", home_.environment());
  AwaitRegistrations(1);
}

TEST_F(RegisterTest, AFailedOneMendsNothing) {
  home_.Define("bad", PlainDefinition("bad", home_.Script("bad", "exit 3")));
  StartBroker();
  GrpcClient client = Client();
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        return client.Negotiate("bad", "1.0.0").reason == "BACKEND_BROKEN";
      },
      "it to be broken", kPatience));
  const uint64_t failures = Counter("start_failures");
  Registering lease(client, "bad", "1.0.0", own_endpoint());
  EXPECT_FALSE(lease.Ask().has_value());
  EXPECT_EQ(lease.AwaitEnd().reason, "REGISTRATION_INVALID");
  EXPECT_EQ(Row("bad").state(), v1::BACKEND_STATE_BROKEN);
  EXPECT_EQ(client.Negotiate("bad", "1.0.0").reason, "BACKEND_BROKEN");
  EXPECT_EQ(Counter("start_failures"), failures);
}

}  // namespace
}  // namespace zcbroker::testing
