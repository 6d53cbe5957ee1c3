// Starts, deaths and ends: of backends, and of the broker itself.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/daemon_connection.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/process.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "service/host/backend_run.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

// Lets go whoever reads a line from this pipe.
void WriteLine(const std::string& pipe) {
  const ipc::UniqueFd fd(open(pipe.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  ASSERT_EQ(write(fd.get(), "\n", 1), 1);
}

class LifeTest : public BrokerTest {
 protected:
  LifeTest() { home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"})); }

  // A service whose start takes long enough to be interrupted; what interrupts
  // it does not wait for it.
  void DefineSlow() {
    home_.Define("slow", ReferenceDefinition(
                             "slow", {"1.0.0"}, {"--start-delay-ms", "60000"},
                             "start_timeout { seconds: 60 }\n"));
  }

  bool Starting(const std::string& service) {
    for (const v1::Backend& backend : Client().Backends()) {
      if (backend.service() == service &&
          backend.state() == v1::BACKEND_STATE_STARTING) {
        return true;
      }
    }
    return false;
  }

  // Negotiates until the backend of `generation` is there. What has just died
  // may be handed out until its end is noticed, but never its successor's
  // place before that.
  GrpcAnswer AwaitGeneration(uint64_t generation) {
    GrpcAnswer answer;
    EXPECT_TRUE(ipc::WaitFor(
        [&] {
          answer = Client().Negotiate("demo", "1.0.0");
          return answer.ok() &&
                 answer.response.route().generation() >= generation;
        },
        absl::StrCat("generation ", generation), kPatience));
    return answer;
  }
};

// --- Backends

TEST_F(LifeTest, AKilledBackendIsReplaced) {
  StartBroker();
  const GrpcAnswer first = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(first.ok()) << first.status.error_message();
  EXPECT_EQ(first.response.origin(), v1::ROUTE_ORIGIN_STARTED);
  EXPECT_EQ(first.response.route().generation(), 1u);
  const auto pid = static_cast<pid_t>(first.response.route().pid());
  ASSERT_EQ(kill(pid, SIGKILL), 0);

  const GrpcAnswer second = AwaitGeneration(2);
  EXPECT_EQ(second.response.route().generation(), 2u);
  EXPECT_NE(second.response.route().pid(), first.response.route().pid());
  EXPECT_FALSE(IsRunning(pid));
  EXPECT_EQ(Counter("backends_started"), 2u);
  EXPECT_EQ(Counter("backends_ended"), 1u);
  const GrpcAnswer third = Client().Negotiate("demo", "1.0.0");
  EXPECT_EQ(third.response.origin(), v1::ROUTE_ORIGIN_REUSED);
}

TEST_F(LifeTest, WhatADeadBackendRanIsEndedBeforeTheNextRoute) {
  StartBroker();
  const GrpcAnswer first = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(first.ok());
  const std::string endpoint = first.response.route().endpoint();
  const std::string pid_file = home_.Entry("work/compiler.pid");
  std::thread compile([&] {
    client::DaemonConnection connection(ConnectTo(endpoint),
                                        ipc::WireLane::kFrameV1);
    zccache::v1::CompileEphemeral request;
    request.mutable_working_dir()->set_value("/");
    request.mutable_cwd()->set_value("/");
    request.mutable_compiler()->set_value("/bin/sh");
    request.add_args("-c");
    request.add_args(absl::StrCat("echo $$ > ", pid_file, ".new; mv ", pid_file,
                                  ".new ", pid_file, "; exec sleep 1000"));
    EXPECT_FALSE(connection
                     .CompileEphemeral(std::move(request),
                                       ipc::Deadline::After(kPatience))
                     .ok());
  });
  EXPECT_TRUE(ipc::WaitFor([&] { return Exists(pid_file); },
                           "the compiler to run", kPatience));
  int compiler = 0;
  const std::string text = ReadFile(pid_file);
  ASSERT_TRUE(absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &compiler));
  EXPECT_TRUE(IsRunning(compiler));

  ASSERT_EQ(kill(static_cast<pid_t>(first.response.route().pid()), SIGKILL), 0);
  AwaitGeneration(2);
  EXPECT_FALSE(IsRunning(compiler));
  compile.join();
}

TEST_F(LifeTest, ABackendThatEndsInOrderIsReplaced) {
  StartBroker();
  const GrpcAnswer first = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(first.ok());
  client::DaemonConnection connection(
      ConnectTo(first.response.route().endpoint()), ipc::WireLane::kFrameV1);
  EXPECT_TRUE(connection.Shutdown(ipc::Deadline::After(kPatience)).ok());
  EXPECT_EQ(AwaitGeneration(2).response.route().generation(), 2u);
}

TEST_F(LifeTest, ADaemonThatForksItselfAwayIsTheBackend) {
  const std::string pid_file = home_.Entry("parent.pid");
  const std::string script = home_.Script(
      "daemonize", absl::StrCat("echo $$ > ", pid_file, "\n", BackendProgram(),
                                " --endpoint \"$2\" &\n",
                                "while [ ! -S \"$2\" ]; do :; done\n",
                                "read line < ", home_.Entry("end"), "\n"));
  ASSERT_EQ(mkfifo(home_.Entry("end").c_str(), 0600), 0);
  home_.Define("demo", PlainDefinition("demo", script,
                                       "args: '--endpoint' args: '{endpoint}' "
                                       "probe: PROBE_ZCCACHE_PING"));
  StartBroker();
  const GrpcAnswer first = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(first.ok()) << first.status.error_message();
  int parent = 0;
  ASSERT_TRUE(absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadFile(pid_file)),
                               &parent));
  EXPECT_NE(first.response.route().pid(), static_cast<uint32_t>(parent));
  // The process that was started ends; the one that serves does not.
  WriteLine(home_.Entry("end"));
  EXPECT_TRUE(ipc::WaitFor([&] { return !IsRunning(parent); },
                           "the started process to end", kPatience));
  ASSERT_EQ(Client().Backends().size(), 1u);
  const GrpcAnswer second = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  EXPECT_EQ(second.response.route().pid(), first.response.route().pid());
  EXPECT_EQ(second.response.route().generation(), 1u);
  EXPECT_TRUE(Exists(second.response.route().endpoint()));
  // And its death is noticed.
  ASSERT_EQ(kill(static_cast<pid_t>(first.response.route().pid()), SIGKILL), 0);
  EXPECT_TRUE(ipc::WaitFor(
      [&] { return Client().Backends()[0].state() == v1::BACKEND_STATE_GONE; },
      "its end to be noticed", kPatience));
}

