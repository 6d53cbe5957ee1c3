#include "client/backend_sdk/managed_backend.h"

#include <linux/sockios.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/testing/latch.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {
namespace {

ipc::Deadline Soon() { return ipc::Deadline::After(absl::Seconds(20)); }

// A request is a line; so is its answer.
void EchoLines(BackendConnection& connection) {
  std::string buffer;
  while (connection.Read(&buffer)) {
    for (size_t end = 0; (end = buffer.find('\n')) != std::string::npos;) {
      if (!connection.Write(buffer.substr(0, end + 1))) return;
      buffer.erase(0, end + 1);
    }
  }
}

absl::StatusOr<ipc::UniqueFd> Connect(const std::string& endpoint) {
  return ipc::Connect(*ipc::Endpoint::Parse(endpoint), Soon());
}

class Client {
 public:
  explicit Client(const std::string& endpoint) {
    auto fd = Connect(endpoint);
    EXPECT_TRUE(fd.ok()) << fd.status();
    if (fd.ok()) fd_ = *std::move(fd);
  }

  void Send(absl::string_view bytes) {
    EXPECT_TRUE(ipc::WriteAll(fd_, bytes, Soon()).ok());
  }
  // What comes next; empty at the end, and where nothing comes.
  std::string Receive(size_t at_most = 4096) {
    std::string bytes(at_most, '\0');
    const auto got = ipc::ReadSome(fd_, &bytes[0], at_most, Soon());
    EXPECT_TRUE(got.ok()) << got.status();
    bytes.resize(got.value_or(0));
    return bytes;
  }
  // It ends, with something unread.
  bool IsCutOff() {
    char byte = 0;
    return absl::IsAborted(ipc::ReadSome(fd_, &byte, 1, Soon()).status());
  }
  // Sends the beginning of a request, and returns when it has been read.
  void Begin(absl::string_view bytes) {
    Send(bytes);
    EXPECT_TRUE(ipc::WaitFor(
        [this] {
          int unread = 0;
          return ioctl(fd_.get(), SIOCOUTQ, &unread) == 0 && unread == 0;
        },
        "the request to be read"));
  }

 private:
  ipc::UniqueFd fd_;
};

// Of this process, until it is destroyed; the hard limit stays.
class ScopedSoftLimit {
 public:
  ScopedSoftLimit(__rlimit_resource resource, rlim_t limit)
      : resource_(resource) {
    EXPECT_EQ(getrlimit(resource_, &before_), 0);
    const rlimit lowered{limit, before_.rlim_max};
    EXPECT_EQ(setrlimit(resource_, &lowered), 0);
  }
  ~ScopedSoftLimit() { setrlimit(resource_, &before_); }

 private:
  const __rlimit_resource resource_;
  rlimit before_{};
};

class ManagedBackendTest : public ::testing::Test {
 protected:
  ManagedBackendTest() {
    options_.endpoint = dir_.Entry("b.sock");
    // Its end would be that of the test, which would pass.
    options_.grace = absl::InfiniteDuration();
    // One that hangs is ended: SIGTERM does not.
    alarm(60);
  }
  ~ManagedBackendTest() override {
    if (thread_.joinable()) {
      backend_->Stop();
      thread_.join();
    }
    alarm(0);
  }

