// How a backend leaves: on request, for want of use, when its binary is
// replaced; and that nobody loses anything by it.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/daemon_connection.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/process.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

// For an answer before what was asked for is done.
const absl::Duration kSoon = absl::Seconds(1);

class LeavingTest : public BrokerTest {
 protected:
  LeavingTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  }

  v1::BackendRoute Start(const std::string& service = "demo") {
    const GrpcAnswer answer = Client().Negotiate(service, "1.0.0");
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    return answer.response.route();
  }

  // As a client would over gRPC, within `timeout`.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::Admin::Stub::*method)(
                        grpc::ClientContext*, const Request&, Response*),
                    v1::Backend* backend,
                    absl::Duration timeout = absl::Seconds(10),
                    const std::string& service = "demo") {
    GrpcClient client = Client();
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    Request request;
    request.set_service(service);
    request.set_version("1.0.0");
    Response response;
    grpc::Status status =
        (client.admin().*method)(&context, request, &response);
    *backend = response.backend();
    return status;
  }
  // What was asked for, as far as it is by then.
  template <typename Method>
  v1::Backend Ask(Method method, absl::Duration timeout) {
    v1::Backend backend;
    const grpc::Status status = Call(method, &backend, timeout);
    // ThreadSanitizer's runtime stops a broker to look up the names of a
    // suppressed report, for longer than the 250 ms it keeps for its answer.
    if (kChecksNeedPipes &&
        status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return Row();
    }
    EXPECT_TRUE(status.ok()) << status.error_message();
    return backend;
  }
  v1::Backend Drain(absl::Duration timeout) {
    return Ask(&v1::Admin::Stub::DrainBackend, timeout);
  }

  v1::Backend Row(const std::string& service = "demo") {
    for (v1::Backend& backend : Client().Backends()) {
      if (backend.service() == service) return std::move(backend);
    }
    return {};
  }
  void AwaitRow(const std::string& service, v1::BackendState state) {
    EXPECT_TRUE(ipc::WaitFor(
        [&] { return Row(service).state() == state; },
        absl::StrCat(service, " to be ", v1::BackendState_Name(state)),
        kPatience));
  }

  void KillBroker() {
    broker().process().Signal(SIGKILL);
    EXPECT_EQ(AwaitBrokersEnd(), 128 + SIGKILL);
  }
  // The broker's one child.
  pid_t OnlyBackend() {
    // An answer of the loop means that the turn in which it was started is
    // over, and the journal names it.
    Row();
    const pid_t parent = broker().process().pid();
    pid_t found = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      int pid = 0;
      if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) continue;
      const auto stat = ipc::ReadProcessStat(pid);
      // A sanitizer has a child there, too, which looks up names for it; but
      // each backend has a session of its own.
      if (stat.ok() && stat->parent == parent && stat->session == pid) {
        found = pid;
      }
    }
    EXPECT_NE(found, 0);
    return found;
  }

  // A connection that a daemon has answered on: it is not on its way any more.
  static client::DaemonConnection Connected(const std::string& endpoint) {
    client::DaemonConnection connection(ConnectTo(endpoint),
                                        ipc::WireLane::kFrameV1);
    EXPECT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
    return connection;
  }
};

// A build that was stopped with ^Z may be in no hurry.
TEST_F(LeavingTest, ARelayedConnectionBetweenTwoRequestsHoldsNothingUp) {
  StartBroker();
  const v1::BackendRoute first = Start();
  ASSERT_TRUE(ipc::WaitFor(
      [&] { return access(first.named_route().c_str(), F_OK) == 0; },
      "the named route", kPatience));
  client::DaemonConnection relayed = Connected(first.named_route());
  Drain(kPatience);
  AwaitRow("demo", v1::BACKEND_STATE_GONE);
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
  EXPECT_TRUE(relayed.Ping(ipc::Deadline::After(kPatience)).ok());
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_READY);
}

