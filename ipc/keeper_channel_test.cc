#include "ipc/keeper_channel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/fd_passing.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {
namespace {

using Kind = KeeperMessage::Kind;

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

KeeperMessage Message(Kind kind, std::string name = "", bool manager = false) {
  KeeperMessage message;
  message.kind = kind;
  message.name = std::move(name);
  message.from_service_manager = manager;
  return message;
}

// A file to recognise a passed descriptor by.
class Token {
 public:
  Token() : fd_(fileno(tmpfile())) {}
  ~Token() = default;
  int get() const { return fd_.get(); }
  bool IsSame(int other) const {
    struct stat a;
    struct stat b;
    return fstat(fd_.get(), &a) == 0 && fstat(other, &b) == 0 &&
           a.st_ino == b.st_ino && a.st_dev == b.st_dev;
  }

 private:
  UniqueFd fd_;
};

class KeeperChannelTest : public testing::Test {
 protected:
  KeeperChannelTest() : KeeperChannelTest(*PacketSocketPair()) {}

  absl::StatusOr<absl::optional<KeeperLink::Received>> Next() {
    return keeper_.Receive();
  }
  // Everything that is under way, as names.
  std::vector<std::string> ReadNames() {
    std::vector<std::string> names;
    for (;;) {
      auto received = Next();
      if (!received.ok() || !received->has_value()) return names;
      names.push_back((*received)->message.name);
    }
  }

  KeeperLink keeper_;
  KeeperChannel broker_;

 private:
  explicit KeeperChannelTest(std::pair<UniqueFd, UniqueFd> ends)
      : keeper_(std::move(ends.first)), broker_(std::move(ends.second)) {}
};

TEST(KeeperMessageTest, EveryKindSurvivesTheWire) {
  for (const KeeperMessage& message :
       {Message(Kind::kHold, "/run/a.sock"), Message(Kind::kDrop, "/run/a"),
        Message(Kind::kReady), Message(Kind::kHandedOver), Message(Kind::kAsk),
        Message(Kind::kHere), Message(Kind::kHeld, "/run/b", true),
        Message(Kind::kEndOfHeld)}) {
    const auto decoded = DecodeKeeperMessage(EncodeKeeperMessage(message));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ASSERT_TRUE(decoded->has_value());
    EXPECT_EQ(**decoded, message);
  }
}

TEST(KeeperMessageTest, BytesAreThoseOfTheHeader) {
  EXPECT_EQ(EncodeKeeperMessage(Message(Kind::kHeld, "/a", true)),
            std::string("\x01\x04\x01/a"));
}

TEST(KeeperMessageTest, WhatIsNoMessageIsRefused) {
  const std::string longest = "/" + std::string(106, 'a');
  for (const std::string& bytes : {
           std::string(),
           std::string("\x01\x01", 2),
           std::string("\x02\x01\x00/a", 5),  // another protocol
           std::string("\x01\x01\x00", 3),    // a name is missing
           std::string("\x01\x01\x00"
                       "a",
                       4),                       // not absolute
           std::string("\x01\x01\x00/a\0b", 7),  // NUL
           std::string("\x01\x03\x00/a", 5),     // a name too many
           absl::StrCat(std::string("\x01\x01\x00", 3), longest, "a"),
       }) {
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeKeeperMessage(bytes).status()))
        << testing::PrintToString(bytes);
  }
  EXPECT_TRUE(
      DecodeKeeperMessage(absl::StrCat(std::string("\x01\x01\x00", 3), longest))
          .ok());
}

TEST(KeeperMessageTest, KindsOfALaterVersionArePassedOver) {
  const auto decoded = DecodeKeeperMessage(std::string("\x01\x77\x00what", 7));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_FALSE(decoded->has_value());
}

