// logs: what backends have printed.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/cli/bring_up.h"
#include "client/cli/exit_status.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "ipc/escape.h"
#include "ipc/exec_words.h"
#include "ipc/names.h"
#include "ipc/unique_fd.h"

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
  std::filesystem::recursive_directory_iterator entry(
      LogDirectory(),
      std::filesystem::directory_options::skip_permission_denied, error);
  for (; entry != std::filesystem::recursive_directory_iterator();
       entry.increment(error)) {
    const std::string name = entry->path().filename();
    absl::string_view version = name;
    if (absl::ConsumePrefix(&version, absl::StrCat(target.service, "-")) &&
        absl::ConsumeSuffix(&version, ".log") &&
        (target.version.empty() ? ipc::CheckVersion(version).ok()
                                : version == target.version)) {
      logs.push_back({entry->path(), std::string(version)});
    }
  }
  std::sort(logs.begin(), logs.end(),
            [](const LogFile& a, const LogFile& b) { return a.path < b.path; });
  return logs;
}

// Where the escape sequence that begins at `begin` ends: after its last byte,
// or with the text. ECMA-48 and ECMA-35: CSI sequences, those with a string,
// and others, whose last byte follows any number of intermediate ones.
size_t EndOfSequence(absl::string_view text, size_t begin) {
  size_t at = begin + 1;
  if (at == text.size()) return at;
  const char kind = text[at];
  if (absl::StrContains("]PX^_", std::string(1, kind))) {
    while (at < text.size() && text[at] != '\a' && text[at] != '\x1b') ++at;
    const bool terminated = at + 1 < text.size() && text[at] == '\x1b';
    return std::min(at + (terminated ? 2 : 1), text.size());
  }
  const char last = kind == '[' ? 0x40 : 0x30;
  if (kind == '[') ++at;
  while (at < text.size() && text[at] >= 0x20 && text[at] < last) ++at;
  return std::min(at + 1, text.size());
}

// `line` without what a terminal would obey: colours and the like are left
// out, control characters but tabs are \xNN.
std::string Plain(absl::string_view line) {
  std::string text;
  for (size_t i = 0; i < line.size();) {
    if (line[i] == '\x1b') {
      i = EndOfSequence(line, i);
    } else {
      text.push_back(line[i++]);
    }
  }
  return ipc::EscapeAllBut('\t', text);
}

// One file's lines, from a tail(1) of its own, so that each is known to be of
// that file. It knows how to wait for what is written, and what is renamed. The
// process is ended with this.
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
    std::vector<std::string> words = {"tail", "-n",
                                      absl::StrCat(options.lines)};
    if (options.follow) {
      words.emplace_back("-F");
      // It must not follow for nobody where we are killed.
      words.push_back(absl::StrCat("--pid=", getpid()));
    }
    words.push_back(log.path);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, written.get(), STDOUT_FILENO);
    pid_t pid = -1;
    const int error = posix_spawnp(&pid, "tail", &actions, /*attrp=*/nullptr,
                                   ipc::ExecWords(words).data(), environ);
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

  // Calls `print` with each line that has come, and at the end with the rest.
  void Read(const std::function<void(const LogLine&)>& print) {
    char buffer[16 << 10];
    const ssize_t n = read(fd_.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) return;
    for (ssize_t i = 0; i < n; ++i) Take(buffer[i], print);
    if (n > 0) return;
    fd_.reset();
    if (!text_.empty()) Print(print);
  }

  // After all is read: whether tail(1) had nothing to complain of.
  bool EndedWell() {
    int status = 0;
    return waitpid(std::exchange(pid_, -1), &status, 0) > 0 &&
           WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  explicit Tail(ipc::UniqueFd fd) : fd_(std::move(fd)) {}

  void Take(char c, const std::function<void(const LogLine&)>& print) {
    if (c == '\n') {
      Print(print);
      return;
    }
    // A character is not cut; bytes that are none may be.
    const bool begins = (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    if (text_.size() >= kMaxLineBytes &&
        (begins || text_.size() >= kMaxLineBytes + 3)) {
      Print(print);
    }
    text_.push_back(c);
  }

  void Print(const std::function<void(const LogLine&)>& print) {
    line_.set_text(Plain(text_));
    text_.clear();
    print(line_);
  }

  ipc::UniqueFd fd_;
  pid_t pid_ = -1;
  LogLine line_;
  std::string text_;  // of a line that has not ended yet
};

// Each line as it is asked for; as text, those of several files under headings.
class Printer {
 public:
  Printer(Format format, bool headings)
      : format_(format), headings_(headings) {}

  void operator()(const LogLine& line) {
    if (format_ == Format::kJson) {
      PrintJson(line);
      return;
    }
    if (headings_ && line.log_file() != heading_) {
      printf("%s==> %s <==\n", heading_.empty() ? "" : "\n",
             line.log_file().c_str());
      heading_ = line.log_file();
    }
    printf("%s\n", line.text().c_str());
  }

 private:
  const Format format_;
  const bool headings_;
  std::string heading_;
};

int PrintLines(Format format, const Target& target,
               const std::vector<LogFile>& logs, const LogOptions& options) {
  std::vector<std::unique_ptr<Tail>> tails;
  for (const LogFile& log : logs) {
    auto tail = Tail::Start(target.service, log, options);
    if (!tail.ok()) return PrintFailure(format, tail.status());
    tails.push_back(*std::move(tail));
  }
  Printer printer(format, tails.size() > 1);
  const auto print = [&](const LogLine& line) { printer(line); };
  while (true) {
    std::vector<pollfd> waited;
    for (const auto& tail : tails) waited.push_back({tail->fd(), POLLIN, 0});
    if (std::all_of(waited.begin(), waited.end(),
                    [](const pollfd& one) { return one.fd < 0; })) {
      break;
    }
    // Tells only that nobody reads it any more.
    waited.push_back({STDOUT_FILENO, 0, 0});
    if (poll(waited.data(), waited.size(), -1) < 0) continue;
    if (waited.back().revents != 0) return kExitOk;
    for (size_t i = 0; i < tails.size(); ++i) {
      if (waited[i].revents != 0) tails[i]->Read(print);
    }
    if (fflush(stdout) != 0) return kExitOk;
  }
  bool well = true;
  for (const auto& tail : tails) well = tail->EndedWell() && well;
  if (well) return kExitOk;
  // It has said itself what.
  return PrintFailure(format, absl::UnknownError("tail could not read all"));
}

}  // namespace

int Logs(Format format, const Target& target, const LogOptions& options) {
  if (const absl::Status named = ipc::CheckServiceName(target.service);
      !named.ok()) {
    PrintFailure(format, named);
    return kExitUsage;
  }
  const std::vector<LogFile> logs = LogsOf(target);
  if (logs.empty()) {
    return PrintFailure(
        format, absl::NotFoundError(absl::StrCat(
                    "no log of ", target.service,
                    target.version.empty() ? "" : " ", target.version, " in ",
                    LogDirectory(), "; services: zcbroker service list")));
  }
  return PrintLines(format, target, logs, options);
}

}  // namespace zcbroker::cli
