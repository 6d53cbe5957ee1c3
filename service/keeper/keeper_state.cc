#include "service/keeper/keeper_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "ipc/status_macros.h"

namespace zcbroker::service {
namespace {

constexpr char kTitle[] = "zcbroker-keeper";
constexpr size_t kFields = 13;
constexpr off_t kMaxBytes = off_t{1} << 20;

absl::Status Damaged() {
  return absl::InvalidArgumentError(
      "the state of an earlier keeper makes no sense to this one");
}

template <typename Number>
bool Parse(absl::string_view text, Number* number) {
  return absl::SimpleAtoi(text, number);
}

bool Parse(absl::string_view text, bool* flag) {
  *flag = text == "1";
  return text == "0" || text == "1";
}

}  // namespace

std::string EncodeKeeperState(const KeeperState& state) {
  const RestartRules::Memory& rules = state.rules;
  std::string text = absl::StrCat(kTitle, " ", kKeeperStateFormat, "\n");
  absl::StrAppend(&text, state.broker, " ", state.link, " ", state.lifeline,
                  " ", state.started_nanos, " ",
                  state.restart_millis.value_or(-1), " ",
                  state.original_descriptor_limit, " ");
  absl::StrAppend(
      &text, static_cast<int>(state.said_stopping), " ",
      static_cast<int>(rules.ever_ready), " ", static_cast<int>(rules.ready),
      " ", static_cast<int>(rules.stopping), " ", rules.already_running, " ",
      rules.short_lives, " ", static_cast<int>(state.may_ask), "\n");
  for (const KeeperState::Socket& socket : state.sockets) {
    absl::StrAppend(&text, socket.fd, " ",
                    static_cast<int>(socket.from_service_manager), " ",
                    absl::CEscape(socket.name), "\n");
  }
  return text;
}

absl::StatusOr<KeeperState> DecodeKeeperState(absl::string_view text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines.size() < 3 || !lines.back().empty() ||
      lines[0] != absl::StrCat(kTitle, " ", kKeeperStateFormat)) {
    return Damaged();
  }
  lines.pop_back();
  const std::vector<absl::string_view> fields = absl::StrSplit(lines[1], ' ');
  if (fields.size() != kFields) return Damaged();
  KeeperState state;
  int64_t restart = -1;
  if (!Parse(fields[0], &state.broker) || !Parse(fields[1], &state.link) ||
      !Parse(fields[2], &state.lifeline) ||
      !Parse(fields[3], &state.started_nanos) || !Parse(fields[4], &restart) ||
      !Parse(fields[5], &state.original_descriptor_limit) ||
      !Parse(fields[6], &state.said_stopping) ||
      !Parse(fields[7], &state.rules.ever_ready) ||
      !Parse(fields[8], &state.rules.ready) ||
      !Parse(fields[9], &state.rules.stopping) ||
      !Parse(fields[10], &state.rules.already_running) ||
      !Parse(fields[11], &state.rules.short_lives) ||
      !Parse(fields[12], &state.may_ask)) {
    return Damaged();
  }
  if (restart >= 0) state.restart_millis = restart;
  for (size_t i = 2; i < lines.size(); ++i) {
    const std::vector<absl::string_view> parts =
        absl::StrSplit(lines[i], absl::MaxSplits(' ', 2));
    KeeperState::Socket socket;
    if (parts.size() != 3 || !Parse(parts[0], &socket.fd) ||
        !Parse(parts[1], &socket.from_service_manager) ||
        !absl::CUnescape(parts[2], &socket.name)) {
      return Damaged();
    }
    state.sockets.push_back(std::move(socket));
  }
  return state;
}

void SetCloseOnExec(const KeeperState& state, bool close_on_exec) {
  const int flags = close_on_exec ? FD_CLOEXEC : 0;
  for (const int fd : {state.link, state.lifeline}) {
    if (fd >= 0) fcntl(fd, F_SETFD, flags);
  }
  for (const KeeperState::Socket& socket : state.sockets) {
    fcntl(socket.fd, F_SETFD, flags);
  }
}

absl::StatusOr<ipc::UniqueFd> PackKeeperState(const KeeperState& state) {
  ipc::UniqueFd file(memfd_create("zcbroker-keeper", 0));
  if (!file) return absl::ErrnoToStatus(errno, "memfd_create");
  const std::string text = EncodeKeeperState(state);
  const ssize_t n = pwrite(file.get(), text.data(), text.size(), 0);
  if (n != static_cast<ssize_t>(text.size())) {
    return absl::ErrnoToStatus(n < 0 ? errno : ENOSPC, "write to memory");
  }
  SetCloseOnExec(state, false);
  return file;
}

absl::StatusOr<absl::optional<KeeperState>> UnpackKeeperState() {
  const char* variable = getenv(kKeeperStateVariable);
  if (variable == nullptr) return absl::optional<KeeperState>();
  int number = -1;
  const bool parsed = absl::SimpleAtoi(variable, &number);
  unsetenv(kKeeperStateVariable);
  if (!parsed || number <= STDERR_FILENO) return Damaged();
  const ipc::UniqueFd file(number);
  struct stat status;
  if (fstat(file.get(), &status) != 0 || status.st_size > kMaxBytes) {
    return Damaged();
  }
  std::string text(static_cast<size_t>(status.st_size), '\0');
  if (pread(file.get(), &text[0], text.size(), 0) != status.st_size) {
    return Damaged();
  }
  ZCB_ASSIGN_OR_RETURN(KeeperState state, DecodeKeeperState(text));
  SetCloseOnExec(state, true);
  return absl::optional<KeeperState>(std::move(state));
}

}  // namespace zcbroker::service
