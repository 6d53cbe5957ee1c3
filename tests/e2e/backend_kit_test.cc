// The examples of client/backend_sdk under a real broker: daemons of under 30
// lines that are started, proven, asked, drained and stopped like any other.
#include <linux/sockios.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "tests/e2e/broker_fixture.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {
namespace {

std::string FromEnvironment(const char* name) {
  char resolved[PATH_MAX];
  return realpath(getenv(name), resolved);
}

// A client of the example. What it is sent comes back by the line.
class EchoClient {
 public:
  explicit EchoClient(const std::string& endpoint) : fd_(ConnectTo(endpoint)) {}

  void Send(absl::string_view bytes) {
    EXPECT_TRUE(
        ipc::WriteAll(fd_, bytes, ipc::Deadline::After(kPatience)).ok());
  }
  // Empty where the backend has closed.
  std::string Receive() {
    char bytes[256];
    const auto got = ipc::ReadSome(fd_, bytes, sizeof(bytes),
                                   ipc::Deadline::After(kPatience));
    EXPECT_TRUE(got.ok()) << got.status();
    return std::string(bytes, got.value_or(0));
  }
  std::string Echo(absl::string_view line) {
    Send(line);
    return Receive();
  }
  // Half a call, which the backend has begun to read.
  void Begin() {
    Send("in fli");
    EXPECT_TRUE(ipc::WaitFor(
        [this] {
          int unread = 0;
          return ioctl(fd_.get(), SIOCOUTQ, &unread) == 0 && unread == 0;
        },
        "the call to be in flight", kPatience));
  }
  // The other half, and the answer.
  std::string Finish() { return Echo("ght\n"); }

 private:
  const ipc::UniqueFd fd_;
};

// What a service manager makes.
ipc::UniqueFd ListenAt(const std::string& path) {
  ipc::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)),
            0);
  EXPECT_EQ(listen(fd.get(), SOMAXCONN), 0);
  return fd;
}

class BackendKitTest : public BrokerTest {
 protected:
  BackendKitTest() { StartBroker(); }

  Finished Cli(std::vector<std::string> words) const {
    words.insert(words.begin(), CommandLineProgram());
    return RunToEnd(std::move(words), home_.environment());
  }
  std::future<Finished> BeginCli(std::vector<std::string> words) const {
    return std::async(std::launch::async,
                      [this, words = std::move(words)] { return Cli(words); });
  }
  void Add(const std::string& program) {
    const Finished added =
        Cli({"service", "add", "echo", "--binary", program, "--version",
             "1.0.0", "--arg", "{endpoint}", "--probe", "identity"});
    ASSERT_EQ(added.status, 0) << added.err;
  }
  // The backend there is, or one that is started.
  v1::BackendRoute Route() const {
    const GrpcAnswer answer = Client().Negotiate("echo", "1.0.0");
    EXPECT_TRUE(answer.ok()) << answer.status.error_message();
    return answer.response.route();
  }
  bool IsIn(v1::BackendState state) const {
    const auto backends = Client().Backends();
    return std::any_of(
        backends.begin(), backends.end(), [&](const v1::Backend& backend) {
          return backend.service() == "echo" && backend.state() == state;
        });
  }

  Process Start(const std::string& program, const std::string& endpoint) const {
    return Process({program, endpoint}, home_.environment());
  }
  // As a service manager does, with the socket that it listens on.
  Process Start(const std::string& program,
                const ipc::UniqueFd& listener) const {
    Environment environment = home_.environment();
    environment["LISTEN_FDS"] = "1";
    ProcessOptions options;
    options.third_fd = listener.get();
    return Process({"/bin/sh", "-c", "LISTEN_PID=$$ exec \"$0\"", program},
                   environment, options);
  }

  void ExpectDrainLetsACallFinish(const v1::BackendRoute& route) const {
    absl::optional<EchoClient> client(route.endpoint());
    client->Begin();
    std::future<Finished> drained = BeginCli({"drain", "echo", "1.0.0"});
    EXPECT_TRUE(ipc::WaitFor([&] { return IsIn(v1::BACKEND_STATE_DRAINING); },
                             "it to drain", kPatience));
    EXPECT_EQ(client->Finish(), "in flight\n");
    client.reset();
    EXPECT_EQ(drained.get().status, 0);
    EXPECT_TRUE(ipc::WaitFor([&] { return IsIn(v1::BACKEND_STATE_GONE); },
                             "its end", kPatience));
  }