  void Start(ManagedBackend::Handler handler = EchoLines) {
    auto opened = ManagedBackend::Open(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    backend_ = *std::move(opened);
    thread_ = std::thread([this, handler = std::move(handler)] {
      reason_ = backend_->Serve(handler);
    });
  }

  template <class Act>
  absl::StatusOr<StopReason> StopReasonAfter(Act act) {
    act();
    thread_.join();
    return reason_;
  }

  bool HasItsName() const {
    return access(options_.endpoint.c_str(), F_OK) == 0;
  }

  ipc::ScopedRuntimeDir dir_;
  BackendOptions options_;
  std::unique_ptr<ManagedBackend> backend_;
  std::thread thread_;
  absl::StatusOr<StopReason> reason_;
};

TEST_F(ManagedBackendTest, ConnectionsAreServedAtOnce) {
  Start();
  Client first(options_.endpoint);
  Client second(options_.endpoint);
  first.Begin("half");
  second.Send("whole\nand ");
  EXPECT_EQ(second.Receive(), "whole\n");
  first.Send(" done\n");
  EXPECT_EQ(first.Receive(), "half done\n");
  second.Send("more\n");
  EXPECT_EQ(second.Receive(), "and more\n");
}

TEST_F(ManagedBackendTest, WhatIsInFlightFinishesAndTheRestEnds) {
  Start();
  Client silent(options_.endpoint);
  Client idle(options_.endpoint);
  idle.Send("a line\n");
  EXPECT_EQ(idle.Receive(), "a line\n");
  Client busy(options_.endpoint);
  busy.Begin("in fli");
  const auto reason = StopReasonAfter([&] {
    backend_->Stop();
    EXPECT_EQ(silent.Receive(), "");
    EXPECT_EQ(idle.Receive(), "");
    // Nobody comes any more.
    EXPECT_TRUE(ipc::WaitFor([&] { return !HasItsName(); }, "its name to go"));
    busy.Send("ght\n");
    EXPECT_EQ(busy.Receive(), "in flight\n");
    EXPECT_EQ(busy.Receive(), "");
  });
  EXPECT_EQ(reason.value(), StopReason::kStopCall);
}

TEST_F(ManagedBackendTest, ASignalStopsIt) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Start();
    Client client(options_.endpoint);
    client.Send("accepted\n");
    EXPECT_EQ(client.Receive(), "accepted\n");
    const auto reason = StopReasonAfter([&] { kill(getpid(), signal); });
    EXPECT_EQ(reason.value(), StopReason::kSignal);
    EXPECT_EQ(client.Receive(), "");
  }
}

TEST_F(ManagedBackendTest, WhoHasSentARequestBeforeItStoppedIsAnswered) {
  backend_ = *ManagedBackend::Open(options_);
  Client silent(options_.endpoint);
  Client client(options_.endpoint);
  client.Send("a line\n");
  backend_->Stop();
  EXPECT_EQ(backend_->Serve(EchoLines).value(), StopReason::kStopCall);
  EXPECT_EQ(client.Receive(), "a line\n");
  EXPECT_EQ(client.Receive(), "");
  EXPECT_EQ(silent.Receive(), "");
  EXPECT_FALSE(HasItsName());
}

TEST_F(ManagedBackendTest, OneMoreRequestIsAnsweredAndNoThird) {
  ipc::Latch second_sent;
  ipc::Latch third_sent;
  Start([&](BackendConnection& connection) {
    for (std::string buffer; connection.Read(&buffer); buffer.clear()) {
      if (buffer == "first") {
        EXPECT_TRUE(second_sent.Wait());
      }
      connection.Write(buffer);
      if (buffer == "second") {
        EXPECT_TRUE(third_sent.Wait());
      }
    }
  });
  Client client(options_.endpoint);
  client.Begin("first");
  backend_->Stop();
  client.Send("second");
  second_sent.Open();
  EXPECT_EQ(client.Receive(5), "first");
  EXPECT_EQ(client.Receive(6), "second");
  client.Send("third");
  third_sent.Open();
  EXPECT_TRUE(client.IsCutOff());
}

TEST_F(ManagedBackendTest, OneThatNeverServesLeavesNoName) {
  backend_ = *ManagedBackend::Open(options_);
  EXPECT_TRUE(HasItsName());
  backend_.reset();
  EXPECT_FALSE(HasItsName());
}

TEST_F(ManagedBackendTest, IdlenessStopsItButNothingThatIsInFlight) {
  options_.idle_timeout = absl::Milliseconds(50);
  Start();
  const absl::Time begun = absl::Now();
  Client client(options_.endpoint);
  client.Begin("in fli");
  EXPECT_FALSE(
      ipc::WaitFor([&] { return !HasItsName(); }, "", absl::Milliseconds(250)));
  client.Send("ght\n");
  EXPECT_EQ(client.Receive(), "in flight\n");
  EXPECT_EQ(StopReasonAfter([] {}).value(), StopReason::kIdle);
  EXPECT_GE(absl::Now() - begun, absl::Milliseconds(300));
}

TEST_F(ManagedBackendTest, OthersThatKeepComingDoNotKeepItFromStopping) {
  Start();
  std::atomic<bool> over{false};
  std::atomic<int> came{0};
  std::vector<std::thread> crowd;
  for (int i = 0; i < 4; ++i) {
    crowd.emplace_back([&] {
      while (!over && Connect(options_.endpoint).ok()) ++came;
    });
  }
  EXPECT_TRUE(ipc::WaitFor([&] { return came > 1000; }, "a crowd"));
  backend_->Stop();
  EXPECT_TRUE(ipc::WaitFor([&] { return !HasItsName(); }, "its name to go",
                           absl::Seconds(5)));
  over = true;
  for (std::thread& one : crowd) one.join();
}

