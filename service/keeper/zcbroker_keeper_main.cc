// zcbroker-keeper: the parent of the broker. Holds its listening sockets,
// starts it again when it dies, reaps what is left behind. One thread, no
// gRPC, as little as possible that could go wrong.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ipc/clock.h"
#include "ipc/deadline.h"
#include "ipc/fd_passing.h"
#include "ipc/keeper_channel.h"
#include "ipc/listener.h"
#include "ipc/process.h"
#include "ipc/service_manager.h"
#include "ipc/spare_memory.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/version.h"
#include "service/keeper/broker_child.h"
#include "service/keeper/held_sockets.h"
#include "service/keeper/keeper_state.h"
#include "service/keeper/last_will.h"
#include "service/keeper/restart_rules.h"
#include "service/keeper/sign_of_life.h"
#include "service/keeper/successor_check.h"

namespace zcbroker::service {
namespace {

using Kind = ipc::KeeperMessage::Kind;

// docs/operations.md, "Exit statuses".
enum ExitCode { kOk = 0, kFailure = 1, kUsage = 2 };
// What a shell calls a program that could not be started.
constexpr int kCannotStart = 127;
// Asked of a program that is to go on from our state, and what it says where it
// knows the format.
constexpr char kKnowsState[] = "--knows-state";
constexpr char kKnowsStateAnswer[] = "zcbroker-keeper knows that state\n";

constexpr char kHelp[] =
    "usage: zcbroker-keeper [--broker PATH] [--] [ARGUMENT OF zcbrokerd...]\n"
    "\n"
    "Starts zcbrokerd and holds its sockets: when it dies, it is started "
    "again\n"
    "at once, and clients wait that long instead of being refused. Its own\n"
    "options come first; from the first it does not know, all are "
    "zcbrokerd's.\n"
    "A broker that leaves clients waiting for 9 s without a sign of life is\n"
    "ended and replaced.\n"
    "\n"
    "  --broker PATH  the broker (default: zcbrokerd beside this program)\n"
    "  --help         this text\n"
    "  --version      the version\n"
    "\n"
    "SIGTERM and SIGINT end the broker in order, and then the keeper; SIGHUP "
    "is\n"
    "passed on. SIGUSR2 upgrades: the keeper executes its program anew, in "
    "place,\n"
    "and has the broker replaced. Inherits LISTEN_FDS, reports to "
    "NOTIFY_SOCKET.\n"
    "Exit statuses: 0 the broker ended in order; what zcbrokerd says where it\n"
    "never became ready; 2 wrong usage; 14 another broker runs; 127 there is\n"
    "no broker to execute; 128 and the signal that ended one that never\n"
    "became ready, or that had to be killed.\n";

// A line of the broker's log, which standard error is. One write, so that
// lines of the two are not mixed.
void Log(absl::string_view level, absl::string_view text) {
  timeval now = {};
  gettimeofday(&now, nullptr);
  tm parts = {};
  localtime_r(&now.tv_sec, &parts);
  char stamp[32];
  strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts);
  char millis[8];
  snprintf(millis, sizeof(millis), ".%03d",
           static_cast<int>(now.tv_usec / 1000));
  const std::string line =
      absl::StrCat(stamp, millis, " ", level, " keeper: ", text, "\n");
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  // A pipe that nobody reads must not stop the keeper.
  if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return;
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

std::string Describe(const BrokerEnd& end) {
  if (end.signal.has_value()) {
    return absl::StrCat("was ended by signal ", *end.signal);
  }
  return absl::StrCat("exited with status ", end.exit_status.value_or(0));
}

BrokerEnd EndOf(int wait_status) {
  BrokerEnd end;
  if (WIFSIGNALED(wait_status)) {
    end.signal = WTERMSIG(wait_status);
  } else {
    end.exit_status = WEXITSTATUS(wait_status);
  }
  return end;
}

// The soft limit on descriptors, raised for the sockets of many versions. The
// broker is started with the old one: it has its own way of raising it, and
// hands the original to its backends.
class DescriptorLimit {
 public:
  DescriptorLimit() { getrlimit(RLIMIT_NOFILE, &original_); }
  void Raise() const {
    rlimit raised = original_;
    raised.rlim_cur = raised.rlim_max;
    setrlimit(RLIMIT_NOFILE, &raised);
  }
  void Restore() const { setrlimit(RLIMIT_NOFILE, &original_); }
  rlim_t original() const { return original_.rlim_cur; }
  // As an earlier self found it.
  void SetOriginal(rlim_t soft) { original_.rlim_cur = soft; }

