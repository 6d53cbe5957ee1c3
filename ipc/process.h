// Processes by what makes them one: a pid, when it started, and the boot it
// belongs to. A bare pid may be another process by the time it is used; nothing
// here signals or judges a process by its pid alone.
#ifndef ZCBROKER_IPC_PROCESS_H_
#define ZCBROKER_IPC_PROCESS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

struct ProcessIdentity {
  int pid = 0;
  // Clock ticks since boot, field 22 of /proc/<pid>/stat.
  std::uint64_t start_time = 0;
  std::string boot_id;

  friend bool operator==(const ProcessIdentity& a, const ProcessIdentity& b) {
    return a.pid == b.pid && a.start_time == b.start_time &&
           a.boot_id == b.boot_id;
  }
  friend bool operator!=(const ProcessIdentity& a, const ProcessIdentity& b) {
    return !(a == b);
  }
};

// What /proc/<pid>/stat says.
struct ProcessStat {
  int pid = 0;
  std::string name;  // of the executable, up to 15 bytes; any bytes
  char state = '?';  // 'R', 'S', 'D', 'Z' (zombie), 'T' (stopped), ...
  int parent = 0;
  int group = 0;
  int session = 0;
  std::uint64_t cpu_ticks = 0;  // user and system time used so far
  std::uint64_t start_time = 0;
  int threads = 0;
  // It is past the point where its descriptors are closed, but not yet seen
  // to have ended (PF_EXITING).
  bool exiting = false;

  // Nothing of it runs any more, whoever has yet to collect it.
  bool ended() const { return state == 'Z' || state == 'X'; }
  // Stopped by a signal or a debugger.
  bool stopped() const { return state == 'T' || state == 't'; }
};

// Parses the text of /proc/<pid>/stat; the name in it may hold spaces and
// parentheses. kDataLoss where it is not of that form.
absl::StatusOr<ProcessStat> ParseProcessStat(absl::string_view text);

// Errors of all that read /proc: kNotFound (no such process), else by errno.
absl::StatusOr<ProcessStat> ReadProcessStat(int pid);
absl::StatusOr<ProcessIdentity> IdentifyProcess(int pid);

// This boot's id, without the newline.
absl::StatusOr<std::string> BootId();

// A handle of exactly that process: signals sent through it can reach no
// other, and it polls readable when the process has ended. kNotFound where the
// process is gone, or its pid is another's by now.
absl::StatusOr<UniqueFd> OpenPidfd(const ProcessIdentity& identity);

// Whether that very process exists and has not ended; a zombie has.
bool IsAlive(const ProcessIdentity& identity);

// kNotFound where the process has ended; kPermissionDenied.
absl::Status SendSignal(const UniqueFd& pidfd, int signal);

// What /proc/<pid>/exe links to; " (deleted)" at its end where the file is
// gone.
absl::StatusOr<std::string> ExecutablePath(int pid);
// The last part of that path, also of a file that is gone.
absl::StatusOr<std::string> ProgramName(int pid);
// Whether that is `name`; false where it cannot be read.
bool RunsProgram(int pid, absl::string_view name);

// Those of `names` that are set in the environment `pid` was started with (up
// to 2 MiB of it); one without is not in the map. kPermissionDenied where it
// may not be read.
absl::StatusOr<std::map<std::string, std::string>> ReadEnvironment(
    int pid, const std::vector<std::string>& names);

// Where in the kernel it waits, by name; "0" where it does not.
absl::StatusOr<std::string> WaitChannel(int pid);

// As readlink(2) of /proc/<pid>/ns/mnt spells it: "mnt:[4026531841]".
absl::StatusOr<std::string> MountNamespace(int pid);
absl::StatusOr<std::string> OwnMountNamespace();

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_PROCESS_H_