TEST_F(LeavingTest, ADrainWaitsForTheLastConnectionAndItsSuccessorForIt) {
  StartBroker();
  const v1::BackendRoute first = Start();
  auto connection =
      std::make_unique<client::DaemonConnection>(Connected(first.endpoint()));
  const v1::Backend draining = Drain(absl::Seconds(2));
  EXPECT_EQ(draining.state(), v1::BACKEND_STATE_DRAINING);
  ASSERT_GE(draining.evidence_size(), 2);
  EXPECT_EQ(draining.evidence(0), "drain asked for");
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const v1::Backend row = Row();
        return row.evidence_size() >= 2 &&
               row.evidence(1) == "in flight: 1 connection";
      },
      "the connection to be seen", kPatience));
  EXPECT_NE(
      access(home_.Entry("run/zcbroker/routes/demo/1.0.0.info").c_str(), F_OK),
      0)
      << "nobody may find the way any more";

  auto next = std::async(std::launch::async,
                         [&] { return Client().Negotiate("demo", "1.0.0"); });
  // A client of the relay, that knows nothing of all this.
  auto relayed = std::async(std::launch::async, [&] {
    Connected(home_.Entry("run/zcbroker/routes/demo/1.0.0.sock"));
  });
  EXPECT_EQ(Drain(kSoon).state(), v1::BACKEND_STATE_DRAINING);
  EXPECT_TRUE(IsRunning(static_cast<pid_t>(first.pid())));
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok())
      << "what is in flight goes on";
  EXPECT_EQ(Counter("backends_started"), 1u) << "a cache has one writer";

  connection.reset();
  const GrpcAnswer second = next.get();
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  relayed.get();
  EXPECT_EQ(second.response.route().generation(), 2u);
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
  EXPECT_EQ(Row().last_end(), "drain asked for");
}

TEST_F(LeavingTest, ADrainOfAnIdleOneIsAnsweredWhenItIsGone) {
  StartBroker();
  const v1::BackendRoute route = Start();
  EXPECT_EQ(Drain(kPatience).state(), v1::BACKEND_STATE_GONE);
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(route.pid())));
  EXPECT_EQ(Drain(kPatience).state(), v1::BACKEND_STATE_GONE)
      << "none is no error";
}

// --- What has begun to leave goes on leaving under the next broker

TEST_F(LeavingTest, ADrainGoesOnUnderTheNextBroker) {
  StartBroker();
  const v1::BackendRoute first = Start();
  auto connection =
      std::make_unique<client::DaemonConnection>(Connected(first.endpoint()));
  EXPECT_EQ(Drain(kSoon).state(), v1::BACKEND_STATE_DRAINING);
  KillBroker();
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_DRAINING);
  EXPECT_EQ(Row().evidence(0), "drain asked for");
  EXPECT_EQ(Row().route().pid(), first.pid());
  auto next = std::async(std::launch::async,
                         [&] { return Client().Negotiate("demo", "1.0.0"); });
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok())
      << "what is in flight goes on";
  connection.reset();
  const GrpcAnswer second = next.get();
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  EXPECT_NE(second.response.route().pid(), first.pid());
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
  EXPECT_EQ(Row().last_end(), "drain asked for");
}

TEST_F(LeavingTest, ADrainOfOneThatStartsGoesOnUnderTheNextBroker) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"},
                                           {"--start-delay-ms", "60000"}));
  StartBroker();
  auto waiter = std::async(std::launch::async,
                           [&] { return Client().Negotiate("demo", "1.0.0"); });
  AwaitRow("demo", v1::BACKEND_STATE_STARTING);
  Drain(kSoon);
  const pid_t backend = OnlyBackend();
  KillBroker();
  EXPECT_FALSE(waiter.get().ok());
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_GONE);
  EXPECT_EQ(Row().last_end(), "drain asked for");
  EXPECT_FALSE(IsRunning(backend));
}

// Its grace is longer than a start may take.
TEST_F(LeavingTest, AStopGoesOnUnderTheNextBroker) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}, {},
                                           "stop_grace { seconds: 60 }\n"
                                           "start_timeout { seconds: 1 }\n"));
  StartBroker();
  const auto pid = static_cast<pid_t>(Start().pid());
  // It is asked to end, and takes its time.
  StopWhole(pid);
  const v1::Backend backend = Ask(&v1::Admin::Stub::StopBackend, kSoon);
  EXPECT_EQ(backend.state(), v1::BACKEND_STATE_ENDING);
  KillBroker();
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_ENDING);
  const GrpcAnswer meanwhile =
      Client().Negotiate("demo", "1.0.0", absl::Seconds(3));
  EXPECT_FALSE(meanwhile.ok());
  // As in Ask.
  if (!kChecksNeedPipes) {
    EXPECT_EQ(meanwhile.reason, "BACKEND_START_FAILED");
  }
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_ENDING);
  ASSERT_TRUE(IsRunning(pid)) << "ended at the limit of a start";
  auto next = std::async(std::launch::async,
                         [&] { return Client().Negotiate("demo", "1.0.0"); });
  ASSERT_EQ(kill(pid, SIGCONT), 0);
  const GrpcAnswer second = next.get();
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  EXPECT_NE(second.response.route().pid(), static_cast<uint32_t>(pid));
  EXPECT_FALSE(IsRunning(pid));
  EXPECT_EQ(Row().last_end(), "stop asked for");
}