  const std::string echo_ = FromEnvironment("ECHO_BACKEND");
  const std::string registered_echo_ =
      FromEnvironment("REGISTERED_ECHO_BACKEND");
};

TEST_F(BackendKitTest, TheExamplesHaveUnder30Lines) {
  for (const char* name : {"ECHO_BACKEND_CC", "REGISTERED_ECHO_BACKEND_CC"}) {
    const std::string text = ReadFile(FromEnvironment(name));
    ASSERT_NE(text, "") << name;
    EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 30) << name;
  }
}

TEST_F(BackendKitTest, TheDocumentShowsTheExampleWhole) {
  const std::string text = ReadFile(FromEnvironment("ECHO_BACKEND_CC"));
  // Without its first comment.
  const std::string code = text.substr(text.find("#include"));
  EXPECT_TRUE(absl::StrContains(ReadFile(FromEnvironment("BACKEND_KIT_MD")),
                                absl::StrCat("```cpp\n", code, "```\n")));
}

TEST_F(BackendKitTest, OneThatTheBrokerStarts) {
  Add(echo_);
  const Finished routed = Cli({"route", "echo", "1.0.0"});
  ASSERT_EQ(routed.status, 0) << routed.err;
  EXPECT_EQ(EchoClient(Route().endpoint()).Echo("a line\n"), "a line\n");
  ExpectDrainLetsACallFinish(Route());

  const v1::BackendRoute next = Route();
  EXPECT_EQ(next.generation(), 2u);
  EchoClient idle(next.endpoint());
  EXPECT_EQ(idle.Echo("a line\n"), "a line\n");
  EchoClient client(next.endpoint());
  client.Begin();
  std::future<Finished> stopped = BeginCli({"stop", "echo", "1.0.0"});
  EXPECT_EQ(idle.Receive(), "");
  EXPECT_EQ(client.Finish(), "in flight\n");
  EXPECT_EQ(client.Receive(), "");
  EXPECT_EQ(stopped.get().status, 0);
  EXPECT_TRUE(IsIn(v1::BACKEND_STATE_GONE));
}

// It listens there, by what the kernel says, although somebody else made the
// socket: else its answer to the probe would be taken for another's.
TEST_F(BackendKitTest, OneWithAnInheritedSocketIsAdopted) {
  Add(echo_);
  const std::string endpoint = Route().endpoint();
  ASSERT_EQ(Cli({"stop", "echo", "1.0.0"}).status, 0);
  Process backend = Start(echo_, ListenAt(endpoint));
  EchoClient idle(endpoint);
  EXPECT_EQ(idle.Echo("a line\n"), "a line\n");
  const v1::BackendRoute route = Route();
  EXPECT_EQ(route.pid(), static_cast<uint32_t>(backend.pid()));
  EXPECT_EQ(route.endpoint(), endpoint);

  EchoClient client(endpoint);
  client.Begin();
  backend.Signal(SIGTERM);
  EXPECT_EQ(idle.Receive(), "");
  EXPECT_EQ(client.Finish(), "in flight\n");
  EXPECT_EQ(backend.Wait(), 0);
}

TEST_F(BackendKitTest, OneThatRegistersItself) {
  Add(registered_echo_);
  uint64_t registered = 0;
  for (const bool inherited : {false, true}) {
    const std::string endpoint = home_.Entry("work/echo.sock");
    Process backend = inherited ? Start(registered_echo_, ListenAt(endpoint))
                                : Start(registered_echo_, endpoint);
    ++registered;
    ASSERT_TRUE(ipc::WaitFor(
        [&] { return Counter("backends_registered") == registered; },
        "its registration", kPatience));
    const v1::BackendRoute route = Route();
    EXPECT_EQ(route.pid(), static_cast<uint32_t>(backend.pid()));
    EXPECT_EQ(route.endpoint(), endpoint);
    EXPECT_EQ(EchoClient(endpoint).Echo("a line\n"), "a line\n");
    ExpectDrainLetsACallFinish(route);
    EXPECT_EQ(backend.Wait(), 0);
    // A service manager's name is left to it.
    EXPECT_EQ(access(endpoint.c_str(), F_OK) == 0, inherited);
  }
  EXPECT_EQ(Counter("backends_started"), 0u);
}

}  // namespace
}  // namespace zcbroker::testing
