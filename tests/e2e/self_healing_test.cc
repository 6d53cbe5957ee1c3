// What people and cleaners delete under a running broker comes back; what has
// become somebody else's stays theirs.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/daemon_connection.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

namespace fs = std::filesystem;

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

bool Answers(const std::string& socket) {
  const auto endpoint = ipc::Endpoint::Parse(socket);
  return endpoint.ok() &&
         ipc::Connect(*endpoint, ipc::Deadline::After(absl::Seconds(5))).ok();
}

class SelfHealingTest : public BrokerTest {
 protected:
  SelfHealingTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  }

  std::string Run(absl::string_view leaf) const {
    return home_.Entry(absl::StrCat("run/zcbroker/", leaf));
  }
  std::string route() const { return Run("routes/demo/1.0.0.sock"); }
  std::string info() const { return Run("routes/demo/1.0.0.info"); }

  // A ready backend, and its names.
  v1::BackendRoute StartDemo() {
    const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    Await("the route info", [this] { return Exists(info()); });
    Await("the named route", [this] { return Answers(route()); });
    return answer.response.route();
  }

  template <typename Condition>
  void Await(const std::string& what, Condition condition) {
    EXPECT_TRUE(ipc::WaitFor(condition, what, kPatience));
  }

  // It is the same broker, and it serves.
  void ExpectServes() {
    Await("the broker's socket", [this] { return Answers(socket()); });
    EXPECT_EQ(Client().Status().pid(),
              static_cast<uint32_t>(broker().process().pid()));
    EXPECT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  }

  // Whoever starts another here is told so.
  void ExpectPlaceIsHeld() {
    const Finished second = RunToEnd({BrokerProgram(), "--allow-root"},
                                     home_.environment(), home_.path());
    EXPECT_EQ(second.status, 14) << second.err;
  }
};

TEST_F(SelfHealingTest, TheSocketIsBoundAgain) {
  StartBroker();
  const v1::BackendRoute before = StartDemo();
  ASSERT_EQ(unlink(socket().c_str()), 0);
  ExpectServes();
  EXPECT_EQ(Client().Negotiate("demo", "1.0.0").response.route().pid(),
            before.pid());
  StopBroker();
  EXPECT_FALSE(Exists(socket()));
}

TEST_F(SelfHealingTest, TheLockIsClaimedAgain) {
  StartBroker();
  ASSERT_EQ(unlink(Run("broker.lock").c_str()), 0);
  Await("the lock", [this] {
    const ipc::UniqueFd lock(
        open(Run("broker.lock").c_str(), O_RDWR | O_CLOEXEC));
    return lock && flock(lock.get(), LOCK_EX | LOCK_NB) != 0;
  });
  ExpectPlaceIsHeld();
  ExpectServes();
}

TEST_F(SelfHealingTest, TheNameForFramedClientsLeadsBack) {
  StartBroker();
  const std::string name = Client().Status().framed_endpoint();
  ASSERT_TRUE(NegotiateFramed(name, "demo", "1.0.0").negotiated.has_value());
  ASSERT_EQ(unlink(name.c_str()), 0);
  Await("the name", [&] { return Answers(name); });
  // With its directories.
  fs::remove_all(home_.Entry("run/running-process"));
  Await("the name again", [&] { return Answers(name); });
  EXPECT_TRUE(NegotiateFramed(name, "demo", "1.0.0").negotiated.has_value());
}

TEST_F(SelfHealingTest, ANamedRouteIsMadeAgain) {
  StartBroker();
  const v1::BackendRoute before = StartDemo();
  ASSERT_EQ(unlink(route().c_str()), 0);
  Await("the named route", [this] { return Answers(route()); });
  ASSERT_EQ(unlink(info().c_str()), 0);
  Await("the route info", [this] { return Exists(info()); });
  EXPECT_EQ(Client().Negotiate("demo", "1.0.0").response.route().pid(),
            before.pid());
}

TEST_F(SelfHealingTest, TheDirectoryOfRoutesIsMadeAgain) {
  StartBroker();
  const v1::BackendRoute before = StartDemo();
  // More than once: what was made again is watched, too.
  for (int i = 0; i < 3; ++i) {
    fs::remove_all(Run("routes"));
    Await("the named route", [this] { return Answers(route()); });
    Await("the route info", [this] { return Exists(info()); });
  }
  EXPECT_EQ(Client().Negotiate("demo", "1.0.0").response.route().pid(),
            before.pid());
}