TEST_F(LeavingTest, OneThatEndsBeforeItServesIsNoFailedStartOfTheNextBroker) {
  // The first one never listens; what comes after it does.
  const std::string script = home_.Script(
      "demo", absl::StrCat("if mkdir ", home_.Entry("work/once"),
                           "; then exec sleep 1000; fi\n", "exec ",
                           BackendProgram(), " --endpoint \"$2\"\n"));
  home_.Define("demo", PlainDefinition("demo", script,
                                       "args: '--endpoint' args: '{endpoint}' "
                                       "probe: PROBE_ZCCACHE_PING "
                                       "start_timeout { seconds: 60 }"));
  StartBroker();
  auto cut_off = std::async(
      std::launch::async, [&] { return Client().Negotiate("demo", "1.0.0"); });
  AwaitRow("demo", v1::BACKEND_STATE_STARTING);
  ASSERT_TRUE(ipc::WaitFor(
      [&] { return access(home_.Entry("work/once").c_str(), F_OK) == 0; },
      "the first one", kPatience));
  const pid_t backend = OnlyBackend();
  KillBroker();
  EXPECT_FALSE(cut_off.get().ok());
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_STARTING);
  auto waiter = std::async(std::launch::async,
                           [&] { return Client().Negotiate("demo", "1.0.0"); });
  EXPECT_TRUE(ipc::WaitFor([&] { return Counter("negotiations") == 1; },
                           "somebody to wait", kPatience));
  ASSERT_EQ(kill(backend, SIGKILL), 0);
  const GrpcAnswer answer = waiter.get();
  EXPECT_TRUE(answer.ok()) << answer.status.error_message();
  EXPECT_EQ(Counter("start_failures"), 0u);
}

TEST_F(LeavingTest, AVersionThatIsNotInstalledAnyMoreIsAdopted) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "2.0.0"}));
  StartBroker();
  const GrpcAnswer old = Client().Negotiate("demo", "2.0.0");
  ASSERT_TRUE(old.ok()) << old.status.error_message();
  const auto pid = static_cast<pid_t>(old.response.route().pid());
  StopBroker();
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_READY);
  EXPECT_EQ(Row().version(), "2.0.0");
  EXPECT_EQ(Row().route().pid(), static_cast<uint32_t>(pid));
  EXPECT_EQ(Client().Negotiate("demo", "2.0.0").reason,
            "VERSION_NOT_INSTALLED");
  const Finished down = RunToEnd(
      {CommandLineProgram(), "down", "--stop-backends"}, home_.environment());
  EXPECT_EQ(down.status, 0) << down.err;
  EXPECT_EQ(AwaitBrokersEnd(), 0);
  EXPECT_FALSE(IsRunning(pid));
}

TEST_F(LeavingTest, OneBlockedWhileNoBrokerRunsDrainsUnderTheNextOne) {
  StartBroker();
  const v1::BackendRoute first = Start();
  auto connection =
      std::make_unique<client::DaemonConnection>(Connected(first.endpoint()));
  StopBroker();
  home_.SetPolicy("services { name: 'demo' blocked_versions: '1.0.0' }");
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_DRAINING);
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok());
  connection.reset();
  AwaitRow("demo", v1::BACKEND_STATE_GONE);
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
}

TEST_F(LeavingTest, OneWhoseSocketWasRemovedWhileNoBrokerRunsDrains) {
  StartBroker();
  const v1::BackendRoute first = Start();
  auto connection =
      std::make_unique<client::DaemonConnection>(Connected(first.endpoint()));
  StopBroker();
  ASSERT_EQ(unlink(first.endpoint().c_str()), 0);
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_DRAINING);
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok());
  connection.reset();
  EXPECT_NE(Start().pid(), first.pid());
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
}

