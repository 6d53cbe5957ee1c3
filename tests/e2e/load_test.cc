// More than the broker takes: what docs/operations.md, "Limits" says happens,
// and when it is over everything is as before.
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/testing/latch.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "service/core/connection_limits.h"
#include "service/rpc/on_demand_server.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

constexpr int kProcesses = 40;
constexpr int kOfEach = 250;
constexpr uint32_t kLimit = service::ConnectionLimits().connections;
static_assert(kOfEach < service::ConnectionLimits().connections_per_process);

// All a client of HTTP/2 says before its first call: preface and an empty
// SETTINGS frame.
constexpr absl::string_view kIdleClient(
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 33);

class LoadTest : public BrokerTest {
 protected:
  LoadTest() { home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"})); }
  ~LoadTest() override {
    for (const pid_t pid : children_) End(pid);
  }

  // Held until it is closed.
  ipc::UniqueFd IdleClient() const {
    ipc::UniqueFd fd = ConnectTo(socket());
    EXPECT_EQ(send(fd.get(), kIdleClient.data(), kIdleClient.size(), 0),
              static_cast<ssize_t>(kIdleClient.size()));
    return fd;
  }

  // The returned client's connection is the only one the broker has then.
  GrpcClient StartWithOneConnection() {
    StartBroker();
    GrpcClient client = Client();
    EXPECT_TRUE(client.Negotiate("demo", "1.0.0").ok());
    EXPECT_TRUE(ipc::WaitFor([&] { return client.Status().connections() == 1; },
                             "earlier connections to end", kPatience));
    return client;
  }

  // At the limit the broker may close before anything is said.
  bool IsServed() const {
    const ipc::UniqueFd fd = ConnectTo(socket());
    const std::string hello = HelloFrame(HelloFor("demo", "1.0.0"));
    if (send(fd.get(), hello.data(), hello.size(), MSG_NOSIGNAL) < 0) {
      return false;
    }
    bool closed = false;
    return !ReadToEnd(fd, &closed).empty();
  }

  // A process of its own that has so many idle connections until it is ended.
  // After the fork it makes system calls only, since there are threads.
  void StartIdleClients() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, socket().c_str(), socket().size());
    int said[2];
    ASSERT_EQ(pipe(said), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      for (int i = 0; i < kOfEach; ++i) {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, reinterpret_cast<sockaddr*>(&address),
                    sizeof(address)) != 0) {
          _exit(1);
        }
        // One beyond the limit may be closed already.
        (void)!send(fd, kIdleClient.data(), kIdleClient.size(), MSG_NOSIGNAL);
      }
      (void)!write(said[1], "x", 1);
      for (;;) pause();
    }
    children_.push_back(pid);
    close(said[1]);
    char byte = 0;
    EXPECT_EQ(read(said[0], &byte, 1), 1) << "it could not connect";
    close(said[0]);
  }
  static void End(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }

  std::vector<pid_t> children_;
};

TEST_F(LoadTest, IdleGrpcConnectionsAreHeldUpToTheLimitAndRefusedBeyond) {
  StartBroker();
  GrpcClient client = Client();
  ASSERT_TRUE(client.Negotiate("demo", "1.0.0").ok());
  ASSERT_TRUE(ipc::WaitFor([&] { return client.Status().connections() == 1; },
                           "earlier connections to end", kPatience));
  for (int i = 0; i < kProcesses; ++i) StartIdleClients();
  constexpr uint64_t kRefused = kProcesses * kOfEach + 1 - kLimit;
  const auto refused = [&] {
    return client.Status().counters().at("refused.RATE_LIMITED");
  };
  ASSERT_TRUE(ipc::WaitFor([&] { return refused() >= kRefused; },
                           "those beyond the limit to be closed", kPatience));
  // None beyond those, and the next one, too, is told no by being closed.
  EXPECT_EQ(client.Status().connections(), kLimit);
  EXPECT_LE(refused(), kRefused + 2);
  EXPECT_FALSE(IsServed());
  // A place that becomes free is given to the next.
  End(children_.front());
  children_.erase(children_.begin());
  ASSERT_TRUE(
      ipc::WaitFor([this] { return IsServed(); }, "a place", kPatience));
  for (const pid_t pid : std::exchange(children_, {})) End(pid);
  ASSERT_TRUE(ipc::WaitFor([&] { return client.Status().connections() == 1; },
                           "all of them to be gone", kPatience));
  ExpectServesOthers();
  EXPECT_EQ(Counter("accept_failures"), 0u);
  EXPECT_EQ(Counter("refused.FD_PRESSURE"), 0u);
}

TEST_F(LoadTest, APolicySaysHowManyConnectionsThereAre) {
  home_.SetPolicy("limits { connections: 4 }");
  GrpcClient client = StartWithOneConnection();
  std::vector<ipc::UniqueFd> idle;
  for (int i = 0; i < 2; ++i) idle.push_back(IdleClient());
  EXPECT_TRUE(IsServed()) << "the fourth";
  idle.push_back(IdleClient());
  EXPECT_FALSE(IsServed()) << "the fifth";
  const auto counters = client.Status().counters();
  EXPECT_EQ(counters.at("connections.too_many"), 1u);
  EXPECT_EQ(counters.at("refused.RATE_LIMITED"), 1u);
  idle.pop_back();
  EXPECT_TRUE(
      ipc::WaitFor([this] { return IsServed(); }, "a place", kPatience));
  EXPECT_TRUE(TellsOfLimit("connections.too_many"));
  // A policy that is mended counts from then on.
  idle.push_back(IdleClient());
  home_.SetPolicy("");
  client.Reload();
  EXPECT_TRUE(IsServed());
}

