#include "client/cli/broker_program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/deadline.h"
#include "ipc/exec_words.h"
#include "ipc/process.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"

namespace zcbroker::cli {
namespace {

constexpr size_t kTailLines = 10;

struct SpawnOptions {
  std::string program;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  int stdout_fd = -1;
  int stderr_fd = -1;
  bool own_session = false;
};

absl::StatusOr<pid_t> Spawn(const SpawnOptions& options) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, options.stdout_fd, 1);
  posix_spawn_file_actions_adddup2(&actions, options.stderr_fd, 2);
  // A lock or a jobserver of the caller must not live on in a daemon.
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  if (options.own_session) {
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  }
  std::vector<std::string> words{options.program};
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  pid_t pid = -1;
  const int error = posix_spawn(&pid, options.program.c_str(), &actions,
                                &attributes, ipc::ExecWords(words).data(),
                                ipc::ExecWords(options.environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("start ", options.program));
  }
  return pid;
}

std::vector<std::string> Environment() {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!absl::StartsWith(*entry, "NOTIFY_SOCKET=")) all.emplace_back(*entry);
  }
  return all;
}

// A datagram socket with a name that nobody guesses by chance.
absl::StatusOr<std::pair<ipc::UniqueFd, std::string>> NotifySocket() {
  ipc::UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::random_device random;
  const std::string name =
      absl::StrCat("@zcbroker-up-", getpid(), "-", absl::Hex(random()));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, name.data(), name.size());
  address.sun_path[0] = '\0';
  if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                  static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                         name.size())) != 0) {
    return absl::ErrnoToStatus(errno, "make a notification socket");
  }
  return std::make_pair(std::move(fd), name);
}

std::string HowItEnded(int status) {
  if (WIFEXITED(status)) {
    return absl::StrCat("exited with status ", WEXITSTATUS(status));
  }
  return absl::StrCat("was ended by signal ", WTERMSIG(status));
}

// A line of the broker's log as a person reads it.
std::string AsText(absl::string_view line) {
  google::protobuf::Struct object;
  if (!google::protobuf::util::JsonStringToMessage(std::string(line), &object)
           .ok()) {
    return std::string(line);
  }
  const auto text = [&](const char* field) {
    const auto found = object.fields().find(field);
    return found != object.fields().end() ? found->second.string_value() : "";
  };
  return absl::StrCat(text("level"), " ", text("message"));
}

// What came into `file` after `from`, of which the last lines.
std::string TailOf(const std::string& file, off_t from) {
  const ipc::UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status;
  if (!fd || fstat(fd.get(), &status) != 0) return "";
  char buffer[4096];
  const off_t size = static_cast<off_t>(sizeof(buffer));
  const ssize_t n = pread(fd.get(), buffer, sizeof(buffer),
                          std::max(from, status.st_size - size));
  std::vector<std::string> lines = absl::StrSplit(
      absl::string_view(buffer, n > 0 ? static_cast<size_t>(n) : 0), '\n',
      absl::SkipWhitespace());
  if (lines.size() > kTailLines) {
    lines.erase(lines.begin(), lines.end() - kTailLines);
  }
  for (std::string& line : lines) line = AsText(line);
  return absl::StrJoin(lines, "\n  ");
}

// Beside this program, where Bazel builds it (`package`), or on PATH.
absl::StatusOr<std::string> FindProgram(absl::string_view name,
                                        absl::string_view package) {
  char self[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof(self));
  std::vector<std::string> candidates;
  if (n > 0) {
    const std::string path(self, static_cast<size_t>(n));
    const std::string directory = path.substr(0, path.rfind('/'));
    candidates.push_back(absl::StrCat(directory, "/", name));
    // In Bazel's tree each program has its package's directory.
    if (absl::StrContains(directory, "/bazel-out/")) {
      candidates.push_back(
          absl::StrCat(directory, "/../../", package, "/", name));
    }
  }
  const char* search = getenv("PATH");
  for (const absl::string_view directory :
       absl::StrSplit(search != nullptr ? search : "", ':')) {
    if (!directory.empty()) {
      candidates.push_back(absl::StrCat(directory, "/", name));
    }
  }
  for (const std::string& candidate : candidates) {
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::NotFoundError(
      absl::StrCat("there is no ", name, " beside this program or on PATH"));
}

}  // namespace