 private:
  rlimit original_ = {};
};

// This program as it was started: an upgrade is put in its place.
struct OwnProgram {
  std::string path;
  char** arguments;
};

class Keeper {
 public:
  Keeper(OwnProgram self, std::string program,
         std::vector<std::string> arguments, ipc::UniqueFd signals,
         ipc::UniqueFd lifeline, HeldSockets sockets)
      : self_(std::move(self)),
        program_(std::move(program)),
        arguments_(std::move(arguments)),
        signals_(std::move(signals)),
        lifeline_(std::move(lifeline)),
        sockets_(std::move(sockets)) {
    limit_.Raise();
  }

  // Goes on where an earlier self was; its sockets and lifeline are ours
  // already. The broker is to be replaced, too.
  void Resume(const KeeperState& state) {
    broker_ = state.broker;
    if (state.link >= 0) {
      link_ = std::make_unique<ipc::KeeperLink>(ipc::UniqueFd(state.link));
    }
    started_ = ipc::MonotonicTime(
        std::chrono::duration_cast<ipc::MonotonicClock::duration>(
            std::chrono::nanoseconds(state.started_nanos)));
    if (state.restart_millis.has_value()) {
      restart_ =
          ipc::Deadline::After(absl::Milliseconds(*state.restart_millis));
    }
    if (broker_ > 0 && !state.rules.ready) {
      ready_by_ = ipc::Deadline::After(RestartRules::kReadyWithin);
    }
    limit_.SetOriginal(state.original_descriptor_limit);
    said_stopping_ = state.said_stopping;
    if (state.may_ask) life_.emplace();
    const absl::StatusOr<ipc::ProcessStat> stat = ipc::ReadProcessStat(broker_);
    stopped_ = stat.ok() && stat->state == 'T';
    rules_ = RestartRules(state.rules);
    Log("info", absl::StrCat("goes on as ", kVersion, ", with ",
                             sockets_.size(), " sockets"));
    ReplaceBroker();
  }

  // Until the broker ends for good; the keeper's exit status.
  int Run() {
    if (broker_ < 0 && !restart_.has_value()) StartNow();
    // Of an earlier self's time.
    Reap();
    while (!exit_status_.has_value()) {
      Wait();
      ReadSignals();
      Reap();
      ReadMessages();
      Upgrade();
      if (restart_.has_value() && restart_->Expired()) StartNow();
      if (ready_by_.has_value() && ready_by_->Expired()) EndWhatHangs();
      LookForLife();
    }
    return *exit_status_;
  }

 private:
  // An install that is half done, or a file that is none, replaces nothing: the
  // broker's is asked first, then this program's own. Sockets are held and
  // brokers restarted meanwhile.
  void Upgrade() {
    // The end that was seen a moment ago goes before.
    if (exit_status_.has_value()) return;
    if (check_.has_value()) {
      if (check_->deadline().Expired()) check_->Kill();
      return;
    }
    if (execute_) Execute();
    if (std::exchange(upgrading_, false)) {
      Ask(program_, "--version", "zcbrokerd ", &Keeper::BrokerAnswered);
    }
  }