TEST_F(LifeTest, NothingIsStartedBesideADaemonThatDoesNotAnswer) {
  home_.Define("zccache",
               ReferenceDefinition("zccache", {"1.11.22"}, {},
                                   "endpoint_rule: ENDPOINT_RULE_ZCCACHE"));
  const std::string direct = home_.runtime_dir() + "/zccache/sock";
  ASSERT_EQ(mkdir((home_.runtime_dir() + "/zccache").c_str(), 0700), 0);
  Process theirs(
      {BackendProgram(), "--endpoint", direct, "--report-version", "1.11.22"},
      home_.environment());
  ASSERT_TRUE(ipc::WaitFor([&] { return Exists(direct); },
                           "their daemon to listen", kPatience));
  theirs.StopWhole();
  StartBroker();
  const GrpcAnswer refused = Client().Negotiate("zccache", "1.11.22");
  EXPECT_EQ(refused.reason, "BACKEND_START_FAILED");
  EXPECT_TRUE(absl::StrContains(refused.status.error_message(), direct))
      << refused.status.error_message();
  EXPECT_EQ(Counter("backends_started"), 0u);
  theirs.Signal(SIGCONT);
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const GrpcAnswer answer = Client().Negotiate("zccache", "1.11.22");
        return answer.ok() && answer.response.route().pid() ==
                                  static_cast<uint32_t>(theirs.pid());
      },
      "theirs to be adopted", kPatience));
  EXPECT_EQ(Counter("backends_started"), 0u);
}