// Longer than a negotiation may wait.
TEST_F(LeavingTest, ARelayedClientWaitsForTheEndOfTheOneBefore) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}, {},
                                           "stop_grace { seconds: 60 }\n"));
  StartBroker();
  const v1::BackendRoute first = Start();
  const auto pid = static_cast<pid_t>(first.pid());
  StopWhole(pid);
  const v1::Backend backend = Ask(&v1::Admin::Stub::StopBackend, kSoon);
  ASSERT_EQ(backend.state(), v1::BACKEND_STATE_ENDING);
  auto relayed = std::async(std::launch::async, [&] {
    client::DaemonConnection connection(ConnectTo(first.named_route()),
                                        ipc::WireLane::kFrameV1);
    return connection.Ping(ipc::Deadline::After(kPatience));
  });
  ASSERT_TRUE(ipc::WaitFor([&] { return Counter("relay.requests") == 1; },
                           "the relayed request", kPatience));
  // Asks after it, and is answered when that one's time is over.
  EXPECT_EQ(Client().Negotiate("demo", "1.0.0").reason, "BACKEND_START_FAILED");
  ASSERT_EQ(kill(pid, SIGCONT), 0);
  const absl::Status pinged = relayed.get();
  EXPECT_TRUE(pinged.ok()) << pinged;
}

TEST_F(LeavingTest, TheRelaysOwnSpareConnectionIsNobodysWork) {
  StartBroker();
  Start();
  // Each leaves a connection for the next one.
  Connected(home_.Entry("run/zcbroker/routes/demo/1.0.0.sock"));
  EXPECT_EQ(Drain(kPatience).state(), v1::BACKEND_STATE_GONE);
}

TEST_F(LeavingTest, AStopDoesNotWait) {
  StartBroker();
  const v1::BackendRoute route = Start();
  const client::DaemonConnection connection = Connected(route.endpoint());
  v1::Backend backend;
  ASSERT_TRUE(Call(&v1::Admin::Stub::StopBackend, &backend).ok());
  EXPECT_EQ(backend.state(), v1::BACKEND_STATE_GONE);
  EXPECT_EQ(backend.last_end(), "stop asked for");
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(route.pid())));
}

TEST_F(LeavingTest, ASlipOfThePenIsTold) {
  StartBroker();
  v1::Backend backend;
  const grpc::Status status =
      Call(&v1::Admin::Stub::StopBackend, &backend, absl::Seconds(10), "dmeo");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReadAnswer(status, {}).reason, "SERVICE_UNKNOWN");
}

TEST_F(LeavingTest, AStartIsANewChanceForWhatIsBroken) {
  const std::string fails = home_.Script("fails", "exit 3");
  home_.Define("fails", PlainDefinition("fails", fails));
  StartBroker();
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        return Client().Negotiate("fails", "1.0.0").reason == "BACKEND_BROKEN";
      },
      "five failed starts", kPatience));
  v1::Backend backend;
  const grpc::Status status = Call(&v1::Admin::Stub::StartBackend, &backend,
                                   absl::Seconds(10), "fails");
  EXPECT_EQ(ReadAnswer(status, {}).reason, "BACKEND_START_FAILED");
  ASSERT_TRUE(Call(&v1::Admin::Stub::StartBackend, &backend).ok());
  EXPECT_EQ(backend.state(), v1::BACKEND_STATE_READY);
  EXPECT_EQ(backend.origin(), v1::ROUTE_ORIGIN_STARTED);
}

TEST_F(LeavingTest, AFailedStartLeavesNoSocket) {
  // Nobody listens there any more when the name is there.
  const std::string script = home_.Script(
      "binds", absl::StrCat(BackendProgram(), " --endpoint \"$1.t\" & p=$!\n",
                            "while [ ! -S \"$1.t\" ]; do :; done\n"
                            "kill -9 $p; wait $p; mv \"$1.t\" \"$1\"; exit 3"));
  home_.Define("binds",
               PlainDefinition("binds", script, "args: \"{endpoint}\"\n"));
  StartBroker();
  v1::Backend backend;
  const grpc::Status status = Call(&v1::Admin::Stub::StartBackend, &backend,
                                   absl::Seconds(10), "binds");
  EXPECT_EQ(ReadAnswer(status, {}).reason, "BACKEND_START_FAILED");
  for (const auto& entry : std::filesystem::directory_iterator(
           home_.Entry("run/zcbroker/backends"))) {
    EXPECT_NE(entry.path().extension(), ".sock") << entry.path();
  }
}

