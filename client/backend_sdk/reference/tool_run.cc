#include "client/backend_sdk/reference/tool_run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "ipc/exec_words.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {
namespace {

using ipc::UniqueFd;

absl::StatusOr<UniqueFd> MemoryFile(const char* name,
                                    absl::string_view content) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC));
  if (!fd) return absl::ErrnoToStatus(errno, "memfd_create");
  while (!content.empty()) {
    const ssize_t n = write(fd.get(), content.data(), content.size());
    if (n < 0) return absl::ErrnoToStatus(errno, "write to a memory file");
    content.remove_prefix(n);
  }
  if (lseek(fd.get(), 0, SEEK_SET) < 0) {
    return absl::ErrnoToStatus(errno, "rewind a memory file");
  }
  return fd;
}

absl::StatusOr<std::string> ReadBack(const UniqueFd& fd) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0) {
    return absl::ErrnoToStatus(errno, "fstat of a memory file");
  }
  std::string content(status.st_size, '\0');
  size_t have = 0;
  while (have < content.size()) {
    const ssize_t n = pread(fd.get(), &content[have], content.size() - have,
                            static_cast<off_t>(have));
    if (n < 0) return absl::ErrnoToStatus(errno, "read a memory file");
    if (n == 0) break;
    have += n;
  }
  content.resize(have);
  return content;
}

// The environment as "NAME=value" strings.
std::vector<std::string> EnvironmentOf(const ToolCommand& command) {
  std::vector<std::string> entries;
  if (command.env) {
    for (const auto& [name, value] : *command.env) {
      entries.push_back(absl::StrCat(name, "=", value));
    }
  } else {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      entries.emplace_back(*entry);
    }
  }
  std::vector<std::string> kept;
  for (std::string& entry : entries) {
    if (absl::StartsWith(entry, "MAKEFLAGS=") ||
        absl::StartsWith(entry, "CARGO_MAKEFLAGS=")) {
      continue;
    }
    kept.push_back(std::move(entry));
  }
  return kept;
}

std::string Lookup(const ToolCommand& command,
                   const std::vector<std::string>& environment) {
  if (absl::StrContains(command.tool, '/')) return command.tool;
  absl::string_view path = "/usr/local/bin:/usr/bin:/bin";
  for (absl::string_view entry : environment) {
    if (absl::StartsWith(entry, "PATH=")) path = entry.substr(5);
  }
  for (absl::string_view dir : absl::StrSplit(path, ':')) {
    std::string file =
        dir.empty() ? command.tool : absl::StrCat(dir, "/", command.tool);
    // Relative entries of PATH are relative to where the tool runs.
    std::string from_here =
        file[0] == '/' ? file : absl::StrCat(command.cwd, "/", file);
    if (access(from_here.c_str(), X_OK) == 0) return from_here;
  }
  return absl::StrCat("/nonexistent/", command.tool);
}

// posix_spawn's two opaque arguments, given back when the object ends.
class SpawnSetup {
 public:
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

absl::StatusOr<pid_t> Spawn(const ToolCommand& command, const UniqueFd& in,
                            const UniqueFd& out, const UniqueFd& err) {
  const std::vector<std::string> environment = EnvironmentOf(command);
  const std::string file = Lookup(command, environment);
  std::vector<std::string> argv = {command.tool};
  argv.insert(argv.end(), command.args.begin(), command.args.end());

  SpawnSetup setup;
  posix_spawn_file_actions_adddup2(&setup.actions, in.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&setup.actions, out.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&setup.actions, err.get(), STDERR_FILENO);
  posix_spawn_file_actions_addchdir_np(&setup.actions, command.cwd.c_str());
  // Our threads block the stop signals, and SIGPIPE is ignored here.
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigmask(&setup.attributes, &none);
  posix_spawnattr_setsigdefault(&setup.attributes, &defaults);
  posix_spawnattr_setflags(&setup.attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  pid_t pid;
  const int error = posix_spawn(&pid, file.c_str(), &setup.actions,
                                &setup.attributes, ipc::ExecWords(argv).data(),
                                ipc::ExecWords(environment).data());
  if (error == 0) return pid;
  return absl::ErrnoToStatus(
      error, absl::StrCat("run ", command.tool, " in ", command.cwd));
}

}  // namespace

absl::StatusOr<ToolResult> RunTool(const ToolCommand& command) {
  ZCB_ASSIGN_OR_RETURN(const UniqueFd in,
                       MemoryFile("stdin", command.stdin_data));
  ZCB_ASSIGN_OR_RETURN(const UniqueFd out, MemoryFile("stdout", ""));
  ZCB_ASSIGN_OR_RETURN(const UniqueFd err, MemoryFile("stderr", ""));
  ZCB_ASSIGN_OR_RETURN(const pid_t pid, Spawn(command, in, out, err));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return absl::ErrnoToStatus(errno, "waitpid");
  }
  ToolResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ZCB_ASSIGN_OR_RETURN(result.stdout_data, ReadBack(out));
  ZCB_ASSIGN_OR_RETURN(result.stderr_data, ReadBack(err));
  return result;
}

}  // namespace zcbroker::client
