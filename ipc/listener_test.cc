#include "ipc/listener.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

class ListenerTest : public testing::Test {
 protected:
  Endpoint At(const std::string& leaf) {
    return *Endpoint::Parse(dir_.Entry(leaf));
  }
  static Deadline Soon() { return Deadline::After(absl::Seconds(20)); }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const auto& e : std::filesystem::directory_iterator(dir_.path())) {
      names.push_back(e.path().filename());
    }
    return names;
  }
  ScopedRuntimeDir dir_;
};

TEST_F(ListenerTest, BindsForTheOwnerOnlyAndLeavesNoOtherName) {
  const mode_t old = umask(0);
  const auto listener = Listener::Bind(At("s"));
  umask(old);
  ASSERT_TRUE(listener.ok()) << listener.status();
  struct stat info;
  ASSERT_EQ(lstat(dir_.Entry("s").c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(Names(), std::vector<std::string>{"s"});
}

TEST_F(ListenerTest, AcceptsUntilNobodyWaits) {
  const auto listener = Listener::Bind(At("s"));
  ASSERT_TRUE(listener.ok());
  const auto first = Connect(At("s"), Soon());
  const auto second = Connect(At("s"), Soon());
  ASSERT_TRUE(first.ok() && second.ok());
  for (int i = 0; i < 2; ++i) {
    const auto accepted = listener->Accept();
    ASSERT_TRUE(accepted.ok()) << accepted.status();
    ASSERT_TRUE(accepted->has_value());
    EXPECT_NE(fcntl((*accepted)->get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(fcntl((*accepted)->get(), F_GETFD) & FD_CLOEXEC, 0);
  }
  const auto none = listener->Accept();
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST_F(ListenerTest, ReplacesASocketAndRefusesAnythingElse) {
  const auto old = Listener::Bind(At("s"));
  const auto successor = Listener::Bind(At("s"));
  ASSERT_TRUE(successor.ok()) << successor.status();
  const auto client = Connect(At("s"), Soon());
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(successor->Accept()->has_value());
  EXPECT_FALSE(old->Accept()->has_value());

  std::ofstream(dir_.Entry("file")) << "keep me";
  ASSERT_EQ(symlink("s", dir_.Entry("link").c_str()), 0);
  EXPECT_EQ(Listener::Bind(At("file")).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Listener::Bind(At("link")).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Listener::Bind(At("no/dir")).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Names().size(), 3U);
}

TEST_F(ListenerTest, UnlinksOnlyItsOwnSocket) {
  const auto old = Listener::Bind(At("s"));
  const auto successor = Listener::Bind(At("s"));
  EXPECT_TRUE(old->UnlinkIfOurs().ok());
  EXPECT_TRUE(Connect(At("s"), Soon()).ok());
  EXPECT_TRUE(successor->UnlinkIfOurs().ok());
  EXPECT_EQ(Connect(At("s"), Soon()).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(successor->UnlinkIfOurs().ok());
}

TEST_F(ListenerTest, OutOfDescriptorsIsATypedErrorAndPasses) {
  const auto listener = Listener::Bind(At("s"));
  const auto client = Connect(At("s"), Soon());
  ASSERT_TRUE(client.ok());
  rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const UniqueFd next_free(dup(0));
  rlimit tight = old;
  tight.rlim_cur = static_cast<rlim_t>(next_free.get()) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  const absl::Status status = listener->Accept().status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(listener->Accept()->has_value());
}

// A socket as a service manager makes it.
UniqueFd Inheritable(int type, const std::string& path, bool listening) {
  UniqueFd fd(socket(AF_UNIX, type, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  // Without a path the kernel picks an abstract name.
  const socklen_t size =
      path.empty() ? sizeof(address.sun_family) : sizeof(address);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size),
            0);
  if (listening) {
    EXPECT_EQ(listen(fd.get(), 8), 0);
  }
  return fd;
}

TEST_F(ListenerTest, AdoptsAnInheritedListener) {
  auto adopted =
      Listener::Adopt(Inheritable(SOCK_STREAM, dir_.Entry("s"), true));
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_EQ(adopted->endpoint().path(), dir_.Entry("s"));
  EXPECT_NE(fcntl(adopted->fd(), F_GETFD) & FD_CLOEXEC, 0);
  const auto client = Connect(At("s"), Soon());
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(adopted->Accept()->has_value());
  EXPECT_FALSE(adopted->Accept()->has_value());  // and does not block
  EXPECT_TRUE(adopted->UnlinkIfOurs().ok());
  EXPECT_TRUE(Names().empty());
}

TEST_F(ListenerTest, AdoptsNothingElse) {
  UniqueFd bad[] = {
      UniqueFd(open("/dev/null", O_RDONLY)),
      Inheritable(SOCK_STREAM, dir_.Entry("deaf"), false),
      Inheritable(SOCK_DGRAM, dir_.Entry("datagram"), false),
      Inheritable(SOCK_STREAM, "", true),
      UniqueFd(socket(AF_INET, SOCK_STREAM, 0)),
      UniqueFd(),
  };
  for (UniqueFd& fd : bad) {
    EXPECT_EQ(Listener::Adopt(std::move(fd)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace zcbroker::ipc
