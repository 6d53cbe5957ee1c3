// The real keeper and the real broker, which is replaced while it is at work:
// nobody is refused, nothing that is under way is lost, and every backend has
// one broker at a time.
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/daemon_connection.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/fd_passing.h"
#include "ipc/keeper_channel.h"
#include "ipc/peer_identity.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/admin.grpc.pb.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

std::string KeeperProgram() {
  char resolved[PATH_MAX];
  return realpath(getenv("ZCBROKER_KEEPER"), resolved);
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

bool Listens(const std::string& socket) {
  return ipc::Connect(*ipc::Endpoint::Parse(socket),
                      ipc::Deadline::After(kPatience))
      .ok();
}

// Of those that this process has open.
int ListeningSockets(pid_t pid) {
  std::set<std::string> inodes;
  std::ifstream all("/proc/net/unix");
  for (std::string line; std::getline(all, line);) {
    const std::vector<std::string> words =
        absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() > 6 && words[3] == "00010000") inodes.insert(words[6]);
  }
  int listening = 0;
  std::error_code gone;
  for (const auto& fd : std::filesystem::directory_iterator(
           absl::StrCat("/proc/", pid, "/fd"), gone)) {
    std::string target = std::filesystem::read_symlink(fd, gone).string();
    if (!absl::StartsWith(target, "socket:[")) continue;
    target = target.substr(8, target.size() - 9);
    listening += static_cast<int>(inodes.count(target));
  }
  return listening;
}

class HandOverTest : public ::testing::Test {
 protected:
  HandOverTest() {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  }
  ~HandOverTest() override {
    keeper_.reset();
    EndAllChildren();
  }

  void Start(const ProcessOptions& options = {},
             const std::string& broker = BrokerProgram()) {
    keeper_ = std::make_unique<Process>(
        std::vector<std::string>{KeeperProgram(), "--broker", broker, "--",
                                 "--allow-root"},
        home_.environment(), options);
    Await("the broker", [this] { return Exists(home_.broker_socket()); });
    Await("the named route", [this] { return Exists(name()); });
    broker_ = Broker();
  }

  template <typename Condition>
  void Await(const std::string& what, Condition condition) {
    ASSERT_TRUE(ipc::WaitFor(condition, what, kPatience));
  }

  GrpcClient Client() const { return GrpcClient(home_.broker_socket()); }
  // Who answers now.
  pid_t Broker() const { return static_cast<pid_t>(Client().Status().pid()); }
  // As an upgrade does; returns when the next broker answers.
  void Upgrade() {
    keeper_->Signal(SIGUSR2);
    Await("the next broker", [this] { return Broker() != broker_; });
  }

  std::string name() const {
    return home_.Entry("run/zcbroker/routes/demo/1.0.0.sock");
  }
  client::DaemonConnection Relayed() const {
    return client::DaemonConnection(ConnectTo(name()), ipc::WireLane::kFrameV1);
  }
  uint32_t BackendPid() const {
    const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    return answer.response.route().pid();
  }

