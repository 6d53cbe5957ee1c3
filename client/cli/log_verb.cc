// logs: what backends have printed.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/cli/bring_up.h"
#include "client/cli/exit_status.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "ipc/names.h"
#include "ipc/unique_fd.h"
#include "ipc/wire/utf8.h"

namespace zcbroker::cli {
namespace {

// A line that is longer comes in pieces.
constexpr size_t kMaxLineBytes = 64 << 10;

struct LogFile {
  std::string path;
  std::string version;
};

// Those of a service's backends, of other worlds among them: a version has one
// in each.
std::vector<LogFile> LogsOf(const Target& target) {
  std::vector<LogFile> logs;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(LogDirectory(), error)) {
    const std::string name = entry.path().filename();
    absl::string_view version = name;
    if (absl::ConsumePrefix(&version, absl::StrCat(target.service, "-")) &&
        absl::ConsumeSuffix(&version, ".log") &&
        (target.version.empty() ? ipc::CheckVersion(version).ok()
                                : version == target.version)) {
      logs.push_back({entry.path(), std::string(version)});
    }
  }
  std::sort(logs.begin(), logs.end(),
            [](const LogFile& a, const LogFile& b) { return a.path < b.path; });
  return logs;
}

// tail(1) of files: it knows how to wait for what is written, and what is
// renamed.
std::vector<std::string> TailCommand(const LogOptions& options) {
  std::vector<std::string> words = {"tail", "-n", absl::StrCat(options.lines)};
  if (options.follow) words.emplace_back("-F");
  return words;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

int BecomeTail(const std::vector<LogFile>& logs, const LogOptions& options) {
  std::vector<std::string> words = TailCommand(options);
  for (const LogFile& log : logs) words.push_back(log.path);
  execvp("tail", Pointers(words).data());
  fprintf(stderr, "zcbroker: cannot run tail: %s; the log is %s\n",
          strerror(errno), logs[0].path.c_str());
  return kExitFailure;
}

// One file's lines, from a tail(1) of its own, so that each is known to be of
// that file. The process is ended with this.
class Tail {
 public:
  // Errors by errno: no pipe, no process, no tail.
  static absl::StatusOr<std::unique_ptr<Tail>> Start(
      const std::string& service, const LogFile& log,
      const LogOptions& options) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
      return absl::ErrnoToStatus(errno, "cannot make a pipe");
    }
    std::unique_ptr<Tail> tail(new Tail(ipc::UniqueFd(ends[0])));
    const ipc::UniqueFd written(ends[1]);
    tail->line_.set_service(service);
    tail->line_.set_version(log.version);
    tail->line_.set_log_file(log.path);
    std::vector<std::string> words = TailCommand(options);
    // It must not follow for nobody where we are killed.
    if (options.follow) words.push_back(absl::StrCat("--pid=", getpid()));
    words.push_back(log.path);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, written.get(), STDOUT_FILENO);
    pid_t pid = -1;
    const int error = posix_spawnp(&pid, "tail", &actions, /*attrp=*/nullptr,
                                   Pointers(words).data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return absl::ErrnoToStatus(error, "cannot run tail");
    tail->pid_ = pid;
    return tail;
  }
  Tail(const Tail&) = delete;
  Tail& operator=(const Tail&) = delete;
  ~Tail() {
    if (pid_ < 0) return;
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
  }

  // Negative once all is read.
  int fd() const { return fd_.get(); }

  // Prints the lines that have come, and at the end the rest.
  void Print() {
    char buffer[16 << 10];
    const ssize_t n = read(fd_.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) return;
    for (ssize_t i = 0; i < n; ++i) {
      if (buffer[i] != '\n') text_.push_back(buffer[i]);
      if (buffer[i] == '\n' || text_.size() == kMaxLineBytes) PrintLine();
    }
    if (n > 0) return;
    fd_.reset();
    if (!text_.empty()) PrintLine();
  }

 private:
  explicit Tail(ipc::UniqueFd fd) : fd_(std::move(fd)) {}

  void PrintLine() {
    line_.set_text(
        ipc::IsUtf8(text_) ? text_ : ipc::Printable(text_, 4 * kMaxLineBytes));
    PrintJson(line_);
    text_.clear();
  }

  ipc::UniqueFd fd_;
  pid_t pid_ = -1;
  LogLine line_;
  std::string text_;  // of a line that has not ended yet
};

int PrintLines(const Target& target, const std::vector<LogFile>& logs,
               const LogOptions& options) {
  std::vector<std::unique_ptr<Tail>> tails;
  for (const LogFile& log : logs) {
    auto tail = Tail::Start(target.service, log, options);
    if (!tail.ok()) return PrintFailure(Format::kJson, tail.status());
    tails.push_back(*std::move(tail));
  }
  while (true) {
    std::vector<pollfd> waited;
    for (const auto& tail : tails) waited.push_back({tail->fd(), POLLIN, 0});
    if (std::all_of(waited.begin(), waited.end(),
                    [](const pollfd& one) { return one.fd < 0; })) {
      return kExitOk;
    }
    if (poll(waited.data(), waited.size(), -1) < 0) continue;
    for (size_t i = 0; i < tails.size(); ++i) {
      if (waited[i].revents != 0) tails[i]->Print();
    }
    // Nobody reads it any more.
    if (fflush(stdout) != 0) return kExitOk;
  }
}

}  // namespace

int Logs(Format format, const Target& target, const LogOptions& options) {
  const std::vector<LogFile> logs = LogsOf(target);
  if (logs.empty()) {
    return PrintFailure(format, absl::NotFoundError(absl::StrCat(
                                    "no log of ", target.service,
                                    target.version.empty() ? "" : " ",
                                    target.version, " in ", LogDirectory())));
  }
  return format == Format::kJson ? PrintLines(target, logs, options)
                                 : BecomeTail(logs, options);
}

}  // namespace zcbroker::cli