TEST_F(ManagedBackendTest, AServiceManagerIsTold) {
  const ipc::UniqueFd manager(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  dir_.Entry("notify").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(manager.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)),
            0);
  const timeval patience{20, 0};
  setsockopt(manager.get(), SOL_SOCKET, SO_RCVTIMEO, &patience,
             sizeof(patience));
  setenv("NOTIFY_SOCKET", address.sun_path, 1);
  const auto told = [&] {
    char message[64];
    return std::string(
        message,
        std::max<ssize_t>(recv(manager.get(), message, sizeof(message), 0), 0));
  };
  Start();
  EXPECT_EQ(told(), "READY=1");
  EXPECT_EQ(StopReasonAfter([&] { backend_->Stop(); }).value(),
            StopReason::kStopCall);
  unsetenv("NOTIFY_SOCKET");
  EXPECT_EQ(told(), "STOPPING=1");
}

TEST_F(ManagedBackendTest, AMomentWithoutDescriptorsIsNotRemembered) {
  Start();
  const std::string probe = ipc::EncodeProbeRequest({});
  Client first(options_.endpoint);
  first.Begin(probe.substr(0, 1));
  {
    // As many as the backend polls, and fewer than are open.
    const ScopedSoftLimit none(RLIMIT_NOFILE, 4);
    first.Send(probe.substr(1));
    EXPECT_EQ(first.Receive(), "");
  }
  Client second(options_.endpoint);
  second.Send(probe);
  EXPECT_NE(second.Receive(), "");
}

TEST_F(ManagedBackendTest, WhatMayBecomeAProbeIsNotWaitedForLong) {
  options_.idle_timeout = absl::Milliseconds(50);
  Start([](BackendConnection&) { ADD_FAILURE() << "called"; });
  Client client(options_.endpoint);
  client.Begin("\1");
  EXPECT_EQ(client.Receive(), "");
  EXPECT_EQ(StopReasonAfter([] {}).value(), StopReason::kIdle);
}

TEST_F(ManagedBackendTest, TheProbeIsAnsweredWithoutTheHandler) {
  options_.namespace_id = "ns";
  Start([](BackendConnection&) { ADD_FAILURE() << "called"; });
  for (int i = 0; i < 2; ++i) {
    ipc::ProbeNonce nonce;
    nonce.fill(0x5a);
    Client client(options_.endpoint);
    const std::string probe = ipc::EncodeProbeRequest(nonce);
    client.Begin(probe.substr(0, 1));
    client.Send(probe.substr(1));
    std::string reply;
    for (std::string part; !(part = client.Receive()).empty();) reply += part;
    ASSERT_GT(reply.size(), ipc::kFrameHeaderBytes);
    const auto process = ipc::ParseProbeReply(
        *ipc::DecodeFrame(
            absl::string_view(reply).substr(ipc::kFrameHeaderBytes)),
        nonce);
    ASSERT_TRUE(process.ok()) << process.status();
    EXPECT_EQ(process->pid(), static_cast<uint32_t>(getpid()));
    EXPECT_EQ(process->ipc_endpoint().namespace_id(), "ns");
    EXPECT_EQ(process->ipc_endpoint().path(), options_.endpoint);
    EXPECT_EQ(process->exe_hash().size(), 32u);
  }
}

TEST_F(ManagedBackendTest, BytesLikeAProbesAreTheHandlers) {
  Start();
  // No frame can be so long; a frame, but none of the probe's.
  for (const absl::string_view line :
       {absl::string_view("\1\xff\xff\xff\xff\n", 6),
        absl::string_view("\1\3\0\0\0abc\n", 9)}) {
    Client client(options_.endpoint);
    client.Send(line);
    EXPECT_EQ(client.Receive(), line);
  }
}

TEST_F(ManagedBackendTest, AnotherUserIsTurnedAway) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  Start();
  ASSERT_EQ(chmod(dir_.path().c_str(), 0711), 0);
  ASSERT_EQ(chmod(options_.endpoint.c_str(), 0666), 0);
  std::thread([this] {
    // The system call is of this thread only.
    ASSERT_EQ(syscall(SYS_setresuid, 65534, 65534, 65534), 0);
    Client other(options_.endpoint);
    EXPECT_EQ(other.Receive(), "");
  }).join();
}

