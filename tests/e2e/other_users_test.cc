// Another user of the machine, for real: a process of a second uid. It keeps
// CAP_DAC_OVERRIDE, or it would not come as far as the checks that are to stop
// it; once it has not, to show that it does not.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/wait_for.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

constexpr uid_t kOther = 54321;

enum class Powers { kNone, kPassesModes };

// In a child: from now on another user. What is executed keeps the powers.
bool Become(Powers powers) {
  if (prctl(PR_SET_KEEPCAPS, 1) != 0 || setgroups(0, nullptr) != 0 ||
      setresgid(kOther, kOther, kOther) != 0 ||
      setresuid(kOther, kOther, kOther) != 0) {
    return false;
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (powers == Powers::kPassesModes) {
    const uint32_t bit = uint32_t{1} << CAP_DAC_OVERRIDE;
    data[0].effective = data[0].permitted = data[0].inheritable = bit;
  }
  if (syscall(SYS_capset, &header, data) != 0) return false;
  return powers == Powers::kNone || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE,
                                          CAP_DAC_OVERRIDE, 0, 0) == 0;
}

// The exit status of `act` in a child of that user. It must make system calls
// only: this process has other threads.
template <typename Act>
int AsOther(Powers powers, Act act) {
  const pid_t child = fork();
  if (child == 0) _exit(Become(powers) ? act() : 99);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

enum Outcome { kClosedUnread = 0, kAnswered, kMute, kNotReached, kOddly };

// Connects, says something, and sees what becomes of it.
int Knock(const std::string& socket, const std::string& words) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, socket.data(), socket.size());
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    return errno == EACCES ? kNotReached : kOddly;
  }
  // Closed meanwhile, maybe; that is what is looked for.
  if (send(fd, words.data(), words.size(), MSG_NOSIGNAL) < 0 &&
      errno != EPIPE) {
    return kOddly;
  }
  pollfd waited{fd, POLLIN, 0};
  if (poll(&waited, 1, 30'000) <= 0) return kMute;
  char byte = 0;
  return recv(fd, &byte, 1, 0) > 0 ? kAnswered : kClosedUnread;
}

class OtherUsersTest : public BrokerTest {
 protected:
  OtherUsersTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  }
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  }

  std::string route() const {
    return home_.Entry("run/zcbroker/routes/demo/1.0.0.sock");
  }
  std::string info() const {
    return home_.Entry("run/zcbroker/routes/demo/1.0.0.info");
  }
  v1::BackendRoute StartDemo() {
    const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    EXPECT_TRUE(ipc::WaitFor(
        [this] {
          return access(route().c_str(), F_OK) == 0 &&
                 access(info().c_str(), F_OK) == 0;
        },
        "the named route", kPatience));
    return answer.response.route();
  }

  // A program of ours as that user, in this home's environment.
  int RunAsOther(std::vector<std::string> words) {
    words.insert(words.begin(), "env");
    for (const auto& [name, value] : home_.environment()) {
      words.insert(words.begin() + 1, absl::StrCat(name, "=", value));
    }
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    return AsOther(Powers::kPassesModes, [&] {
      execv("/usr/bin/env", argv.data());
      return 97;
    });
  }
};

TEST_F(OtherUsersTest, ModesKeepThemOut) {
  StartBroker();
  StartDemo();
  for (const std::string& path : {socket(), route()}) {
    EXPECT_EQ(AsOther(Powers::kNone, [&] { return Knock(path, "x"); }),
              kNotReached)
        << path;
  }
  for (const std::string& path :
       {home_.runtime_dir(), home_.Entry("run/zcbroker"),
        home_.Entry("run/zcbroker/routes"),
        home_.Entry("run/zcbroker/routes/demo"),
        home_.Entry("run/zcbroker/backends")}) {
    struct stat status;
    ASSERT_EQ(stat(path.c_str(), &status), 0) << path;
    EXPECT_EQ(status.st_mode & 0777, 0700u) << path;
  }
  for (const std::string& path : {socket(), route(), info()}) {
    struct stat status;
    ASSERT_EQ(stat(path.c_str(), &status), 0) << path;
    EXPECT_EQ(status.st_mode & 0777, 0600u) << path;
  }
}