TEST_F(LifeTest, ABackendInheritsNoDescriptor) {
  const std::string held = home_.Entry("held");
  // Not close-on-exec: what a shell or make hands down.
  const ipc::UniqueFd fd(open(held.c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_TRUE(fd);
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(answer.ok());
  const std::string table =
      absl::StrCat("/proc/", answer.response.route().pid(), "/fd/");
  for (int i = 0; i < 64; ++i) {
    char target[4096];
    const ssize_t n =
        readlink(absl::StrCat(table, i).c_str(), target, sizeof(target));
    if (n <= 0) continue;
    EXPECT_NE(absl::string_view(target, static_cast<size_t>(n)), held)
        << "descriptor " << i;
  }
}

TEST_F(LifeTest, ACancelledCallLeavesTheStartRunning) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"},
                                           {"--start-delay-ms", "1000"}));
  StartBroker();
  GrpcClient client = Client();
  grpc::ClientContext context;
  std::thread cancelled([&] {
    v1::NegotiateResponse response;
    const grpc::Status status = client.broker().Negotiate(
        &context, RequestFor("demo", "1.0.0"), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  });
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Starting("demo"); }, "the start", kPatience));
  context.TryCancel();
  cancelled.join();
  const GrpcAnswer next = Client().Negotiate("demo", "1.0.0");
  EXPECT_TRUE(next.ok()) << next.status.error_message();
  EXPECT_EQ(Counter("backends_started"), 1u);
}

TEST_F(LifeTest, ADeadlineIsAnsweredBeforeItPasses) {
  DefineSlow();
  StartBroker();
  // An answer, not gRPC's own DEADLINE_EXCEEDED.
  const GrpcAnswer answer =
      Client().Negotiate("slow", "1.0.0", absl::Seconds(3));
  EXPECT_EQ(answer.reason, "BACKEND_START_FAILED");
  EXPECT_TRUE(answer.retry.has_value());
  EXPECT_TRUE(Starting("slow"));
}

TEST_F(LifeTest, OnlyIfRunningStartsNothing) {
  StartBroker();
  v1::NegotiateRequest request = RequestFor("demo", "1.0.0");
  request.set_start_policy(v1::START_POLICY_ONLY_IF_RUNNING);
  EXPECT_EQ(Client().Negotiate(request).reason, "BACKEND_START_FAILED");
  EXPECT_EQ(Counter("backends_started"), 0u);
  ASSERT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  EXPECT_TRUE(Client().Negotiate(request).ok());
}

TEST_F(LifeTest, AnUpstreamDefinitionStartsByItsContract) {
  home_.DefineUpstream("legacy", BackendProgram(), "3.2.1");
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("legacy", "3.2.1");
  ASSERT_TRUE(answer.ok()) << answer.status.error_message();
  client::DaemonConnection connection(
      ConnectTo(answer.response.route().endpoint()), ipc::WireLane::kFrameV1);
  const auto status = connection.GetStatus(ipc::Deadline::After(kPatience));
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "3.2.1");
}

TEST_F(LifeTest, ARouteNamesTheVeryProcess) {
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(answer.ok());
  const v1::BackendRoute& route = answer.response.route();
  const auto identity = ipc::IdentifyProcess(static_cast<int>(route.pid()));
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(route.start_time(), identity->start_time);
  EXPECT_EQ(route.boot_id(), identity->boot_id);
  std::vector<std::string> steps;
  for (const auto& step : answer.response.steps()) steps.push_back(step.name());
  EXPECT_EQ(steps,
            (std::vector<std::string>{"look", "spawn", "bind", "probe"}));
}

// --- The broker