  // A compile, relayed, that runs this in a shell.
  std::future<absl::StatusOr<zccache::v1::CompileResult>> Compile(
      const std::string& script) {
    return std::async(std::launch::async, [this, script] {
      client::DaemonConnection connection = Relayed();
      zccache::v1::CompileEphemeral request;
      request.mutable_working_dir()->set_value("/");
      request.mutable_cwd()->set_value("/");
      request.mutable_compiler()->set_value("/bin/sh");
      request.add_args("-c");
      request.add_args(script);
      return connection.CompileEphemeral(std::move(request),
                                         ipc::Deadline::After(2 * kPatience));
    });
  }
  // One that takes until End().
  std::future<absl::StatusOr<zccache::v1::CompileResult>> LongCompile() {
    const std::string end = home_.Entry("work/end");
    EXPECT_EQ(mkfifo(end.c_str(), 0600), 0);
    auto compile = Compile(absl::StrCat("mkdir ", home_.Entry("work/begun"),
                                        "; read line < ", end));
    EXPECT_TRUE(
        ipc::WaitFor([this] { return Exists(home_.Entry("work/begun")); },
                     "the compiler to run", kPatience));
    return compile;
  }
  void End() { WriteLine(home_.Entry("work/end")); }
  static void WriteLine(const std::string& pipe) {
    const ipc::UniqueFd fd(open(pipe.c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_TRUE(fd);
    ASSERT_EQ(write(fd.get(), "\n", 1), 1);
  }

  v1::Backend Drain(absl::Duration timeout) {
    GrpcClient client = Client();
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    v1::DrainBackendRequest request;
    request.set_service("demo");
    request.set_version("1.0.0");
    v1::DrainBackendResponse response;
    const grpc::Status status =
        client.admin().DrainBackend(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.backend();
  }

  Home home_;
  std::unique_ptr<Process> keeper_;
  pid_t broker_ = -1;
};

TEST_F(HandOverTest, WhoFollowsEventsIsToldAndHoldsNobodyUp) {
  Start();
  GrpcClient follower(home_.broker_socket());
  grpc::ClientContext context;
  v1::StreamEventsRequest request;
  request.set_follow(true);
  const auto reader = follower.admin().StreamEvents(&context, request);
  v1::StreamEventsResponse response;
  ASSERT_TRUE(reader->Read(&response));
  Upgrade();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(ReadAnswer(reader->Finish(), {}).reason, "SHUTTING_DOWN");
}

TEST_F(HandOverTest, TheCommandLineFollowsTheSuccessor) {
  Start();
  const std::string out = home_.Entry("work/events");
  const ipc::UniqueFd file(
      open(out.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ProcessOptions options;
  options.stdout_fd = file.get();
  Process follower({CommandLineProgram(), "events", "--follow"},
                   home_.environment(), options);
  Await("the first event",
        [&] { return absl::StrContains(ReadFile(out), "broker started"); });
  Upgrade();
  Await("the start of the next", [&] {
    const std::string all = ReadFile(out);
    return all.find("broker started") != all.rfind("broker started");
  });
  follower.Signal(SIGINT);
  EXPECT_EQ(follower.Wait(), 128 + SIGINT);
}

TEST_F(HandOverTest, ALongRequestOutlivesItsBroker) {
  Start();
  const uint32_t backend = BackendPid();
  auto compile = LongCompile();
  EXPECT_GT(ListeningSockets(broker_), 0);
  Upgrade();
  EXPECT_TRUE(IsRunning(broker_)) << "what it has begun is its own to end";
  EXPECT_EQ(ListeningSockets(broker_), 0);
  EXPECT_EQ(BackendPid(), backend);
  EXPECT_TRUE(Relayed().Ping(ipc::Deadline::After(kPatience)).ok());
  End();
  const auto result = compile.get();
  EXPECT_TRUE(result.ok()) << result.status();
  Await("its end", [this] { return !IsRunning(broker_); });
  EXPECT_EQ(Client().Backends()[0].origin(), v1::ROUTE_ORIGIN_ADOPTED);
}

TEST_F(HandOverTest, AStreamThatIsNotUnderstoodOutlivesItsBroker) {
  home_.Define("demo", PlainDefinition("demo", BackendProgram(),
                                       "args: '--endpoint' args: '{endpoint}' "
                                       "probe: PROBE_CONNECT"));
  Start();
  client::DaemonConnection stream = Relayed();
  ASSERT_TRUE(stream.Ping(ipc::Deadline::After(kPatience)).ok());
  ASSERT_EQ(Client().Status().counters().at("relay.streams"), 1u);
  Upgrade();
  EXPECT_TRUE(stream.Ping(ipc::Deadline::After(kPatience)).ok());
}

TEST_F(HandOverTest, TheNextRequestOfAConnectionIsTheSuccessors) {
  Start();
  client::DaemonConnection connection = Relayed();
  ASSERT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  Upgrade();
  EXPECT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  EXPECT_EQ(Client().Status().counters().at("relay.requests"), 1u);
  // It has no connection to the backend that would hold up a drain.
  EXPECT_EQ(Drain(kPatience).state(), v1::BACKEND_STATE_GONE);
  EXPECT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  // Nobody says anything any more.
  Await("its end", [this] { return !IsRunning(broker_); });
}

TEST_F(HandOverTest, ARequestThatLosesItsBackendIsSentToTheSuccessors) {
  Start();
  const auto backend = static_cast<pid_t>(BackendPid());
  // The first of them takes long, the next does not.
  const std::string begun = home_.Entry("work/begun");
  auto compile =
      Compile(absl::StrCat("if mkdir ", begun, "; then exec sleep 1000; fi"));
  Await("the compiler to run", [&] { return Exists(begun); });
  Upgrade();
  ASSERT_EQ(BackendPid(), static_cast<uint32_t>(backend)) << "adopted";
  ASSERT_EQ(kill(backend, SIGKILL), 0);
  const auto result = compile.get();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NE(BackendPid(), static_cast<uint32_t>(backend));
  // Seen by the successor alone.
  EXPECT_EQ(Client().Status().counters().at("backends_ended"), 1u);
  Await("its end", [this] { return !IsRunning(broker_); });
}

TEST_F(HandOverTest, AWedgedBackendIsReportedToTheSuccessor) {
  Start();
  const auto backend = static_cast<pid_t>(BackendPid());
  StopWhole(backend);
  auto ping = std::async(std::launch::async, [this] {
    return Relayed().Ping(ipc::Deadline::After(kPatience));
  });
  Await("the request to be on its way", [this] {
    return Client().Status().counters().count("relay.requests") == 1;
  });
  Upgrade();
  const absl::Status pinged = ping.get();
  EXPECT_TRUE(pinged.ok()) << pinged;
  EXPECT_FALSE(IsRunning(backend));
}

TEST_F(HandOverTest, WhoWantsAnEndIsToldHowFarItIsAndItGoesOn) {
  Start();
  const GrpcAnswer route = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(route.ok()) << route.status.error_message();
  auto connection = std::make_unique<client::DaemonConnection>(
      ConnectTo(route.response.route().endpoint()), ipc::WireLane::kFrameV1);
  ASSERT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok());
  auto drain =
      std::async(std::launch::async, [this] { return Drain(kPatience); });
  Await("the drain", [this] {
    return Client().Backends()[0].state() == v1::BACKEND_STATE_DRAINING;
  });
  Upgrade();
  EXPECT_EQ(drain.get().state(), v1::BACKEND_STATE_DRAINING);
  Await("the drain to go on", [this] {
    const auto rows = Client().Backends();
    return !rows.empty() && rows[0].state() == v1::BACKEND_STATE_DRAINING;
  });
  EXPECT_TRUE(connection->Ping(ipc::Deadline::After(kPatience)).ok());
  connection.reset();
  EXPECT_NE(BackendPid(), route.response.route().pid());
}

TEST_F(HandOverTest, WhileSomebodyWaitsForAStartAllAreServed) {
  const std::string go = home_.Entry("work/go");
  ASSERT_EQ(mkfifo(go.c_str(), 0600), 0);
  const std::string script =
      home_.Script("slow", absl::StrCat("read line < ", go, "\nexec ",
                                        BackendProgram(), " \"$@\"\n"));
  home_.Define("slow", PlainDefinition("slow", script,
                                       "args: '--endpoint' args: '{endpoint}' "
                                       "probe: PROBE_ZCCACHE_PING "
                                       "start_timeout { seconds: 60 }"));
  Start();
  auto waiter = std::async(std::launch::async, [this] {
    return Client().Negotiate("slow", "1.0.0");
  });
  Await("the start", [this] {
    const auto rows = Client().Backends();
    return !rows.empty() && rows[0].state() == v1::BACKEND_STATE_STARTING;
  });
  keeper_->Signal(SIGUSR2);
  // Served by the one that is about to go, who still has somebody to answer.
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  }
  WriteLine(go);
  const GrpcAnswer answer = waiter.get();
  ASSERT_TRUE(answer.ok()) << answer.status.error_message();
  Await("the next broker", [this] { return Broker() != broker_; });
  EXPECT_EQ(Client().Negotiate("slow", "1.0.0").response.route().pid(),
            answer.response.route().pid());
}

// An upgrade to a broker that says its version and can do nothing else.
TEST_F(HandOverTest, WithoutASuccessorNamesLeadToTheBackends) {
  const std::string program = home_.Entry("work/zcbrokerd");
  const auto install = [&](const std::string& then) {
    WriteFile(program + ".new",
              absl::StrCat("#!/bin/sh\n[ \"$1\" = --version ] && "
                           "exec echo zcbrokerd 9.9.9\n",
                           then, "\n"),
              /*executable=*/true);
    ASSERT_EQ(rename((program + ".new").c_str(), program.c_str()), 0);
  };
  const std::string good = absl::StrCat("exec ", BrokerProgram(), " \"$@\"");
  install(good);
  Start({}, program);
  const uint32_t backend = BackendPid();
  ASSERT_TRUE(Relayed().Ping(ipc::Deadline::After(kPatience)).ok());
  install("exit 1");
  keeper_->Signal(SIGUSR2);
  Await("the broker to be given up", [this] {
    return absl::IsUnavailable(
        ipc::Connect(*ipc::Endpoint::Parse(home_.broker_socket()),
                     ipc::Deadline::After(kPatience))
            .status());
  });
  Await("a link at the name", [&] {
    const auto connection = ipc::Connect(*ipc::Endpoint::Parse(name()),
                                         ipc::Deadline::After(kPatience));
    return connection.ok() &&
           ipc::PeerOf(*connection)->pid == static_cast<int>(backend);
  });
  EXPECT_TRUE(Relayed().Ping(ipc::Deadline::After(kPatience)).ok());
  // The next that works has all of it back.
  install(good);
  Await("the name to be had again", [&] {
    const auto connection = ipc::Connect(*ipc::Endpoint::Parse(name()),
                                         ipc::Deadline::After(kPatience));
    return connection.ok() &&
           ipc::PeerOf(*connection)->pid != static_cast<int>(backend);
  });
  EXPECT_EQ(BackendPid(), backend);
  EXPECT_TRUE(Relayed().Ping(ipc::Deadline::After(kPatience)).ok());
}

TEST_F(HandOverTest, WhatIsLeftOfABrokerEndsWithItsKeeper) {
  Start();
  auto compile = LongCompile();
  Upgrade();
  const pid_t next = Broker();
  keeper_->Signal(SIGTERM);
  EXPECT_EQ(keeper_->Wait(), 0);
  EXPECT_FALSE(IsRunning(next));
  Await("the end of the other", [this] { return !IsRunning(broker_); });
  EXPECT_FALSE(compile.get().ok());
}

TEST_F(HandOverTest, AnEndThatIsAskedForGoesBefore) {
  Start();
  auto compile = LongCompile();
  // It ends in order, for which it waits for the compile.
  ASSERT_EQ(kill(broker_, SIGTERM), 0);
  Await("its end to begin", [this] { return !Listens(home_.broker_socket()); });
  keeper_->Signal(SIGUSR2);
  End();
  EXPECT_TRUE(compile.get().ok());
  EXPECT_EQ(keeper_->Wait(), 0);
  EXPECT_FALSE(IsRunning(broker_));
}

TEST_F(HandOverTest, BothAtOnceIsAnEnd) {
  for (const bool end_first : {true, false}) {
    Start();
    keeper_->StopWhole();
    keeper_->Signal(end_first ? SIGTERM : SIGUSR2);
    keeper_->Signal(end_first ? SIGUSR2 : SIGTERM);
    keeper_->Signal(SIGCONT);
    EXPECT_EQ(keeper_->Wait(), 0);
    EXPECT_FALSE(IsRunning(broker_));
    EXPECT_FALSE(Exists(home_.broker_socket()));
  }
}

TEST_F(HandOverTest, WithoutItsKeeperItGoesOn) {
  Start();
  const uint32_t backend = BackendPid();
  keeper_->Signal(SIGKILL);
  keeper_->Wait();
  ASSERT_EQ(kill(broker_, SIGUSR2), 0);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(BackendPid(), backend);
  EXPECT_EQ(Broker(), broker_);
  EXPECT_TRUE(Relayed().Ping(ipc::Deadline::After(kPatience)).ok());
}

TEST_F(HandOverTest, OneThatIsNotReadyYetIsReplacedWhenItIs) {
  // Each waits for a line before it becomes the broker.
  const std::string go = home_.Entry("work/go");
  ASSERT_EQ(mkfifo(go.c_str(), 0600), 0);
  const ipc::UniqueFd lines(open(go.c_str(), O_RDWR | O_CLOEXEC));
  const std::string program = home_.Script(
      "slow-broker", absl::StrCat("[ \"$1\" = --version ] && exec ",
                                  BrokerProgram(), " --version\nread line < ",
                                  go, "\nexec ", BrokerProgram(), " \"$@\""));
  const std::string log = home_.Entry("work/log");
  const ipc::UniqueFd log_fd(
      open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  ProcessOptions options;
  options.stderr_fd = log_fd.get();
  keeper_ = std::make_unique<Process>(
      std::vector<std::string>{KeeperProgram(), "--broker", program, "--",
                               "--allow-root"},
      home_.environment(), options);
  // Beside what carries out its last will.
  pid_t first = 0;
  Await("the keeper's broker", [&] {
    const std::string children = ReadFile(absl::StrCat(
        "/proc/", keeper_->pid(), "/task/", keeper_->pid(), "/children"));
    const std::vector<std::string> pids =
        absl::StrSplit(children, ' ', absl::SkipWhitespace());
    return pids.size() == 2 && absl::SimpleAtoi(pids[1], &first);
  });
  keeper_->Signal(SIGUSR2);
  Await("the next keeper",
        [&] { return absl::StrContains(ReadFile(log), "goes on as"); });
  ASSERT_EQ(write(lines.get(), "\n\n", 2), 2);
  Await("the first one's end", [first] { return !IsRunning(first); });
  Await("the named route", [this] { return Exists(name()); });
  EXPECT_TRUE(
      ipc::WaitFor([this] { return Client().Negotiate("demo", "1.0.0").ok(); },
                   "a route", kPatience));
  keeper_->Signal(SIGTERM);
  EXPECT_EQ(keeper_->Wait(), 0);
}

// A keeper that is slow to tell what it holds: signals come in the meantime.
TEST_F(HandOverTest, ASignalWhileItIsSetUpIsObeyedAfterwards) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR2}) {
    auto ends = ipc::PacketSocketPair();
    ASSERT_TRUE(ends.ok()) << ends.status();
    Environment environment = home_.environment();
    environment["ZCBROKER_KEEPER_FD"] = "3";
    ProcessOptions options;
    options.third_fd = ends->second.get();
    Process broker({BrokerProgram(), "--allow-root"}, environment, options);
    ends->second.reset();
    // The lock is the last thing before it asks its keeper.
    Await("its lock", [&] {
      return ReadFile(home_.Entry("run/zcbroker/broker.lock")) ==
             absl::StrCat(broker.pid(), "\n");
    });
    broker.Signal(signal);
    ipc::KeeperLink link(std::move(ends->first));
    ipc::KeeperMessage message;
    message.kind = ipc::KeeperMessage::Kind::kEndOfHeld;
    ASSERT_TRUE(link.Send(message).ok());
    EXPECT_EQ(broker.Wait(), signal == SIGUSR2 ? 15 : 0) << signal;
  }
}

}  // namespace
}  // namespace zcbroker::testing
