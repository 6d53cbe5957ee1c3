#include "ipc/peer_identity.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/testing/foreign_listener.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

TEST(PeerIdentityTest, KnowsBothEndsOfAConnection) {
  ScopedRuntimeDir dir;
  const Endpoint endpoint = *Endpoint::Parse(dir.Entry("s"));
  const auto listener = Listener::Bind(endpoint);
  const auto client = Connect(endpoint, Deadline::After(absl::Seconds(20)));
  ASSERT_TRUE(client.ok());
  const auto server = listener->Accept();
  for (const UniqueFd* fd : {&*client, &**server}) {
    const auto peer = PeerOf(*fd);
    ASSERT_TRUE(peer.ok()) << peer.status();
    EXPECT_EQ(peer->uid, geteuid());
    EXPECT_EQ(peer->gid, getegid());
    EXPECT_EQ(peer->pid, getpid());
    EXPECT_TRUE(CheckPeerIsUs(*fd).ok());
    EXPECT_TRUE(CheckPeerIsOurProcess(*fd, getpid()).ok());
    EXPECT_TRUE(CheckPeerIsOurProcess(*fd, 0).ok());
    EXPECT_EQ(CheckPeerIsOurProcess(*fd, getppid()).code(),
              absl::StatusCode::kFailedPrecondition);
  }
}

TEST(PeerIdentityTest, SurvivesThePeersDeath) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd near(ends[0]);
  close(ends[1]);
  const auto peer = PeerOf(near);
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->uid, geteuid());
}

TEST(PeerIdentityTest, WhatHasNoPeerIsRefused) {
  const UniqueFd file(open("/dev/null", O_RDONLY));
  const UniqueFd unconnected(socket(AF_UNIX, SOCK_STREAM, 0));
  for (const UniqueFd* fd : {&file, &unconnected}) {
    EXPECT_EQ(PeerOf(*fd).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
}

// The uid is the one the listener had when it began to listen.
TEST(PeerIdentityTest, AnotherUsersListenerIsToldApart) {
  if (!ForeignListener::IsPossible()) GTEST_SKIP() << "needs root";
  ScopedRuntimeDir dir;
  ASSERT_EQ(chmod(dir.path().c_str(), 0777), 0);
  const Endpoint endpoint = *Endpoint::Parse(dir.Entry("s"));
  const ForeignListener foreign(endpoint.path());
  const auto client = Connect(endpoint, Deadline::After(absl::Seconds(20)));
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(PeerOf(*client)->uid, ForeignListener::kUid);
  EXPECT_EQ(CheckPeerIsUs(*client).code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace zcbroker::ipc