TEST_F(KeeperChannelTest, HoldHandsOverTheVerySocket) {
  Token token;
  ASSERT_TRUE(broker_.Hold("/run/a.sock", token.get()).ok());
  ASSERT_TRUE(broker_.Ready().ok());
  ASSERT_TRUE(broker_.Drop("/run/a.sock").ok());
  auto hold = Next();
  ASSERT_TRUE(hold.ok() && hold->has_value()) << hold.status();
  EXPECT_EQ((*hold)->message, Message(Kind::kHold, "/run/a.sock"));
  EXPECT_TRUE(token.IsSame((*hold)->attached.get()));
  EXPECT_EQ(fcntl((*hold)->attached.get(), F_GETFD), FD_CLOEXEC);
  auto ready = Next();
  ASSERT_TRUE(ready.ok() && ready->has_value());
  EXPECT_EQ((*ready)->message, Message(Kind::kReady));
  EXPECT_FALSE((*ready)->attached);
  auto drop = Next();
  ASSERT_TRUE(drop.ok() && drop->has_value());
  EXPECT_EQ((*drop)->message, Message(Kind::kDrop, "/run/a.sock"));
  auto none = Next();
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST_F(KeeperChannelTest, TakeHeldReturnsWhatTheKeeperHolds) {
  Token a;
  Token b;
  ASSERT_TRUE(keeper_.Send(Message(Kind::kHeld, "/a"), a.get()).ok());
  ASSERT_TRUE(keeper_.Send(Message(Kind::kHeld, "/b", true), b.get()).ok());
  ASSERT_TRUE(keeper_.Send(Message(Kind::kEndOfHeld)).ok());
  const auto held = broker_.TakeHeld(Soon());
  ASSERT_TRUE(held.ok()) << held.status();
  ASSERT_EQ(held->size(), 2U);
  EXPECT_EQ((*held)[0].name, "/a");
  EXPECT_TRUE(a.IsSame((*held)[0].fd.get()));
  EXPECT_FALSE((*held)[0].from_service_manager);
  EXPECT_EQ((*held)[1].name, "/b");
  EXPECT_TRUE(b.IsSame((*held)[1].fd.get()));
  EXPECT_TRUE((*held)[1].from_service_manager);
}

TEST_F(KeeperChannelTest, TakeHeldEndsByItsDeadline) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      broker_.TakeHeld(Deadline::After(absl::Milliseconds(1))).status()));
}

TEST_F(KeeperChannelTest, AKeeperThatIsGoneIsAborted) {
  keeper_ = KeeperLink(UniqueFd());
  EXPECT_TRUE(absl::IsAborted(broker_.TakeHeld(Soon()).status()));
  Token token;
  EXPECT_TRUE(absl::IsAborted(broker_.Hold("/a", token.get())));
  EXPECT_TRUE(absl::IsAborted(broker_.Ready()));
}

TEST_F(KeeperChannelTest, EveryQuestionIsAnswered) {
  ASSERT_TRUE(broker_.AnswerWhatIsAsked().ok());
  EXPECT_FALSE((*Next()).has_value()) << "an answer to no question";
  for (const int questions : {1, 3}) {
    for (int i = 0; i < questions; ++i) {
      ASSERT_TRUE(keeper_.Send(Message(Kind::kAsk)).ok());
    }
    ASSERT_TRUE(broker_.AnswerWhatIsAsked().ok());
    for (int i = 0; i < questions; ++i) {
      const auto answer = Next();
      ASSERT_TRUE(answer.ok() && answer->has_value());
      EXPECT_EQ((*answer)->message, Message(Kind::kHere));
    }
    EXPECT_FALSE((*Next()).has_value());
  }
  keeper_ = KeeperLink(UniqueFd());
  EXPECT_TRUE(absl::IsAborted(broker_.AnswerWhatIsAsked()));
}

TEST_F(KeeperChannelTest, NeverWaitsForAKeeperThatDoesNotRead) {
  Token token;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kMaxHeldSockets; ++i) {
    names.push_back(absl::StrCat("/run/", i));
    ASSERT_TRUE(broker_.Hold(names.back(), token.get()).ok()) << i;
  }
  EXPECT_TRUE(broker_.wants_write()) << "the test did not fill the socket";
  std::vector<std::string> read;
  while (read.size() < names.size()) {
    const std::vector<std::string> some = ReadNames();
    ASSERT_FALSE(some.empty());
    read.insert(read.end(), some.begin(), some.end());
    ASSERT_TRUE(broker_.Flush().ok());
  }
  EXPECT_EQ(read, names);
  EXPECT_FALSE(broker_.wants_write());
}