TEST_F(LoadTest, APolicySaysHowManyConnectionsAProcessHas) {
  home_.SetPolicy("limits { connections_per_process: 3 }");
  GrpcClient client = StartWithOneConnection();
  std::vector<ipc::UniqueFd> idle;
  idle.push_back(IdleClient());
  EXPECT_TRUE(IsServed()) << "the third";
  idle.push_back(IdleClient());
  EXPECT_FALSE(IsServed()) << "the fourth";
  EXPECT_EQ(client.Status().counters().at("connections.too_many_of_one"), 1u);
  idle.clear();
  ASSERT_TRUE(
      ipc::WaitFor([this] { return IsServed(); }, "a place", kPatience));
  EXPECT_TRUE(TellsOfLimit("connections.too_many_of_one"));
  const Finished other = RunToEnd({CommandLineProgram(), "status"},
                                  home_.environment(), home_.Entry("work"));
  EXPECT_EQ(other.status, 0) << other.err;
}

TEST_F(LoadTest, AGrpcMessageIsSoLargeAndNoLarger) {
  StartBroker();
  GrpcClient client = Client();
  v1::NegotiateRequest request = RequestFor("demo", "1.0.0");
  const auto sized = [&](size_t bytes) {
    request.set_client_name(std::string(bytes, 'n'));
    request.set_client_name(
        std::string(bytes - (request.ByteSizeLong() - bytes), 'n'));
    EXPECT_EQ(request.ByteSizeLong(), bytes);
    return request;
  };
  EXPECT_TRUE(client.Negotiate(sized(service::kMaxGrpcMessageBytes - 1)).ok());
  EXPECT_TRUE(client.Negotiate(sized(service::kMaxGrpcMessageBytes)).ok());
  const GrpcAnswer larger =
      client.Negotiate(sized(service::kMaxGrpcMessageBytes + 1));
  EXPECT_EQ(larger.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(larger.details, 0) << "gRPC's own";
  // The connection goes on.
  EXPECT_TRUE(client.Negotiate("demo", "1.0.0").ok());
}

// A call that does not end: the standard Health.Watch.
class EndlessCall
    : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit EndlessCall(grpc::GenericStub& stub) {
    stub.PrepareBidiStreamingCall(&context_, "/grpc.health.v1.Health/Watch", {},
                                  this);
    const grpc::Slice none;
    everything_ = grpc::ByteBuffer(&none, 1);
    StartWriteLast(&everything_, grpc::WriteOptions());
    StartRead(&answer_);
    StartCall();
  }
  ~EndlessCall() override {
    context_.TryCancel();
    EXPECT_TRUE(done_.Wait(kPatience));
  }
  bool Answered() { return answered_.Wait(kPatience); }

  void OnReadDone(bool ok) override {
    if (ok) answered_.Open();
  }
  void OnDone(const grpc::Status&) override { done_.Open(); }

 private:
  grpc::ClientContext context_;
  grpc::ByteBuffer everything_;
  grpc::ByteBuffer answer_;
  ipc::Latch answered_;
  ipc::Latch done_;
};

TEST_F(LoadTest, AConnectionHasSoManyCallsAndTheNextOneWaits) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  // As for OnDemandTest: how gRPC's threads hand calls to each other is unseen.
  GTEST_SKIP() << "not under ThreadSanitizer";
#endif
#endif
  StartBroker();
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomInsecureChannelFromFd(
          "zcbroker", ConnectTo(socket()).release(), [] {
            grpc::ChannelArguments arguments;
            arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
            return arguments;
          }());
  grpc::GenericStub stub(channel);
  const auto call = [&](absl::Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoMilliseconds(timeout));
    v1::GetStatusResponse response;
    return v1::Admin::NewStub(channel)
        ->GetStatus(&context, v1::GetStatusRequest(), &response)
        .error_code();
  };
  std::vector<std::unique_ptr<EndlessCall>> calls;
  for (int i = 0; i < service::kMaxGrpcStreams - 1; ++i) {
    calls.push_back(std::make_unique<EndlessCall>(stub));
  }
  for (const auto& endless : calls) ASSERT_TRUE(endless->Answered());
  EXPECT_EQ(call(kPatience), grpc::StatusCode::OK) << "the last";
  calls.push_back(std::make_unique<EndlessCall>(stub));
  ASSERT_TRUE(calls.back()->Answered());
  EXPECT_EQ(call(absl::Milliseconds(300)), grpc::StatusCode::DEADLINE_EXCEEDED)
      << "one more";
  calls.pop_back();
  EXPECT_EQ(call(kPatience), grpc::StatusCode::OK) << "the last again";
  ExpectServesOthers();
}

}  // namespace
}  // namespace zcbroker::testing
