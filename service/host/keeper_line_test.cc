// The broker's end of the line, on a loop, against a keeper's.
#include "service/host/keeper_line.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "gtest/gtest.h"
#include "ipc/fd_passing.h"
#include "ipc/keeper_channel.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

using Kind = ipc::KeeperMessage::Kind;

class KeeperLineTest : public ::testing::Test {
 protected:
  KeeperLineTest() : KeeperLineTest(*ipc::PacketSocketPair()) {}

  // What the broker says next; the loop turns until it does.
  absl::optional<Kind> Next() {
    while (true) {
      const auto received = keeper_.Receive();
      if (!received.ok()) return absl::nullopt;
      if (received->has_value()) return (*received)->message.kind;
      if (loop_.run_one() == 0) return absl::nullopt;
    }
  }

  asio::io_context loop_;
  ipc::KeeperLink keeper_;
  std::unique_ptr<KeeperLine> line_;

 private:
  explicit KeeperLineTest(std::pair<ipc::UniqueFd, ipc::UniqueFd> ends)
      : keeper_(std::move(ends.first)),
        line_(KeeperLine::Create(loop_,
                                 ipc::KeeperChannel(std::move(ends.second)))) {}
};

TEST_F(KeeperLineTest, SaysFirstThatItMayBeAsked) {
  line_->Ready();
  EXPECT_EQ(Next(), Kind::kHere);
  EXPECT_EQ(Next(), Kind::kReady);
}

TEST_F(KeeperLineTest, AnswersAsOftenAsItIsAsked) {
  ASSERT_EQ(Next(), Kind::kHere);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(keeper_.Send({Kind::kAsk, "", false}).ok());
    EXPECT_EQ(Next(), Kind::kHere);
  }
}

TEST_F(KeeperLineTest, AKeeperThatIsGoneIsNotListenedToAnyMore) {
  keeper_ = ipc::KeeperLink(ipc::UniqueFd());
  // Comes back: nothing is left to wait for.
  loop_.run();
  line_->Ready();
}

}  // namespace
}  // namespace zcbroker::service
