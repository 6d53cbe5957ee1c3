#include "ipc/socket_use.h"

#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {
namespace {

class SocketUseTest : public testing::Test {
 protected:
  UniqueFd Connected(const Endpoint& endpoint) {
    absl::StatusOr<UniqueFd> fd =
        Connect(endpoint, Deadline::After(absl::Seconds(10)));
    EXPECT_TRUE(fd.ok()) << fd.status();
    return fd.ok() ? *std::move(fd) : UniqueFd();
  }
  // A count that failed is a failed test.
  size_t Count(const Endpoint& endpoint) {
    const absl::StatusOr<size_t> count = CountConnections(endpoint);
    EXPECT_TRUE(count.ok()) << count.status();
    return count.value_or(9999);
  }

  ScopedRuntimeDir dir_;
  const Endpoint endpoint_ = *Endpoint::Parse(dir_.Entry("one.sock"));
  const Endpoint other_ = *Endpoint::Parse(dir_.Entry("other.sock"));
  // Bound to another name and renamed, so that only the file tells.
  const absl::StatusOr<Listener> listener_ = Listener::Bind(endpoint_);
  const absl::StatusOr<Listener> other_listener_ = Listener::Bind(other_);
};

TEST_F(SocketUseTest, CountsThoseWhoWaitAndThoseWhoWereAccepted) {
  EXPECT_EQ(Count(endpoint_), 0u);
  const UniqueFd accepted = Connected(endpoint_);
  const auto server = listener_->Accept();
  ASSERT_TRUE(server.ok() && server->has_value());
  EXPECT_EQ(Count(endpoint_), 1u);
  const UniqueFd waiting = Connected(endpoint_);
  EXPECT_EQ(Count(endpoint_), 2u);
  const UniqueFd elsewhere = Connected(other_);
  EXPECT_EQ(Count(endpoint_), 2u);
}

TEST_F(SocketUseTest, WhoHasHungUpDoesNotCountWhoOnlyStoppedSendingDoes) {
  UniqueFd client = Connected(endpoint_);
  const auto server = listener_->Accept();
  ASSERT_TRUE(server.ok() && server->has_value());
  ASSERT_EQ(shutdown(client.get(), SHUT_WR), 0);
  EXPECT_EQ(Count(endpoint_), 1u);
  client.reset();
  EXPECT_EQ(Count(endpoint_), 0u);
}

TEST_F(SocketUseTest, CountsMany) {
  std::vector<UniqueFd> clients;
  std::vector<UniqueFd> servers;
  for (int i = 0; i < 400; ++i) {
    clients.push_back(Connected(endpoint_));
    auto server = listener_->Accept();
    ASSERT_TRUE(server.ok() && server->has_value());
    servers.push_back(std::move(**server));
  }
  EXPECT_EQ(Count(endpoint_), 400u);
}

TEST_F(SocketUseTest, ALinkIsTheSameSocket) {
  const Endpoint link = *Endpoint::Parse(dir_.Entry("link.sock"));
  ASSERT_EQ(::link(endpoint_.path().c_str(), link.path().c_str()), 0);
  const UniqueFd client = Connected(link);
  EXPECT_EQ(Count(endpoint_), 1u);
  EXPECT_EQ(Count(link), 1u);
}

TEST_F(SocketUseTest, OneWhoseFileIsGoneIsFoundByWhatItWas) {
  const FileIdentity file = IdentifyFile(endpoint_.path()).value();
  const UniqueFd client = Connected(endpoint_);
  const auto server = listener_->Accept();
  ASSERT_TRUE(server.ok() && server->has_value());
  ASSERT_EQ(unlink(endpoint_.path().c_str()), 0);
  EXPECT_EQ(CountConnections(endpoint_, file).value(), 1u);
}

TEST_F(SocketUseTest, AConnectionLeavesItsMarkEachTime) {
  for (int i = 0; i < 3; ++i) {
    const absl::Status forgotten = ForgetConnections(endpoint_);
    if (absl::IsUnimplemented(forgotten)) GTEST_SKIP() << forgotten;
    ASSERT_TRUE(forgotten.ok()) << forgotten;
    EXPECT_FALSE(WasConnectedTo(endpoint_).value());
    EXPECT_FALSE(WasConnectedTo(endpoint_).value()) << "asking is no use of it";
    Connected(endpoint_);
    EXPECT_TRUE(WasConnectedTo(endpoint_).value());
  }
}

TEST_F(SocketUseTest, WithoutAFileNobodyHasConnected) {
  const Endpoint none = *Endpoint::Parse(dir_.Entry("none.sock"));
  EXPECT_EQ(Count(none), 0u);
  EXPECT_TRUE(absl::IsNotFound(ForgetConnections(none)));
  EXPECT_TRUE(absl::IsNotFound(WasConnectedTo(none).status()));
}

}  // namespace
}  // namespace zcbroker::ipc
