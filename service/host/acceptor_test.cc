#include "service/host/acceptor.h"

#include <unistd.h>

#include <memory>

#include "absl/time/time.h"
#include "asio/io_context.hpp"
#include "asio/post.hpp"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/peer_identity.h"
#include "ipc/socket.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"
#include "service/core/counters.h"

namespace zcbroker::service {
namespace {

// The keeper's question is such another thing, and who leaves it unanswered is
// ended.
TEST(AcceptorTest, WhoeverConnectsAllTheTimeLeavesTheLoopToOthers) {
  constexpr int kMost = 1000;
  const ipc::ScopedRuntimeDir dir;
  const ipc::Endpoint endpoint = *ipc::Endpoint::Parse(dir.Entry("s"));
  asio::io_context loop;
  Counters counters;
  std::unique_ptr<Acceptor> acceptor;
  // Closed at once, before it is accepted.
  const auto connect = [&] {
    EXPECT_TRUE(
        ipc::Connect(endpoint, ipc::Deadline::After(absl::Seconds(60))).ok());
  };
  int accepted = 0;
  int accepted_before = -1;  // the loop came to something else
  acceptor = Acceptor::Create(
      loop, *ipc::Listener::Bind(endpoint), geteuid(), {}, counters,
      [&](const ipc::UniqueFd&, const ipc::PeerIdentity&) {
        if (++accepted == 1) {
          asio::post(loop, [&] { accepted_before = accepted; });
        }
        if (accepted == kMost) {
          acceptor->Close();
        } else {
          connect();
        }
      });
  acceptor->Open();
  connect();
  loop.run();
  EXPECT_EQ(accepted, kMost);
  EXPECT_GT(accepted_before, 0);
  EXPECT_LT(accepted_before, kMost / 2);
}

}  // namespace
}  // namespace zcbroker::service