TEST_F(LifeTest, TermLeavesBackendsAndTheNextBrokerAdoptsThem) {
  StartBroker();
  const GrpcAnswer first = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(first.ok());
  const std::string framed_name = Client().Status().framed_endpoint();
  EXPECT_TRUE(Exists(framed_name));
  StopBroker();
  EXPECT_FALSE(Exists(socket()));
  EXPECT_FALSE(Exists(framed_name));
  EXPECT_TRUE(IsRunning(static_cast<pid_t>(first.response.route().pid())));

  StartBroker();
  const GrpcAnswer second = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  EXPECT_NE(second.response.origin(), v1::ROUTE_ORIGIN_STARTED);
  EXPECT_EQ(second.response.route().pid(), first.response.route().pid());
  EXPECT_EQ(Counter("backends_adopted"), 1u);
  EXPECT_EQ(Counter("backends_started"), 0u);
}

// More than may be started at once: none of them is started.
TEST_F(LifeTest, AllBackendsAreAdoptedBeforeAnybodyAsks) {
  constexpr int kServices = 7;
  for (int i = 0; i < kServices; ++i) {
    const std::string name = absl::StrCat("many", i);
    home_.Define(name, ReferenceDefinition(name, {"1.0.0"}));
  }
  StartBroker();
  std::map<std::string, uint32_t> pids;
  for (int i = 0; i < kServices; ++i) {
    const std::string name = absl::StrCat("many", i);
    const GrpcAnswer answer = Client().Negotiate(name, "1.0.0");
    ASSERT_TRUE(answer.ok()) << answer.status.error_message();
    pids[name] = answer.response.route().pid();
  }
  StopBroker();
  StartBroker();
  std::map<std::string, uint32_t> adopted;
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        adopted.clear();
        for (const v1::Backend& backend : Client().Backends()) {
          if (backend.state() == v1::BACKEND_STATE_READY) {
            adopted[backend.service()] = backend.route().pid();
          }
        }
        return adopted.size() == pids.size();
      },
      "all to be adopted", kPatience));
  EXPECT_EQ(adopted, pids);
}

TEST_F(LifeTest, AKilledBrokersPlaceIsTakenAndItsBackendAdopted) {
  StartBroker();
  const GrpcAnswer first = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(first.ok());
  broker().process().Signal(SIGKILL);
  EXPECT_EQ(broker().process().Wait(), 128 + SIGKILL);
  EXPECT_TRUE(Exists(socket())) << "a stale socket is what this is about";

  StartBroker();
  const GrpcAnswer second = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(second.ok()) << second.status.error_message();
  // Its journal told of the backend before anybody asked.
  EXPECT_NE(second.response.origin(), v1::ROUTE_ORIGIN_STARTED);
  EXPECT_EQ(second.response.route().pid(), first.response.route().pid());
  ASSERT_EQ(Client().Backends().size(), 1u);
  EXPECT_EQ(Client().Backends()[0].origin(), v1::ROUTE_ORIGIN_ADOPTED);

  // What was adopted is watched like what was started.
  ASSERT_EQ(kill(static_cast<pid_t>(first.response.route().pid()), SIGKILL), 0);
  EXPECT_NE(AwaitGeneration(2).response.route().pid(),
            first.response.route().pid());
}

TEST_F(LifeTest, ASecondBrokerSaysThatOneRuns) {
  StartBroker();
  const Finished second =
      RunToEnd({BrokerProgram(), "--allow-root"}, home_.environment());
  EXPECT_EQ(second.status, 14);
  EXPECT_TRUE(
      absl::StrContains(second.err, absl::StrCat(broker().process().pid())))
      << second.err;
  ExpectServesOthers();
}

TEST_F(LifeTest, RefusesRootWithoutPermission) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const Finished broker = RunToEnd({BrokerProgram()}, home_.environment());
  EXPECT_EQ(broker.status, 1);
  EXPECT_TRUE(absl::StrContains(broker.err, "--allow-root")) << broker.err;
  EXPECT_FALSE(Exists(socket()));
}

TEST_F(LifeTest, WrongUsageIsStatusTwo) {
  EXPECT_EQ(RunToEnd({BrokerProgram(), "--nosuch"}, home_.environment()).status,
            2);
}

