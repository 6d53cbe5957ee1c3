#include "ipc/socket.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/listener.h"
#include "ipc/testing/latch.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/testing/wait_for.h"

namespace zcbroker::ipc {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(30);
constexpr absl::Duration kLong = absl::Seconds(20);

class SocketTest : public testing::Test {
 protected:
  SocketTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    near_ = UniqueFd(ends[0]);
    far_ = UniqueFd(ends[1]);
  }

  Endpoint At(const std::string& leaf) {
    return *Endpoint::Parse(dir_.Entry(leaf));
  }
  static void Send(const UniqueFd& fd, absl::string_view bytes) {
    EXPECT_TRUE(WriteAll(fd, bytes, Deadline::After(kLong)).ok());
  }

  ScopedRuntimeDir dir_;
  UniqueFd near_;
  UniqueFd far_;
};

TEST_F(SocketTest, ConnectionsAreNonblockingAndCloseOnExec) {
  const auto listener = Listener::Bind(At("s"));
  ASSERT_TRUE(listener.ok()) << listener.status();
  const auto fd = Connect(At("s"), Deadline::After(kLong));
  ASSERT_TRUE(fd.ok()) << fd.status();
  EXPECT_NE(fcntl(fd->get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(SocketTest, EveryConnectFailureHasItsOwnCode) {
  { ASSERT_TRUE(Listener::Bind(At("dead")).ok()); }
  std::ofstream(dir_.Entry("file")) << "x";
  UniqueFd datagram(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  ASSERT_EQ(
      getsockname(datagram.get(), reinterpret_cast<sockaddr*>(&address), &size),
      0);
  EXPECT_EQ(Connect(At("none"), Deadline::After(kLong)).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Connect(At("no/dir"), Deadline::After(kLong)).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Connect(At("dead"), Deadline::After(kLong)).status().code(),
            absl::StatusCode::kUnavailable);
  // A regular file answers ECONNREFUSED on Linux, as a dead socket does.
  EXPECT_EQ(Connect(At("file"), Deadline::After(kLong)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(Connect(At("file/below"), Deadline::After(kLong)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

class FullBacklogTest : public SocketTest {
 protected:
  FullBacklogTest() : listener_(*Listener::Bind(At("s"))) {
    EXPECT_EQ(listen(listener_.fd(), 0), 0);  // one may wait
    waiting_ = *Connect(At("s"), Deadline::After(kLong));
  }
  Listener listener_;
  UniqueFd waiting_;
};

TEST_F(FullBacklogTest, IsWaitedForUntilTheDeadline) {
  EXPECT_EQ(Connect(At("s"), Deadline::After(kShort)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(
      Connect(At("s"), Deadline::After(absl::ZeroDuration())).status().code(),
      absl::StatusCode::kDeadlineExceeded);
}

TEST_F(FullBacklogTest, IsNoErrorOnceThereIsRoom) {
  absl::StatusOr<UniqueFd> second = absl::UnknownError("not yet");
  std::thread client(
      [&] { second = Connect(At("s"), Deadline::After(kLong)); });
  std::vector<UniqueFd> accepted;
  EXPECT_TRUE(WaitFor(
      [&] {
        auto next = listener_.Accept();
        if (next.ok() && next->has_value()) {
          accepted.push_back(**std::move(next));
        }
        return accepted.size() == 2;
      },
      "the second connection"));
  client.join();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(fcntl(second->get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(SocketTest, ReadsWhatIsThereEvenAfterTheDeadline) {
  Send(far_, "late");
  std::array<char, 16> buffer;
  const auto n = ReadSome(near_, buffer.data(), buffer.size(),
                          Deadline::After(absl::ZeroDuration()));
  ASSERT_TRUE(n.ok()) << n.status();
  EXPECT_EQ(*n, 4U);
}

TEST_F(SocketTest, SilenceEndsAtTheDeadline) {
  std::array<char, 16> buffer;
  EXPECT_EQ(
      ReadSome(near_, buffer.data(), buffer.size(), Deadline::After(kShort))
          .status()
          .code(),
      absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SocketTest, PeekLeavesTheBytes) {
  Send(far_, "hello");
  std::array<char, 3> head;
  const auto seen =
      Peek(near_, head.data(), head.size(), Deadline::After(kLong));
  ASSERT_TRUE(seen.ok());
  EXPECT_EQ(std::string(head.data(), *seen), "hel");
  const auto all = ReadExactly(near_, 5, Deadline::After(kLong));
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(*all, "hello");
}

TEST_F(SocketTest, ReadExactlyPutsShortReadsTogether) {
  std::thread writer([&] {
    for (const char c : std::string("0123456789")) Send(far_, {&c, 1});
  });
  const auto all = ReadExactly(near_, 10, Deadline::After(kLong));
  writer.join();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(*all, "0123456789");
}

TEST_F(SocketTest, ReadExactlyTellsACleanEndFromACut) {
  far_.reset();
  EXPECT_EQ(ReadExactly(near_, 4, Deadline::After(kLong)).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST_F(SocketTest, AnEndWithinTheBytesIsDataLoss) {
  Send(far_, "ab");
  far_.reset();
  EXPECT_EQ(ReadExactly(near_, 4, Deadline::After(kLong)).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(SocketTest, ATrickleDoesNotExtendTheDeadline) {
  Latch stop;
  std::thread trickler([&] {
    // A byte whenever one has been taken: there is always one more to read.
    while (!stop.Wait(absl::Microseconds(200))) {
      if (!WriteAll(far_, "x", Deadline::After(absl::Seconds(1))).ok()) return;
    }
  });
  const absl::Time start = absl::Now();
  EXPECT_EQ(
      ReadExactly(near_, 1 << 24, Deadline::After(kShort)).status().code(),
      absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  stop.Open();
  trickler.join();
}

TEST_F(SocketTest, WritingToAGonePeerIsAbortedAndRaisesNoSignal) {
  far_.reset();
  EXPECT_EQ(WriteAll(near_, "x", Deadline::After(kLong)).code(),
            absl::StatusCode::kAborted);
}

TEST_F(SocketTest, UnreadBytesAtTheGonePeerAbortTheReader) {
  Send(near_, "never read");
  far_.reset();
  std::array<char, 4> buffer;
  EXPECT_EQ(
      ReadSome(near_, buffer.data(), buffer.size(), Deadline::After(kLong))
          .status()
          .code(),
      absl::StatusCode::kAborted);
}

TEST_F(SocketTest, APeerThatDoesNotReadStopsTheWriterInTime) {
  EXPECT_EQ(WriteAll(near_, std::string(8 << 20, 'x'), Deadline::After(kShort))
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

void IgnoreSignal(int) {}

TEST_F(SocketTest, SignalsDoNotInterrupt) {
  struct sigaction action = {};
  action.sa_handler = IgnoreSignal;  // without SA_RESTART
  ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  const pthread_t reader = pthread_self();
  Latch done;
  std::thread pesterer([&] {
    for (int i = 0; i < 50; ++i) {
      pthread_kill(reader, SIGUSR1);
      if (done.Wait(absl::Milliseconds(1))) return;
    }
    Send(far_, "ok");
  });
  const auto bytes = ReadExactly(near_, 2, Deadline::After(kLong));
  done.Open();
  pesterer.join();
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, "ok");
}

}  // namespace
}  // namespace zcbroker::ipc