TEST_F(SelfHealingTest, TheRuntimeDirectoryIsMadeAgain) {
  StartBroker();
  uint32_t last = StartDemo().pid();
  for (int i = 0; i < 3; ++i) {
    // What is left to do from the time before may come in between.
    Await("the removal", [this] {
      std::error_code error;
      fs::remove_all(home_.Entry("run/zcbroker"), error);
      return !error;
    });
    ExpectServes();
    Await("the named route", [this] { return Answers(route()); });
    // Nobody can reach the backend any more: it is not left beside the next.
    v1::BackendRoute next;
    Await("its successor", [&] {
      const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
      next = answer.response.route();
      return answer.ok() && next.pid() != last;
    });
    EXPECT_FALSE(IsRunning(static_cast<pid_t>(last)));
    EXPECT_TRUE(Answers(next.endpoint()));
    Await("the route info", [this] { return Exists(info()); });
    last = next.pid();
  }
  ExpectPlaceIsHeld();
}

TEST_F(SelfHealingTest, ARuntimeDirectoryMovedAwayIsMadeAgain) {
  StartBroker();
  StartDemo();
  ASSERT_EQ(rename(home_.Entry("run/zcbroker").c_str(),
                   home_.Entry("run/moved").c_str()),
            0);
  ExpectServes();
  ExpectPlaceIsHeld();
  Await("the named route", [this] { return Answers(route()); });
  // And is watched as the first one was.
  ASSERT_EQ(unlink(route().c_str()), 0);
  Await("the named route again", [this] { return Answers(route()); });
  ASSERT_EQ(unlink(socket().c_str()), 0);
  ExpectServes();
}

TEST_F(SelfHealingTest, WithoutARuntimeDirectoryTheBrokerWithdraws) {
  StartBroker();
  const auto backend = static_cast<pid_t>(StartDemo().pid());
  fs::remove_all(home_.runtime_dir());
  // Where clients look then is for the next broker to find out, and nobody
  // would find this backend.
  EXPECT_EQ(AwaitBrokersEnd(), 1);
  Await("its backend's end", [&] { return !IsRunning(backend); });
}

TEST_F(SelfHealingTest, WhoeverClaimedTheLostLockHasThePlace) {
  StartBroker();
  const auto backend = static_cast<pid_t>(StartDemo().pid());
  const std::string lock = Run("broker.lock");
  // Claimed in the place of the one that is lost, and the socket, too.
  const ipc::UniqueFd other(
      open(Run("lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(flock(other.get(), LOCK_EX | LOCK_NB), 0);
  auto listener = ipc::Listener::Bind(*ipc::Endpoint::Parse(socket()));
  ASSERT_TRUE(listener.ok()) << listener.status();
  ASSERT_EQ(rename(Run("lock").c_str(), lock.c_str()), 0);
  EXPECT_EQ(AwaitBrokersEnd(), 14);
  EXPECT_TRUE(listener->HasItsName());
  EXPECT_TRUE(IsRunning(backend));
  EXPECT_TRUE(Exists(lock));
}

TEST_F(SelfHealingTest, SomebodyElsesSocketIsLeftAlone) {
  StartBroker();
  StartDemo();
  {
    auto listener = ipc::Listener::Bind(*ipc::Endpoint::Parse(socket()));
    ASSERT_TRUE(listener.ok()) << listener.status();
    // Long after the broker has looked at it: a later change has been mended.
    ASSERT_EQ(unlink(Run("broker.lock").c_str()), 0);
    Await("the lock", [this] { return Exists(Run("broker.lock")); });
    EXPECT_TRUE(listener->HasItsName());
    ASSERT_TRUE(listener->UnlinkIfOurs().ok());
  }
  ExpectServes();
}

TEST_F(SelfHealingTest, OutOfDescriptorsItIsTriedAgain) {
  if (kChecksNeedPipes) GTEST_SKIP() << "the sanitizer needs descriptors";
  const std::string log = home_.Entry("work/log");
  const ipc::UniqueFd log_fd(
      open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  Broker::Options options;
  options.log_fd = log_fd.get();
  StartBroker(options);
  StartDemo();
  const pid_t pid = broker().process().pid();
  rlimit before{};
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, nullptr, &before), 0);
  // Those that are open stay so.
  const rlimit none{3, before.rlim_max};
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, &none, nullptr), 0);
  ASSERT_EQ(unlink(socket().c_str()), 0);
  ASSERT_EQ(unlink(info().c_str()), 0);
  // It has looked, and could not.
  Await("its complaint", [&] {
    return absl::StrContains(ReadFile(log), "Too many open files");
  });
  EXPECT_FALSE(Exists(socket()));
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, &before, nullptr), 0);
  ExpectServes();
  Await("the route info", [this] { return Exists(info()); });
}

