#include "ipc/process.h"

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

// Places in the text after the name, counted from the state (field 3).
enum Field : std::size_t {
  kState = 0,
  kParent = 1,
  kGroup = 2,
  kSession = 3,
  kFlags = 6,
  kUserTime = 11,
  kSystemTime = 12,
  kThreads = 17,
  kStartTime = 19,
};

// PF_EXITING of the kernel's task flags.
constexpr std::uint64_t kExitingFlag = 0x4;

}  // namespace

absl::StatusOr<ProcessStat> ParseProcessStat(absl::string_view text) {
  const absl::Status malformed =
      absl::DataLossError("process status is not of the form we know");
  const std::size_t open = text.find('(');
  const std::size_t close = text.rfind(')');
  if (open == absl::string_view::npos || close == absl::string_view::npos ||
      close < open) {
    return malformed;
  }
  const std::vector<absl::string_view> fields = absl::StrSplit(
      text.substr(close + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  if (fields.size() <= kStartTime || fields[kState].size() != 1) {
    return malformed;
  }
  ProcessStat stat;
  stat.name = std::string(text.substr(open + 1, close - open - 1));
  stat.state = fields[kState][0];
  std::uint64_t user = 0;
  std::uint64_t system = 0;
  std::uint64_t flags = 0;
  if (!absl::SimpleAtoi(text.substr(0, open), &stat.pid) ||
      !absl::SimpleAtoi(fields[kParent], &stat.parent) ||
      !absl::SimpleAtoi(fields[kGroup], &stat.group) ||
      !absl::SimpleAtoi(fields[kSession], &stat.session) ||
      !absl::SimpleAtoi(fields[kUserTime], &user) ||
      !absl::SimpleAtoi(fields[kSystemTime], &system) ||
      !absl::SimpleAtoi(fields[kFlags], &flags) ||
      !absl::SimpleAtoi(fields[kThreads], &stat.threads) ||
      !absl::SimpleAtoi(fields[kStartTime], &stat.start_time)) {
    return malformed;
  }
  stat.cpu_ticks = user + system;
  stat.exiting = (flags & kExitingFlag) != 0;
  return stat;
}

absl::StatusOr<std::string> ProgramName(int pid) {
  ZCB_ASSIGN_OR_RETURN(const std::string path, ExecutablePath(pid));
  const absl::string_view there = absl::StripSuffix(path, " (deleted)");
  return std::string(there.substr(there.rfind('/') + 1));
}

bool RunsProgram(int pid, absl::string_view name) {
  const absl::StatusOr<std::string> program = ProgramName(pid);
  return program.ok() && *program == name;
}

}  // namespace zcbroker::ipc