  using Answered = void (Keeper::*)(const absl::Status&);
  void Ask(const std::string& program, const std::string& question,
           const std::string& answer, Answered then) {
    absl::StatusOr<SuccessorCheck> asked =
        SuccessorCheck::Ask(program, question, answer);
    if (!asked.ok()) {
      (this->*then)(asked.status());
      return;
    }
    check_.emplace(*std::move(asked));
    answered_ = then;
  }

  void BrokerAnswered(const absl::Status& status) {
    if (rules_.stopping()) return;
    if (status.ok()) {
      Ask(self_.path, absl::StrCat(kKnowsState, "=", kKeeperStateFormat),
          kKnowsStateAnswer, &Keeper::SelfAnswered);
    } else {
      NotUpgraded(status);
    }
  }

  void SelfAnswered(const absl::Status& status) {
    if (rules_.stopping()) return;
    if (status.ok()) {
      execute_ = true;
    } else {
      NotUpgraded(status);
      ReplaceBroker();
    }
  }

  static void NotUpgraded(const absl::Status& why) {
    Log("error", absl::StrCat("not upgraded: ", std::string(why.message())));
  }

  // Returns where this program goes on after all.
  void Execute() {
    // What the broker was not told yet would be lost.
    if (link_ != nullptr && link_->wants_write()) return;
    execute_ = false;
    NotUpgraded(ExecuteAnew());
    ReplaceBroker();
  }

  absl::Status ExecuteAnew() {
    const KeeperState state = State();
    ZCB_ASSIGN_OR_RETURN(const ipc::UniqueFd file, PackKeeperState(state));
    setenv(kKeeperStateVariable, absl::StrCat(file.get()).c_str(), 1);
    execv(self_.path.c_str(), self_.arguments);
    const int error = errno;
    unsetenv(kKeeperStateVariable);
    SetCloseOnExec(state, true);
    return absl::ErrnoToStatus(error, absl::StrCat("execute ", self_.path));
  }

  KeeperState State() const {
    KeeperState state;
    state.broker = broker_;
    if (link_ != nullptr) state.link = link_->fd().get();
    state.lifeline = lifeline_.get();
    state.started_nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(
                              started_.time_since_epoch())
                              .count();
    if (restart_.has_value()) {
      state.restart_millis = restart_->PollTimeoutMillis();
    }
    state.original_descriptor_limit = limit_.original();
    state.said_stopping = said_stopping_;
    state.may_ask = life_.has_value();
    state.rules = rules_.memory();
    sockets_.ForEach([&](const std::string& name, int fd, bool managers) {
      state.sockets.push_back({name, fd, managers});
    });
    return state;
  }

  // Has it end for a successor. One that is not ready does not know the signal.
  void ReplaceBroker() {
    replace_when_ready_ = broker_ > 0 && !rules_.ready();
    if (broker_ > 0 && rules_.ready()) kill(broker_, SIGUSR2);
  }

  void StartNow() {
    restart_.reset();
    started_ = ipc::MonotonicClock::now();
    const absl::Status started = Start();
    if (started.ok()) return;
    Log("error", started.message());
    OnEnd(BrokerEnd{kCannotStart, absl::nullopt});
  }

  absl::Status Start() {
    ZCB_ASSIGN_OR_RETURN(auto ends, ipc::PacketSocketPair());
    auto link = std::make_unique<ipc::KeeperLink>(std::move(ends.first));
    ZCB_RETURN_IF_ERROR(sockets_.Offer(*link));
    limit_.Restore();
    const absl::StatusOr<pid_t> pid =
        StartBroker(program_, arguments_, ends.second, lifeline_);
    limit_.Raise();
    ZCB_RETURN_IF_ERROR(pid.status());
    broker_ = *pid;
    link_ = std::move(link);
    ready_by_ = ipc::Deadline::After(RestartRules::kReadyWithin);
    return absl::OkStatus();
  }