TEST_F(SelfHealingTest, ABackendsSocketIsLinkedAgain) {
  home_.Define("direct",
               ReferenceDefinition("direct", {"1.0.0"}, {},
                                   "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("direct", "1.0.0");
  ASSERT_TRUE(answer.ok()) << answer.status.error_message();
  const std::string endpoint = answer.response.route().endpoint();
  const std::string direct = Client().Backends().front().direct_endpoint();
  ASSERT_NE(direct, "");
  ASSERT_NE(direct, endpoint);
  ASSERT_EQ(unlink(endpoint.c_str()), 0);
  Await("its own endpoint", [&] { return Answers(endpoint); });
  ASSERT_EQ(unlink(direct.c_str()), 0);
  // Looked at with the next change of its own directory.
  ASSERT_EQ(unlink(endpoint.c_str()), 0);
  const uint32_t pid = answer.response.route().pid();
  Await("its replacement", [&] {
    const GrpcAnswer next = Client().Negotiate("direct", "1.0.0");
    return next.ok() && next.response.route().pid() != pid;
  });
  Await("the direct endpoint", [&] { return Answers(direct); });
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(pid)));
}

TEST_F(SelfHealingTest, ABackendThatNobodyCanReachIsReplaced) {
  StartBroker();
  const v1::BackendRoute before = StartDemo();
  ASSERT_EQ(unlink(before.endpoint().c_str()), 0);
  v1::BackendRoute after;
  Await("its successor", [&] {
    const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
    after = answer.response.route();
    return answer.ok() && after.pid() != before.pid();
  });
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(before.pid())));
  EXPECT_EQ(after.generation(), before.generation() + 1);
  EXPECT_TRUE(Answers(after.endpoint()));
}

TEST_F(SelfHealingTest, ABackendThatNobodyCanReachEndsWhatItHasBegun) {
  StartBroker();
  const v1::BackendRoute before = StartDemo();
  client::DaemonConnection connection(ConnectTo(before.endpoint()),
                                      ipc::WireLane::kFrameV1);
  ASSERT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  ASSERT_EQ(unlink(before.endpoint().c_str()), 0);
  Await("it to drain", [&] {
    return Client().Backends()[0].state() == v1::BACKEND_STATE_DRAINING;
  });
  // Its file is gone, and with it the name by which the connection was found.
  Await("the connection to be seen", [&] {
    const v1::Backend backend = Client().Backends()[0];
    return std::any_of(backend.evidence().begin(), backend.evidence().end(),
                       [](const std::string& line) {
                         return absl::StrContains(line, "1 connection");
                       });
  });
  // Who reports it is told that it works, and does not get another beside it.
  v1::ReportBackendRequest report;
  report.set_service("demo");
  report.set_version("1.0.0");
  report.set_pid(before.pid());
  report.set_start_time(before.start_time());
  v1::ReportBackendResponse verdict;
  grpc::ClientContext context;
  ASSERT_TRUE(Client().broker().ReportBackend(&context, report, &verdict).ok());
  EXPECT_EQ(verdict.verdict(), v1::BACKEND_VERDICT_BUSY);
  EXPECT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  EXPECT_TRUE(IsRunning(static_cast<pid_t>(before.pid())));
  const std::string why = Client().Backends()[0].evidence(0);
  EXPECT_TRUE(absl::StrContains(why, "was removed")) << why;
  connection =
      client::DaemonConnection(ConnectTo(route()), ipc::WireLane::kFrameV1);
  EXPECT_TRUE(connection.Ping(ipc::Deadline::After(kPatience)).ok());
  EXPECT_NE(Client().Negotiate("demo", "1.0.0").response.route().pid(),
            before.pid());
  EXPECT_FALSE(IsRunning(static_cast<pid_t>(before.pid())));
}

TEST_F(SelfHealingTest, AJournalIsWrittenAgain) {
  StartBroker();
  const v1::BackendRoute backend = StartDemo();
  std::string journal = backend.endpoint();
  journal.replace(journal.rfind(".sock"), 5, ".journal");
  ASSERT_EQ(unlink(journal.c_str()), 0);
  Await("the journal", [&] { return Exists(journal); });
  broker().process().Signal(SIGKILL);
  EXPECT_EQ(AwaitBrokersEnd(), 128 + SIGKILL);
  StartBroker();
  EXPECT_EQ(StartDemo().pid(), backend.pid());
}

}  // namespace
}  // namespace zcbroker::testing