TEST_F(LeavingTest, AFailedStartTellsNothingOfAnEarlierLog) {
  StartBroker();
  const std::string socket = Start().endpoint();
  const std::string log = ReadFile(Row().log_file());
  EXPECT_TRUE(absl::StrContains(log, "serving ")) << log;
  v1::Backend backend;
  ASSERT_TRUE(Call(&v1::Admin::Stub::StopBackend, &backend).ok());
  // It fails before anything is started.
  std::ofstream(socket) << "no socket";
  const grpc::Status status = Call(&v1::Admin::Stub::StartBackend, &backend);
  EXPECT_EQ(ReadAnswer(status, {}).reason, "BACKEND_START_FAILED");
  const std::string told = absl::StrJoin(Row().evidence(), "\n");
  EXPECT_TRUE(absl::StrContains(told, "is no socket")) << told;
  EXPECT_FALSE(absl::StrContains(told, "serving ")) << told;
}

TEST_F(LeavingTest, WhatNobodyUsesIsStoppedAndWhatSomebodyUsesIsNot) {
  for (const char* name : {"used", "idle"}) {
    home_.Define(name, ReferenceDefinition(name, {"1.0.0"}, {},
                                           "idle_stop { seconds: 3 }\n"));
  }
  StartBroker();
  auto connection = std::make_unique<client::DaemonConnection>(
      Connected(Start("used").endpoint()));
  const v1::BackendRoute idle = Start("idle");
  AwaitRow("idle", v1::BACKEND_STATE_GONE);
  EXPECT_TRUE(absl::StartsWith(Row("idle").last_end(), "unused for "))
      << Row("idle").last_end();
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(idle.pid())));
  EXPECT_EQ(Row("used").state(), v1::BACKEND_STATE_READY);
  connection.reset();
  AwaitRow("used", v1::BACKEND_STATE_GONE);
  // And it comes back for whoever wants it.
  EXPECT_EQ(Start("idle").generation(), 2u);
}

class ReplacedTest : public LeavingTest {
 protected:
  ReplacedTest() {
    Replace();
    home_.Define("demo", absl::StrReplaceAll(
                             ReferenceDefinition("demo", {"1.0.0"}),
                             {{absl::StrCat("\"", BackendProgram(), "\""),
                               absl::StrCat("\"", binary_, "\"")}}));
  }

  // As an installer does it.
  void Replace() {
    std::filesystem::create_directories(home_.Entry("bin"));
    const std::string fresh = absl::StrCat(binary_, ".new");
    std::filesystem::copy_file(BackendProgram(), fresh);
    ASSERT_EQ(rename(fresh.c_str(), binary_.c_str()), 0);
  }

  const std::string binary_ = home_.Entry("bin/demo");
};

TEST_F(ReplacedTest, AReplacedBinaryIsNoticedAndTheOldOneDrains) {
  StartBroker();
  const v1::BackendRoute first = Start();
  auto connection =
      std::make_unique<client::DaemonConnection>(Connected(first.endpoint()));
  Replace();
  AwaitRow("demo", v1::BACKEND_STATE_DRAINING);
  EXPECT_EQ(Row().evidence(0), "binary replaced");
  auto next = std::async(std::launch::async,
                         [&] { return Client().Negotiate("demo", "1.0.0"); });
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok());
  EXPECT_EQ(Counter("backends_started"), 1u);
  connection.reset();
  const GrpcAnswer second = next.get();
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  EXPECT_EQ(second.response.route().generation(), 2u);
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
  EXPECT_EQ(Row().last_end(), "binary replaced");
}

TEST_F(ReplacedTest, OneReplacedWhileNoBrokerRunsDrainsUnderTheNextOne) {
  StartBroker();
  const v1::BackendRoute first = Start();
  auto connection =
      std::make_unique<client::DaemonConnection>(Connected(first.endpoint()));
  StopBroker();
  Replace();
  StartBroker();
  AwaitRow("demo", v1::BACKEND_STATE_DRAINING);
  EXPECT_EQ(Row().route().pid(), first.pid());
  EXPECT_EQ(Counter("backends_started"), 0u) << "a cache has one writer";
  auto next = std::async(std::launch::async,
                         [&] { return Client().Negotiate("demo", "1.0.0"); });
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok());
  connection.reset();
  const GrpcAnswer second = next.get();
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  EXPECT_NE(second.response.route().pid(), first.pid());
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(first.pid())));
}

TEST_F(ReplacedTest, ABrokenBinaryThatIsReplacedHealsByItself) {
  WriteFile(binary_, "#!/bin/sh\nexit 3\n", /*executable=*/true);
  StartBroker();
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        return Client().Negotiate("demo", "1.0.0").reason == "BACKEND_BROKEN";
      },
      "five failed starts", kPatience));
  Replace();
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Client().Negotiate("demo", "1.0.0").ok(); },
                   "the mended binary", kPatience));
}

}  // namespace
}  // namespace zcbroker::testing