  // Its clients wait in the backlog meanwhile.
  void EndWhatHangs() {
    ready_by_.reset();
    if (broker_ < 0) return;
    Log("error",
        absl::StrCat("the broker, process ", broker_, ", is not ready after ",
                     absl::FormatDuration(RestartRules::kReadyWithin),
                     "; ending it"));
    kill(broker_, SIGKILL);
  }

  // Only of one that serves, and has said that it may be asked.
  bool LooksForLife() const {
    return life_.has_value() && link_ != nullptr && rules_.ready();
  }

  void LookForLife() {
    if (!LooksForLife()) return;
    const ipc::MonotonicTime now = ipc::MonotonicClock::now();
    if (life_->quiet() && WeWait()) life_->OnWaiting(now);
    if (life_->quiet() || now < *life_->next_look()) return;
    switch (life_->OnTime(now, SomebodyWaits())) {
      case SignOfLife::Next::kNothing:
        return;
      case SignOfLife::Next::kAsk:
        if (!link_->Send({Kind::kAsk, "", false}).ok()) link_.reset();
        return;
      case SignOfLife::Next::kEnd:
        EndWhatIsSilent();
        return;
    }
  }

  // Whatever it had accepted is lost with it; all the others are served again.
  void EndWhatIsSilent() const {
    const absl::StatusOr<ipc::ProcessStat> stat = ipc::ReadProcessStat(broker_);
    const bool held_by_debugger = stat.ok() && stat->state == 't';
    Log("error",
        absl::StrCat(
            "the broker, process ", broker_, ", has given no sign of life for ",
            absl::FormatDuration(SignOfLife::kAcceptsWithin +
                                 SignOfLife::kMaxAsked *
                                     SignOfLife::kAnswersWithin),
            rules_.stopping() ? " while its end is awaited"
            : stopped_        ? " since it was stopped"
                              : " while clients wait",
            "; it is in state ",
            stat.ok() ? std::string(1, stat->state) : "unknown", ", waits in ",
            ipc::WaitChannel(broker_).value_or("unknown"), "; ",
            held_by_debugger ? "a debugger holds it, so it is left"
                             : "ending it"));
    if (!held_by_debugger) kill(broker_, SIGKILL);
  }

  // For its end, or on behalf of clients that it had accepted when it was
  // stopped.
  bool WeWait() const { return rules_.stopping() || stopped_; }

  // A client that is not accepted yet, or has gone again unaccepted; or we.
  bool SomebodyWaits() const {
    if (WeWait()) return true;
    std::vector<pollfd> waited = Listening();
    return poll(waited.data(), waited.size(), 0) > 0;
  }

  std::vector<pollfd> Listening() const {
    std::vector<pollfd> listening;
    sockets_.ForEach([&](const std::string&, int fd, bool) {
      listening.push_back({fd, POLLIN, 0});
    });
    return listening;
  }

  void Wait() {
    const bool clients = LooksForLife() && life_->quiet();
    std::vector<pollfd> waited;
    if (clients) waited = Listening();
    const auto listening = static_cast<std::ptrdiff_t>(waited.size());
    waited.push_back({signals_.get(), POLLIN, 0});
    if (link_ != nullptr) {
      waited.push_back({link_->fd().get(), POLLIN, 0});
      if (link_->wants_write()) waited.back().events |= POLLOUT;
    }
    const absl::optional<ipc::Deadline> until = NextDeadline();
    if (!until.has_value()) ipc::GiveBackCodePages();
    poll(waited.data(), waited.size(),
         until.has_value() ? until->PollTimeoutMillis() : -1);
    const auto has_client = [](const pollfd& one) { return one.revents != 0; };
    if (clients &&
        std::any_of(waited.begin(), waited.begin() + listening, has_client)) {
      life_->OnWaiting(ipc::MonotonicClock::now());
    }
  }