TEST_F(LifeTest, RefusesARuntimeDirectoryOpenToOthers) {
  ASSERT_EQ(chmod(home_.Entry("run/zcbroker").c_str(), 0777), 0);
  const Finished broker =
      RunToEnd({BrokerProgram(), "--allow-root"}, home_.environment());
  EXPECT_EQ(broker.status, 1) << broker.err;
  EXPECT_TRUE(absl::StrContains(broker.err, "zcbroker")) << broker.err;
}

TEST_F(LifeTest, ServesAnInheritedSocket) {
  Broker::Options options;
  options.inherit_socket = true;
  StartBroker(options);
  ExpectServesOthers();
  const v1::GetStatusResponse status = Client().Status();
  EXPECT_EQ(status.endpoint(), socket());
  StopBroker();
  // They belong to whoever holds the socket, and lead to the next broker.
  EXPECT_TRUE(Exists(socket()));
  EXPECT_TRUE(Exists(status.framed_endpoint()));
}

TEST_F(LifeTest, TellsTheServiceManagerOfItsEnd) {
  StartBroker();
  EXPECT_EQ(broker().Terminate(), 0);
  EXPECT_EQ(broker().NextNotification(), "STOPPING=1");
}

TEST_F(LifeTest, InterruptEndsItInOrder) {
  StartBroker();
  broker().process().Signal(SIGINT);
  EXPECT_EQ(broker().process().Wait(), 0);
  EXPECT_FALSE(Exists(socket()));
}

TEST_F(LifeTest, HangupReadsTheDefinitionsAgain) {
  StartBroker();
  home_.Define("other", ReferenceDefinition("other", {"1.0.0"}));
  broker().process().Signal(SIGHUP);
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Client().Negotiate("other", "1.0.0").ok(); },
                   "the new definition", kPatience));
}

TEST_F(LifeTest, WhoWaitsWhenItEndsIsToldToComeAgain) {
  DefineSlow();
  StartBroker();
  auto over_grpc = std::async(
      std::launch::async, [&] { return Client().Negotiate("slow", "1.0.0"); });
  auto over_framed = std::async(std::launch::async, [&] {
    return NegotiateFramed(socket(), "slow", "1.0.0");
  });
  pid_t backend = 0;
  EXPECT_TRUE(ipc::WaitFor(
      [&] {
        const v1::GetStatusResponse status = Client().Status();
        return status.counters().count("negotiations") > 0 &&
               status.counters().at("negotiations") == 2 && Starting("slow");
      },
      "both to wait", kPatience));
  for (const pid_t child : Children()) {
    if (child == broker().process().pid()) continue;
    backend = child;
  }
  EXPECT_EQ(backend, 0) << "the backend is the broker's child";
  EXPECT_EQ(broker().Terminate(), 0);

  const GrpcAnswer grpc = over_grpc.get();
  EXPECT_EQ(grpc.reason, "SHUTTING_DOWN") << grpc.status.error_message();
  EXPECT_EQ(grpc.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(grpc.retry.has_value());
  const FramedAnswer framed = over_framed.get();
  ASSERT_TRUE(framed.refused.has_value());
  EXPECT_EQ(framed.refused->details().at("refusal"), "SHUTTING_DOWN");
  EXPECT_GT(framed.refused->retry_after_ms(), 0u);
  // Left running, and ours to inherit.
  EXPECT_EQ(Children().size(), 1u);
}

TEST_F(LifeTest, EndsInOrderUnderFire) {
  for (int round = 0; round < 5; ++round) {
    StartBroker();
    std::atomic<bool> served{false};
    std::vector<std::thread> callers;
    for (int i = 0; i < 8; ++i) {
      callers.emplace_back([&served, i, client = Client()]() mutable {
        grpc::Status status;
        while (status.ok()) {
          grpc::ClientContext context;
          context.set_deadline(std::chrono::system_clock::now() +
                               absl::ToChronoSeconds(kPatience));
          if (i % 2 == 0) {
            v1::GetStatusResponse response;
            status = client.admin().GetStatus(&context, v1::GetStatusRequest(),
                                              &response);
          } else {
            v1::NegotiateResponse response;
            status = client.broker().Negotiate(
                &context, RequestFor("demo", "1.0.0"), &response);
          }
          if (status.ok()) served = true;
        }
        // CANCELLED is gRPC's own word to a call that comes when its server
        // has begun to end.
        EXPECT_TRUE(status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                    status.error_code() == grpc::StatusCode::CANCELLED)
            << status.error_code() << ": " << status.error_message();
      });
    }
    EXPECT_TRUE(
        ipc::WaitFor([&] { return served.load(); }, "an answer", kPatience));
    StopBroker();
    for (std::thread& caller : callers) caller.join();
  }
}

TEST_F(LifeTest, DownWithStopBackendsEndsThem) {
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(answer.ok());
  const Finished down = RunToEnd(
      {CommandLineProgram(), "down", "--stop-backends"}, home_.environment());
  EXPECT_EQ(down.status, 0) << down.err;
  EXPECT_EQ(broker().process().Wait(), 0);
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(answer.response.route().pid())));
  EXPECT_FALSE(Exists(answer.response.route().endpoint()));
  EXPECT_TRUE(Children().empty());
}

