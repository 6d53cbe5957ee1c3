// A broker as the keeper sees it, and nothing more: takes back the sockets that
// are held, or binds one and hands it over, says that it is ready, and answers
// each connection with its pid.
//
// usage: fake_broker SOCKET [WORD...]
//   early=N     exits with N before it is ready
//   silent      hands over its socket but never says that it is ready
//   second=N    exits with N, before it is ready, where sockets were held
//   term=N      exits with N on SIGTERM (0 where not given)
//   slow        exits on SIGTERM after the keeper has asked it three times
//               whether it still serves
// A connection whose first byte is one of these has something done instead:
//   x           exits with 3
//   q           exits with 0
//   o           starts a process that leaves it; answers with that pid
//   m           binds and hands over 300 more sockets, named SOCKET-<n>
//   h           answers with how many sockets were held at the start
//   e           answers with NOTIFY_SOCKET, ZCBROKER_KEEPER_FD and LISTEN_FDS
//   k           answers, and waits for the connection's end
//   w           answers, and does nothing any more
//   n           answers, and accepts nobody until the keeper has asked it three
//               times whether it still serves
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/keeper_channel.h"
#include "ipc/listener.h"
#include "ipc/socket.h"

namespace zcbroker::testing {
namespace {

constexpr int kMoreSockets = 300;

volatile sig_atomic_t told_to_end = 0;
volatile sig_atomic_t told_to_hand_over = 0;
constexpr int kHandedOver = 15;

template <typename T>
T Need(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  fprintf(stderr, "fake_broker: %s\n", value.status().ToString().c_str());
  _exit(99);
}

void Need(const absl::Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "fake_broker: %s\n", status.ToString().c_str());
  _exit(99);
}

class FakeBroker {
 public:
  FakeBroker(std::string socket, std::map<std::string, int> words)
      : socket_(std::move(socket)),
        words_(std::move(words)),
        keeper_(*Need(ipc::KeeperChannel::FromEnvironment())) {}

  int Run() {
    if (words_.count("early") != 0) return words_["early"];
    for (ipc::HeldSocket& held :
         Need(keeper_.TakeHeld(ipc::Deadline::After(absl::Seconds(60))))) {
      from_service_manager_ += held.from_service_manager ? 1 : 0;
      listeners_.push_back(Need(ipc::Listener::Adopt(std::move(held.fd))));
    }
    held_ = listeners_.size();
    if (held_ > 0 && words_.count("second") != 0) return words_["second"];
    if (listeners_.empty()) BindAndHold(socket_);
    Need(keeper_.Here());
    if (words_.count("silent") == 0) Need(keeper_.Ready());
    while (told_to_end == 0 && told_to_hand_over == 0) Serve();
    if (told_to_hand_over != 0) return kHandedOver;
    if (words_.count("slow") != 0) AwaitQuestions();
    return words_["term"];
  }

 private:
  void BindAndHold(const std::string& path) {
    listeners_.push_back(
        Need(ipc::Listener::Bind(Need(ipc::Endpoint::Parse(path)))));
    Need(keeper_.Hold(path, listeners_.back().fd()));
  }

  void Serve() {
    std::vector<pollfd> waited;
    for (const ipc::Listener& listener : listeners_) {
      waited.push_back({listener.fd(), POLLIN, 0});
    }
    waited.push_back({keeper_.fd(), POLLIN, 0});
    if (keeper_.wants_write()) waited.back().events |= POLLOUT;
    if (poll(waited.data(), waited.size(), -1) < 0) return;
    Need(keeper_.Flush());
    if ((waited.back().revents & POLLIN) != 0) {
      Need(keeper_.AnswerWhatIsAsked());
    }
    // Index by index: serving one may add listeners.
    for (size_t i = 0; i + 1 < waited.size(); ++i) {
      if (waited[i].revents == 0) continue;
      auto connection = Need(listeners_[i].Accept());
      if (connection.has_value()) Answer(*connection);
    }
  }

  void Answer(const ipc::UniqueFd& connection) {
    const ipc::Deadline deadline = ipc::Deadline::After(absl::Seconds(60));
    char asked = 0;
    if (!ipc::ReadSome(connection, &asked, 1, deadline).ok()) return;
    std::string answer = absl::StrCat(getpid());
    if (asked == 'x') _exit(3);
    if (asked == 'q') _exit(0);
    if (asked == 'o') answer = absl::StrCat(LeaveAProcess());
    if (asked == 'h') answer = absl::StrCat(held_, " ", from_service_manager_);
    if (asked == 'm') {
      for (int i = 0; i < kMoreSockets; ++i) {
        BindAndHold(absl::StrCat(socket_, "-", i));
      }
    }
    if (asked == 'e') {
      for (const char* name :
           {"NOTIFY_SOCKET", "ZCBROKER_KEEPER_FD", "LISTEN_FDS"}) {
        const char* value = getenv(name);
        absl::StrAppend(&answer, " ", value != nullptr ? value : "-");
      }
    }
    ipc::WriteAll(connection, answer, deadline).IgnoreError();
    if (asked == 'k') {
      ipc::ReadSome(connection, &asked, 1, deadline).status().IgnoreError();
    }
    while (asked == 'w') pause();
    if (asked == 'n') AwaitQuestions();
  }

  void AwaitQuestions() {
    for (int i = 0; i < 3; ++i) {
      pollfd keeper{keeper_.fd(), POLLIN, 0};
      while (poll(&keeper, 1, -1) < 0) {
      }
      Need(keeper_.AnswerWhatIsAsked());
    }
  }

  // Which outlives this one by not being ended with it.
  static pid_t LeaveAProcess() {
    const pid_t pid = fork();
    if (pid == 0) {
      signal(SIGTERM, SIG_DFL);
      while (true) pause();
    }
    return pid;
  }

  const std::string socket_;
  std::map<std::string, int> words_;
  ipc::KeeperChannel keeper_;
  std::vector<ipc::Listener> listeners_;
  size_t held_ = 0;
  int from_service_manager_ = 0;
};

int Main(int argc, char** argv) {
  // A keeper asks before it lets a new broker take over.
  if (argv[1] == std::string("--version")) {
    return puts("zcbrokerd for tests") < 0 ? 1 : 0;
  }
  struct sigaction action = {};
  action.sa_handler = [](int) { told_to_end = 1; };
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = [](int) { told_to_hand_over = 1; };
  sigaction(SIGUSR2, &action, nullptr);
  std::map<std::string, int> words;
  for (int i = 2; i < argc; ++i) {
    const std::pair<std::string, std::string> word =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    int number = 0;
    if (!word.second.empty() && !absl::SimpleAtoi(word.second, &number)) {
      return 98;
    }
    words[word.first] = number;
  }
  return FakeBroker(argv[1], std::move(words)).Run();
}

}  // namespace
}  // namespace zcbroker::testing

int main(int argc, char** argv) {
  return argc < 2 ? 98 : zcbroker::testing::Main(argc, argv);
}
