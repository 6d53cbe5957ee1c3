#include "service/host/journald.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

TEST(EncodeJournalEntryTest, OneLineValuesAreNameEqualsValue) {
  EXPECT_EQ(EncodeJournalEntry({{"MESSAGE", "ready = yes"}, {"PRIORITY", "6"}}),
            "MESSAGE=ready = yes\nPRIORITY=6\n");
}

// What a backend printed must not become a field of its own.
TEST(EncodeJournalEntryTest, OthersSayHowLongTheyAre) {
  EXPECT_EQ(EncodeJournalEntry({{"EVIDENCE", "a\nPRIORITY=0"}}),
            std::string("EVIDENCE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n", 30));
}

class JournalSocketTest : public testing::Test {
 protected:
  ipc::UniqueFd Listen() {
    ipc::UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                   sizeof(address)),
              0);
    return fd;
  }

  const ipc::ScopedRuntimeDir dir_;
  const std::string path_ = dir_.Entry("socket");
};

TEST_F(JournalSocketTest, AnEntryIsADatagram) {
  const ipc::UniqueFd listener = Listen();
  ASSERT_TRUE(JournalSocket(path_).Send({{"MESSAGE", "hello"}}));
  char buffer[64];
  const ssize_t n = recv(listener.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string(buffer, static_cast<size_t>(n)), "MESSAGE=hello\n");
}

TEST_F(JournalSocketTest, WhereNobodyListensItSaysSo) {
  EXPECT_FALSE(JournalSocket(path_).Send({{"MESSAGE", "hello"}}));
}

TEST_F(JournalSocketTest, AReaderThatDoesNotReadIsNotWaitedFor) {
  const ipc::UniqueFd listener = Listen();
  const JournalSocket journal(path_);
  const std::string line(4096, 'x');
  int sent = 0;
  while (journal.Send({{"MESSAGE", line}})) ++sent;
  EXPECT_GT(sent, 0);
}

TEST(StandardErrorIsJournalTest, OnlyWhereItsDeviceAndInodeAreNamed) {
  struct stat status;
  ASSERT_EQ(fstat(STDERR_FILENO, &status), 0);
  ASSERT_EQ(unsetenv("JOURNAL_STREAM"), 0);
  EXPECT_FALSE(StandardErrorIsJournal());
  setenv("JOURNAL_STREAM", "1:2", 1);
  EXPECT_FALSE(StandardErrorIsJournal());
  setenv("JOURNAL_STREAM",
         absl::StrCat(status.st_dev, ":", status.st_ino).c_str(), 1);
  EXPECT_TRUE(StandardErrorIsJournal());
}

}  // namespace
}  // namespace zcbroker::service