TEST_F(LifeTest, ShutdownEndsABackendThatIsStillStarting) {
  DefineSlow();
  StartBroker();
  auto waiter = std::async(std::launch::async,
                           [&] { return Client().Negotiate("slow", "1.0.0"); });
  EXPECT_TRUE(
      ipc::WaitFor([&] { return Starting("slow"); }, "the start", kPatience));
  GrpcClient client = Client();
  grpc::ClientContext context;
  v1::ShutdownRequest request;
  request.set_backends(v1::ShutdownRequest::BACKENDS_STOP);
  v1::ShutdownResponse response;
  ASSERT_TRUE(client.admin().Shutdown(&context, request, &response).ok());
  EXPECT_EQ(response.refusal_for_waiters(), v1::REFUSAL_SHUTTING_DOWN);
  EXPECT_EQ(response.waiters(), 1u);
  EXPECT_EQ(waiter.get().reason, "SHUTTING_DOWN");
  EXPECT_EQ(broker().process().Wait(), 0);
  EXPECT_TRUE(Children().empty());
}

TEST_F(LifeTest, ALogGrowsToItsLimitAndIsThenRenamed) {
  const std::string log = home_.LogFile("demo", "1.0.0");
  std::filesystem::create_directories(std::filesystem::path(log).parent_path());
  StartBroker();
  const auto start_with_log_of = [&](int64_t bytes) {
    WriteFile(log, std::string(static_cast<size_t>(bytes), '\n'));
    ASSERT_TRUE(AwaitGeneration(0).ok());
    grpc::ClientContext context;
    v1::StopBackendRequest request;
    request.set_service("demo");
    request.set_version("1.0.0");
    v1::StopBackendResponse response;
    ASSERT_TRUE(
        Client().admin().StopBackend(&context, request, &response).ok());
  };
  start_with_log_of(service::kMaxLogBytes - 1);
  start_with_log_of(service::kMaxLogBytes);
  EXPECT_FALSE(Exists(log + ".1"));
  start_with_log_of(service::kMaxLogBytes + 1);
  EXPECT_TRUE(Exists(log + ".1"));
  EXPECT_LT(std::filesystem::file_size(log), 1000u) << "begun anew";
}

TEST_F(LifeTest, NoDescriptorLeaksIntoABackend) {
  home_.Define(
      "looker",
      PlainDefinition("looker",
                      home_.Script("looker", "ls -l /proc/$$/fd; exit 3")));
  StartBroker();
  // A few connections that could leak.
  const GrpcClient other = Client();
  const ipc::UniqueFd framed = ConnectTo(socket());
  const GrpcAnswer answer = Client().Negotiate("looker", "1.0.0");
  ASSERT_TRUE(answer.refusal.has_value());
  for (const std::string& line : answer.refusal->evidence()) {
    EXPECT_FALSE(absl::StrContains(line, "socket:")) << line;
    EXPECT_FALSE(absl::StrContains(line, "anon_inode")) << line;
  }
}

}  // namespace
}  // namespace zcbroker::testing