TEST_F(KeeperChannelTest, HoldsSoManyAndNoMore) {
  Token token;
  for (std::size_t i = 0; i < kMaxHeldSockets; ++i) {
    ASSERT_TRUE(broker_.Hold(absl::StrCat("/run/", i), token.get()).ok());
    if (i % 100 == 0) ReadNames();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(broker_.Hold("/more", token.get())));
  EXPECT_TRUE(broker_.Hold("/run/7", token.get()).ok());
  ASSERT_TRUE(broker_.Drop("/run/7").ok());
  EXPECT_TRUE(broker_.Hold("/more", token.get()).ok());
}

TEST_F(KeeperChannelTest, HoldRefusesWhatIsNoSocketPath) {
  Token token;
  for (const std::string& name :
       {std::string(), std::string("a"), "/" + std::string(107, 'a')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(broker_.Hold(name, token.get())));
  }
}

TEST(KeeperChannelEnvironmentTest, NothingWithoutTheVariable) {
  unsetenv(kKeeperFdVariable);
  const auto channel = KeeperChannel::FromEnvironment();
  ASSERT_TRUE(channel.ok()) << channel.status();
  EXPECT_FALSE(channel->has_value());
}

TEST(KeeperChannelEnvironmentTest, TakesItsEndAndTheVariableAway) {
  auto ends = *PacketSocketPair();
  const int inherited = dup(ends.second.get());  // not close-on-exec
  ends.second.reset();
  setenv(kKeeperFdVariable, absl::StrCat(inherited).c_str(), 1);
  auto channel = KeeperChannel::FromEnvironment();
  ASSERT_TRUE(channel.ok() && channel->has_value()) << channel.status();
  EXPECT_EQ(getenv(kKeeperFdVariable), nullptr);
  EXPECT_EQ(fcntl(inherited, F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE((*channel)->Ready().ok());
}

TEST(KeeperChannelEnvironmentTest, ADescriptorThatIsNoneIsRefusedAndLeft) {
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  for (const std::string& value :
       {std::string("x"), std::string("-1"), std::string("9999"),
        absl::StrCat(null.get())}) {
    setenv(kKeeperFdVariable, value.c_str(), 1);
    EXPECT_TRUE(
        absl::IsInvalidArgument(KeeperChannel::FromEnvironment().status()))
        << value;
    EXPECT_EQ(getenv(kKeeperFdVariable), nullptr);
  }
  EXPECT_GE(fcntl(null.get(), F_GETFD), 0) << "it was closed";
}

TEST(FdPassingTest, TooLongAndEmptyPacketsAreRefused) {
  auto ends = *PacketSocketPair();
  EXPECT_TRUE(
      SendPacket(ends.first, std::string(kMaxPacketBytes, 'x'), -1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(
      SendPacket(ends.first, std::string(kMaxPacketBytes + 1, 'x'), -1)));
  EXPECT_TRUE(absl::IsInvalidArgument(SendPacket(ends.first, "", -1)));
  // A peer that sends more than is allowed loses the packet, nothing else.
  const std::string oversized(kMaxPacketBytes + 1, 'y');
  ASSERT_EQ(send(ends.first.get(), oversized.data(), oversized.size(), 0),
            static_cast<ssize_t>(oversized.size()));
  ASSERT_TRUE(SendPacket(ends.first, "after", -1).ok());
  auto first = ReceivePacket(ends.second);
  ASSERT_TRUE(first.ok() && first->has_value());
  EXPECT_EQ((*first)->bytes, std::string(kMaxPacketBytes, 'x'));
  EXPECT_TRUE(absl::IsDataLoss(ReceivePacket(ends.second).status()));
  auto after = ReceivePacket(ends.second);
  ASSERT_TRUE(after.ok() && after->has_value());
  EXPECT_EQ((*after)->bytes, "after");
}

}  // namespace
}  // namespace zcbroker::ipc