  absl::optional<ipc::Deadline> NextDeadline() const {
    absl::optional<ipc::Deadline> next;
    const auto add = [&](ipc::Deadline deadline) {
      next = next.has_value() ? Sooner(*next, deadline) : deadline;
    };
    if (restart_.has_value()) add(*restart_);
    if (check_.has_value()) add(check_->deadline());
    if (ready_by_.has_value()) add(*ready_by_);
    if (LooksForLife() && !life_->quiet()) {
      add(ipc::Deadline::At(*life_->next_look()));
    }
    return next;
  }

  void ReadSignals() {
    signalfd_siginfo info;
    while (read(signals_.get(), &info, sizeof(info)) ==
           static_cast<ssize_t>(sizeof(info))) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGCHLD) continue;
      if (signal == SIGUSR2) {
        upgrading_ = !rules_.stopping();
        continue;
      }
      if (signal != SIGHUP) {
        upgrading_ = execute_ = false;
        SayStopping();
        rules_.OnStop();
        // Between two brokers there is nobody to wait for.
        if (broker_ < 0) exit_status_ = kOk;
      }
      // Not reaped yet, so the pid is nobody else's.
      if (broker_ > 0) kill(broker_, signal);
    }
  }

  // Everything that ended: the broker, and whatever it left behind, for which
  // we are the subreaper.
  void Reap() {
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0) {
      if (WIFSTOPPED(status) || WIFCONTINUED(status)) {
        if (pid == broker_) stopped_ = WIFSTOPPED(status);
        continue;
      }
      if (check_.has_value() && pid == check_->child()) {
        const absl::Status answer = check_->Judge(status);
        check_.reset();
        (this->*answered_)(answer);
        continue;
      }
      if (pid != broker_) continue;
      // What it said last counts: sockets handed over, that it was ready, or
      // that it has handed over and is the broker no more.
      ReadMessages();
      if (pid != broker_) continue;
      broker_ = -1;
      link_.reset();
      replace_when_ready_ = false;
      OnEnd(EndOf(status));
    }
  }

  void ReadMessages() {
    if (link_ == nullptr) return;
    absl::Status status = link_->Flush();
    while (status.ok()) {
      absl::StatusOr<absl::optional<ipc::KeeperLink::Received>> received =
          link_->Receive();
      status = received.status();
      if (!status.ok() || !received->has_value()) break;
      Obey(**received);
    }
    // It closed its end, or ended; which, its exit will tell.
    if (!status.ok()) link_.reset();
    if (!std::exchange(handed_over_, false)) return;
    // From now on it is a child like any other, and ends by itself.
    broker_ = -1;
    link_.reset();
    replace_when_ready_ = false;
    OnEnd(BrokerEnd{RestartRules::kHandedOver, absl::nullopt});
  }

  void Obey(ipc::KeeperLink::Received& received) {
    const ipc::KeeperMessage& message = received.message;
    switch (message.kind) {
      case Kind::kHold: {
        if (!received.attached) return;
        const absl::Status held =
            sockets_.Hold(message.name, std::move(received.attached),
                          /*from_service_manager=*/false);
        if (!held.ok()) Log("error", held.message());
        return;
      }
      case Kind::kDrop:
        sockets_.Drop(message.name);
        return;
      case Kind::kReady:
        rules_.OnReady();
        ready_by_.reset();
        ipc::NotifyServiceManager("READY=1");
        if (std::exchange(replace_when_ready_, false)) ReplaceBroker();
        return;
      case Kind::kHere:
        if (!life_.has_value()) life_.emplace();
        life_->OnAnswer();
        return;
      case Kind::kHandedOver:
        handed_over_ = true;
        return;
      case Kind::kHeld:
      case Kind::kEndOfHeld:
      case Kind::kAsk:
        return;
    }
  }

  void OnEnd(const BrokerEnd& end) {
    ready_by_.reset();
    life_.reset();
    stopped_ = false;
    const absl::Duration lived =
        absl::FromChrono(ipc::MonotonicClock::now() - started_);
    const KeeperDecision decision = rules_.OnEnd(end, lived);
    if (decision.exit_status.has_value()) {
      SayStopping();
      exit_status_ = decision.exit_status;
      return;
    }
    const bool handed_over = end.exit_status == RestartRules::kHandedOver;
    Log(handed_over ? "info" : "warning",
        absl::StrCat(
            "the broker ", handed_over ? "handed over" : Describe(end),
            " after ",
            absl::FormatDuration(absl::Trunc(lived, absl::Milliseconds(1))),
            "; restart ",
            decision.delay == absl::ZeroDuration()
                ? std::string("at once")
                : absl::StrCat("in ", absl::FormatDuration(decision.delay)),
            ", ", sockets_.size(), " sockets held"));
    if (decision.let_clients_go && sockets_.size() > 0) LetClientsGo();
    restart_ = ipc::Deadline::After(decision.delay);
  }

  // A broker that cannot start would have them wait for ever. With nobody
  // listening they find links, or start what they need. No broker runs, so
  // nobody is about to end, and none can have its names taken.
  void LetClientsGo() {
    Log("error", "no broker becomes ready; closing sockets, clients go direct");
    sockets_.DropOwn();
    CarryOutLastWill(/*looks=*/1);
  }

  void SayStopping() {
    if (!std::exchange(said_stopping_, true)) {
      ipc::NotifyServiceManager("STOPPING=1");
    }
  }

  const OwnProgram self_;
  const std::string program_;
  const std::vector<std::string> arguments_;
  const ipc::UniqueFd signals_;
  // Ours and the broker's; when nobody holds it, the last will is carried out.
  const ipc::UniqueFd lifeline_;
  DescriptorLimit limit_;
  HeldSockets sockets_;
  RestartRules rules_;
  pid_t broker_ = -1;  // -1: none runs
  std::unique_ptr<ipc::KeeperLink> link_;
  ipc::MonotonicTime started_;
  bool said_stopping_ = false;
  // Asked for, and not done yet.
  bool upgrading_ = false;
  // The program at a path is being asked whether it is one of ours.
  absl::optional<SuccessorCheck> check_;
  Answered answered_ = nullptr;
  // It is, and takes our place.
  bool execute_ = false;
  bool replace_when_ready_ = false;
  // Said so just now.
  bool handed_over_ = false;
  absl::optional<ipc::Deadline> restart_;
  // The broker that runs is not ready yet.
  absl::optional<ipc::Deadline> ready_by_;
  // The broker that runs may be asked for a sign of life.
  absl::optional<SignOfLife> life_;
  // By a signal, and not continued.
  bool stopped_ = false;
  absl::optional<int> exit_status_;
};

