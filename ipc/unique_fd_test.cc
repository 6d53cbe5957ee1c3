#include "ipc/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

int OpenNull() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool IsOpen(int fd) { return fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFdTest, ClosesAtTheEndAndOnReset) {
  const int first = OpenNull();
  const int second = OpenNull();
  {
    UniqueFd fd(first);
    EXPECT_TRUE(fd);
    fd.reset(second);
    EXPECT_FALSE(IsOpen(first));
    EXPECT_TRUE(IsOpen(second));
  }
  EXPECT_FALSE(IsOpen(second));
}

TEST(UniqueFdTest, MovingLeavesOneOwner) {
  UniqueFd from(OpenNull());
  const int raw = from.get();
  UniqueFd to(std::move(from));
  EXPECT_FALSE(from);  // NOLINT(bugprone-use-after-move): what is promised
  EXPECT_EQ(to.get(), raw);
  UniqueFd other(OpenNull());
  const int replaced = other.get();
  other = std::move(to);
  EXPECT_FALSE(IsOpen(replaced));
  EXPECT_EQ(other.get(), raw);
}

TEST(UniqueFdTest, ReleaseGivesItAway) {
  UniqueFd fd(OpenNull());
  const int raw = fd.release();
  EXPECT_FALSE(fd);
  EXPECT_TRUE(IsOpen(raw));
  close(raw);
}

TEST(UniqueFdTest, ClosingKeepsErrno) {
  UniqueFd closed_by_others(OpenNull());
  close(closed_by_others.get());
  errno = ENOENT;
  closed_by_others.reset();
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace zcbroker::ipc