absl::StatusOr<std::string> FindBrokerProgram() {
  return FindProgram("zcbrokerd", "service");
}

absl::StatusOr<std::string> FindKeeperProgram() {
  return FindProgram("zcbroker-keeper", "service/keeper");
}

absl::StatusOr<StartedBroker> StartBroker(
    const std::string& program, const std::vector<std::string>& arguments,
    const std::string& log_file, absl::Duration patience) {
  const ipc::UniqueFd log(
      open(log_file.c_str(),
           O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!log) {
    return absl::ErrnoToStatus(errno, absl::StrCat("open log ", log_file));
  }
  // Earlier brokers wrote there, too.
  struct stat before {};
  fstat(log.get(), &before);
  ZCB_ASSIGN_OR_RETURN(const auto notify, NotifySocket());
  SpawnOptions options;
  options.program = program;
  options.arguments = arguments;
  options.environment = Environment();
  options.environment.push_back(absl::StrCat("NOTIFY_SOCKET=", notify.second));
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  options.own_session = true;
  ZCB_ASSIGN_OR_RETURN(const pid_t pid, Spawn(options));
  ZCB_ASSIGN_OR_RETURN(const ipc::ProcessIdentity identity,
                       ipc::IdentifyProcess(pid));
  const absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(identity);
  const ipc::Deadline deadline = ipc::Deadline::After(patience);
  while (true) {
    pollfd waited[2] = {{notify.first.get(), POLLIN, 0},
                        {handle.ok() ? handle->get() : -1, POLLIN, 0}};
    const int ready = poll(waited, 2, deadline.PollTimeoutMillis());
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      return absl::DeadlineExceededError(
          absl::StrCat("the broker (process ", pid,
                       ") did not become ready; its log: ", log_file));
    }
    if (waited[0].revents != 0) {
      char message[256];
      const ssize_t n =
          recv(notify.first.get(), message, sizeof(message), MSG_DONTWAIT);
      if (n > 0 &&
          absl::StrContains(absl::string_view(message, static_cast<size_t>(n)),
                            "READY=1")) {
        return StartedBroker{pid};
      }
      continue;
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return absl::FailedPreconditionError(
        absl::StrCat("the broker ", HowItEnded(status), ":\n  ",
                     TailOf(log_file, before.st_size)));
  }
}

absl::StatusOr<std::string> OutputOf(
    const std::string& program, const std::vector<std::string>& arguments) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const ipc::UniqueFd read_end(ends[0]);
  ipc::UniqueFd write_end(ends[1]);
  SpawnOptions options;
  options.program = program;
  options.arguments = arguments;
  options.environment = Environment();
  options.stdout_fd = write_end.get();
  options.stderr_fd = 2;
  ZCB_ASSIGN_OR_RETURN(const pid_t pid, Spawn(options));
  write_end.reset();
  std::string output;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(read_end.get(), buffer, sizeof(buffer))) > 0 ||
         (n < 0 && errno == EINTR)) {
    if (n > 0) output.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
    return absl::FailedPreconditionError(
        absl::StrCat(program, " ", HowItEnded(status)));
  }
  return output;
}

absl::Status AwaitEnd(int pid, absl::Duration patience) {
  const absl::StatusOr<ipc::ProcessIdentity> identity =
      ipc::IdentifyProcess(pid);
  if (!identity.ok()) return absl::OkStatus();
  const absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(*identity);
  if (!handle.ok()) return absl::OkStatus();
  const ipc::Deadline deadline = ipc::Deadline::After(patience);
  pollfd waited{handle->get(), POLLIN, 0};
  while (poll(&waited, 1, deadline.PollTimeoutMillis()) <= 0) {
    if (deadline.Expired()) {
      return absl::DeadlineExceededError(
          absl::StrCat("process ", pid, " did not end"));
    }
  }
  return absl::OkStatus();
}

}  // namespace zcbroker::cli