// Our signals, as bytes to poll for.
absl::StatusOr<ipc::UniqueFd> SignalsAsBytes() {
  sigset_t ours;
  sigemptyset(&ours);
  for (const int signal : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2}) {
    sigaddset(&ours, signal);
  }
  sigprocmask(SIG_BLOCK, &ours, nullptr);
  ipc::UniqueFd fd(signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, "signalfd");
  return fd;
}

int Fail(int code, absl::string_view why) {
  fprintf(stderr, "zcbroker-keeper: %s\n", std::string(why).c_str());
  return code;
}

int GoOn(OwnProgram self, std::string program,
         std::vector<std::string> arguments, const KeeperState& state) {
  HeldSockets sockets;
  for (const KeeperState::Socket& socket : state.sockets) {
    // No more than an earlier self held.
    sockets
        .Hold(socket.name, ipc::UniqueFd(socket.fd),
              socket.from_service_manager)
        .IgnoreError();
  }
  signal(SIGPIPE, SIG_IGN);
  absl::StatusOr<ipc::UniqueFd> signals = SignalsAsBytes();
  if (!signals.ok()) return Fail(kFailure, signals.status().message());
  Keeper keeper(std::move(self), std::move(program), std::move(arguments),
                *std::move(signals), ipc::UniqueFd(state.lifeline),
                std::move(sockets));
  keeper.Resume(state);
  return keeper.Run();
}