TEST_F(OtherUsersTest, TheBrokerClosesThemUnread) {
  StartBroker();
  const std::string hello = HelloFrame(HelloFor("demo", "1.0.0"));
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  for (const std::string& words : {hello, preface}) {
    EXPECT_EQ(
        AsOther(Powers::kPassesModes, [&] { return Knock(socket(), words); }),
        kClosedUnread);
  }
  EXPECT_EQ(Counter("refused.PEER_REJECTED"), 2u);
  // Nothing was asked in their name.
  EXPECT_EQ(Counter("negotiations"), 0u);
  EXPECT_EQ(Counter("backends_started"), 0u);
  ExpectServesOthers();
}

TEST_F(OtherUsersTest, PublicNamesCloseThemUnread) {
  StartBroker();
  StartDemo();
  // A Ping of zccache 1.15.8.
  const std::string ping(
      "\x15\0\0\0\x1a\0\0\0\x0a\0\xa2\x06\x0c"
      "control-ping",
      25);
  EXPECT_EQ(AsOther(Powers::kPassesModes, [&] { return Knock(route(), ping); }),
            kClosedUnread);
  EXPECT_EQ(Counter("refused.PEER_REJECTED"), 1u);
  EXPECT_EQ(Counter("relay.connections"), 0u);
}

TEST_F(OtherUsersTest, ARouteInfoOfTheirsLeadsNobodyAnywhere) {
  StartBroker();
  StartDemo();
  // Theirs by owner, ours by content: as good as they can make it.
  const std::string content = ReadFile(info());
  ASSERT_EQ(unlink(info().c_str()), 0);
  ASSERT_EQ(AsOther(Powers::kPassesModes,
                    [&] {
                      const int fd = open(info().c_str(),
                                          O_WRONLY | O_CREAT | O_TRUNC, 0600);
                      return write(fd, content.data(), content.size()) ==
                                     static_cast<ssize_t>(content.size())
                                 ? 0
                                 : 1;
                    }),
            0);
  ipc::RuntimeDirInputs inputs;
  inputs.euid = geteuid();
  inputs.xdg_runtime_dir = home_.runtime_dir();
  const auto runtime = ipc::RuntimeDir::Find(inputs);
  ASSERT_TRUE(runtime.ok()) << runtime.status();
  // Every client of ours reads it so; without one it asks the broker.
  EXPECT_EQ(ipc::ReadRouteInfo(*runtime, "demo", "1.0.0").status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(OtherUsersTest, AJournalOfTheirsIsSetAside) {
  StartBroker();
  const v1::BackendRoute backend = StartDemo();
  std::string journal = backend.endpoint();
  journal.replace(journal.rfind(".sock"), 5, ".journal");
  broker().process().Signal(SIGKILL);
  EXPECT_EQ(AwaitBrokersEnd(), 128 + SIGKILL);
  ASSERT_EQ(chown(journal.c_str(), kOther, kOther), 0);
  StartBroker();
  // Adopted by its endpoint, which answers; not by what the journal says.
  EXPECT_EQ(StartDemo().pid(), backend.pid());
  struct stat status;
  ASSERT_EQ(stat((journal + ".bad").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, kOther);
  ASSERT_EQ(stat(journal.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, geteuid());
}

TEST_F(OtherUsersTest, ProgramsOfOursRefuseAnotherUsersDirectory) {
  StartBroker();
  StartDemo();
  // XDG_RUNTIME_DIR is not theirs: passed over, and no broker is found.
  EXPECT_EQ(RunAsOther({CommandLineProgram(), "route", "demo", "1.0.0"}), 3);
  EXPECT_EQ(Counter("refused.PEER_REJECTED"), 0u);
  EXPECT_NE(access(home_.Entry("run/zcbroker/fallbacks").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace zcbroker::testing