TEST_F(ManagedBackendTest, OneServesAnEndpoint) {
  Start();
  const absl::Status second = ManagedBackend::Open(options_).status();
  EXPECT_TRUE(absl::IsAlreadyExists(second)) << second;
  EXPECT_EQ(ExitStatusOf(second), 0);
  Client client(options_.endpoint);
  client.Send("still\n");
  EXPECT_EQ(client.Receive(), "still\n");
}

TEST_F(ManagedBackendTest, OneWithAFullBacklogServes) {
  const auto full =
      ipc::Listener::Bind(*ipc::Endpoint::Parse(options_.endpoint));
  ASSERT_TRUE(full.ok()) << full.status();
  ASSERT_EQ(listen(full->fd(), 0), 0);
  const auto waits = Connect(options_.endpoint);
  ASSERT_TRUE(waits.ok()) << waits.status();
  const absl::Status second = ManagedBackend::Open(options_).status();
  EXPECT_TRUE(absl::IsAlreadyExists(second)) << second;
  EXPECT_TRUE(full->HasItsName());
}

TEST_F(ManagedBackendTest, OfSeveralThatStartAtOnceOneServes) {
  for (int round = 0; round < 50; ++round) {
    // One that died has left its name.
    ASSERT_TRUE(
        ipc::Listener::Bind(*ipc::Endpoint::Parse(options_.endpoint)).ok());
    absl::StatusOr<std::unique_ptr<ManagedBackend>> opened[4];
    std::vector<std::thread> threads;
    for (auto& one : opened) {
      threads.emplace_back([&] { one = ManagedBackend::Open(options_); });
    }
    for (std::thread& thread : threads) thread.join();
    int serve = 0;
    for (const auto& one : opened) {
      if (one.ok()) {
        ++serve;
      } else {
        EXPECT_TRUE(absl::IsAlreadyExists(one.status())) << one.status();
      }
    }
    EXPECT_EQ(serve, 1) << "in round " << round;
  }
  EXPECT_EQ(access(dir_.Entry("b.sock.lock").c_str(), F_OK), -1);
}

TEST_F(ManagedBackendTest, TheStartContractTellsTheEndpoint) {
  const std::string endpoint = std::exchange(options_.endpoint, "");
  const absl::Status none = ManagedBackend::Open(options_).status();
  EXPECT_TRUE(absl::IsInvalidArgument(none)) << none;
  EXPECT_TRUE(absl::StrContains(none.message(),
                                "RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE"));
  EXPECT_EQ(ExitStatusOf(none), 1);
  setenv("RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE", endpoint.c_str(), 1);
  const auto opened = ManagedBackend::Open(options_);
  unsetenv("RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->endpoint(), endpoint);
  EXPECT_TRUE(Connect(endpoint).ok());
}

using ManagedBackendDeathTest = ManagedBackendTest;

// In a fork of this process: one of its own would leave its directory behind.
TEST_F(ManagedBackendDeathTest, WhatIsNotDoneInTheGraceIsCutOff) {
  options_.grace = absl::Milliseconds(100);
  EXPECT_EXIT(
      {
        Start();
        Client client(options_.endpoint);
        client.Begin("in flight");
        backend_->Stop();
        thread_.join();
      },
      ::testing::ExitedWithCode(0), "1 connections were cut off after 100ms");
  EXPECT_FALSE(HasItsName());
}

TEST_F(ManagedBackendDeathTest, WithoutThreadsTheOthersAreServed) {
  EXPECT_EXIT(
      {
        Start();
        if (geteuid() == 0) {
          // Root may have as many as it likes.
          ASSERT_EQ(chmod(dir_.path().c_str(), 0711), 0);
          ASSERT_EQ(chmod(options_.endpoint.c_str(), 0666), 0);
          ASSERT_EQ(setresuid(65534, 65534, 65534), 0);
        }
        {
          Client before(options_.endpoint);
          before.Begin("hel");
          {
            const ScopedSoftLimit none(RLIMIT_NPROC, 0);
            Client refused(options_.endpoint);
            EXPECT_EQ(refused.Receive(), "");
            before.Send("d\n");
            EXPECT_EQ(before.Receive(), "held\n");
          }
          Client after(options_.endpoint);
          after.Send("again\n");
          EXPECT_EQ(after.Receive(), "again\n");
        }
        std::_Exit(HasFailure() ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace zcbroker::client