int Keep(OwnProgram self, std::string program,
         std::vector<std::string> arguments) {
  const absl::StatusOr<absl::optional<KeeperState>> state = UnpackKeeperState();
  if (!state.ok()) return Fail(kFailure, state.status().message());
  if (state->has_value()) {
    return GoOn(std::move(self), std::move(program), std::move(arguments),
                **state);
  }
  HeldSockets sockets;
  const absl::StatusOr<absl::optional<ipc::Listener>> inherited =
      ipc::InheritedListener();
  if (!inherited.ok()) return Fail(kFailure, inherited.status().message());
  if (inherited->has_value()) {
    absl::StatusOr<ipc::UniqueFd> fd = ipc::Duplicate((*inherited)->fd());
    if (!fd.ok()) return Fail(kFailure, fd.status().message());
    // The first is never refused.
    sockets
        .Hold((*inherited)->endpoint().path(), *std::move(fd),
              /*from_service_manager=*/true)
        .IgnoreError();
  }
  signal(SIGPIPE, SIG_IGN);
  // A broker is one itself; what its death leaves behind falls to us.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  absl::StatusOr<ipc::UniqueFd> lifeline = LeaveLastWill();
  if (!lifeline.ok()) return Fail(kFailure, lifeline.status().message());
  absl::StatusOr<ipc::UniqueFd> signals = SignalsAsBytes();
  if (!signals.ok()) return Fail(kFailure, signals.status().message());
  return Keeper(std::move(self), std::move(program), std::move(arguments),
                *std::move(signals), *std::move(lifeline), std::move(sockets))
      .Run();
}

int Main(int argc, char** argv) {
  enum { kBroker = 1, kHelpAsked, kVersionAsked, kKnowsStateAsked };
  static const option kOptions[] = {
      {"broker", required_argument, nullptr, kBroker},
      {"help", no_argument, nullptr, kHelpAsked},
      {"version", no_argument, nullptr, kVersionAsked},
      {kKnowsState + 2, required_argument, nullptr, kKnowsStateAsked},
      {nullptr, 0, nullptr, 0},
  };
  std::string program;
  opterr = 0;
  int rest = 1;
  // The colon tells a missing argument from an option that is zcbrokerd's.
  for (int found;
       (found = getopt_long(argc, argv, "+:", kOptions, nullptr)) != -1;) {
    if (found == kHelpAsked) return fputs(kHelp, stdout) < 0 ? kFailure : kOk;
    if (found == kVersionAsked) {
      printf("zcbroker-keeper %s\n", kVersion);
      return kOk;
    }
    if (found == kKnowsStateAsked) {
      if (absl::StrCat(kKeeperStateFormat) != optarg) return kFailure;
      return fputs(kKnowsStateAnswer, stdout) < 0 ? kFailure : kOk;
    }
    if (found == ':') return Fail(kUsage, "--broker needs a path");
    if (found == '?') break;
    program = optarg;
    rest = optind;
  }
  std::vector<std::string> arguments(argv + rest, argv + argc);
  if (!arguments.empty() && arguments[0] == "--") {
    arguments.erase(arguments.begin());
  }
  if (program.empty()) {
    absl::StatusOr<std::string> beside = FindBroker();
    if (!beside.ok()) return Fail(kFailure, beside.status().message());
    program = *std::move(beside);
  }
  // An absolute name may be a link that leads to another version by then.
  absl::StatusOr<std::string> self = OwnPath();
  if (argv[0][0] == '/') self = argv[0];
  if (!self.ok()) return Fail(kFailure, self.status().message());
  return Keep({*std::move(self), argv}, std::move(program),
              std::move(arguments));
}

}  // namespace
}  // namespace zcbroker::service

int main(int argc, char** argv) { return zcbroker::service::Main(argc, argv); }
