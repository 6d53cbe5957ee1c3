#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "ipc/platform/small_file.h"
#include "ipc/process.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

constexpr std::size_t kMaxStatBytes = 4096;
constexpr std::size_t kMaxEnvironmentBytes = std::size_t{2} << 20;

absl::Status Gone(int pid) {
  return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
}

absl::StatusOr<std::string> ReadProcFile(int pid, absl::string_view name,
                                         std::size_t max_bytes) {
  absl::StatusOr<std::string> content =
      ReadSmallFile(absl::StrCat("/proc/", pid, "/", name), max_bytes);
  // A process that ends between open and read gives ESRCH.
  if (absl::IsNotFound(content.status())) return Gone(pid);
  return content;
}

absl::StatusOr<std::string> ReadLink(const std::string& path) {
  std::array<char, 4096> target;
  const ssize_t n = readlink(path.c_str(), target.data(), target.size());
  if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat("readlink ", path));
  return std::string(target.data(), static_cast<std::size_t>(n));
}

}  // namespace

absl::StatusOr<std::string> BootId() {
  ZCB_ASSIGN_OR_RETURN(const std::string text,
                       ReadSmallFile("/proc/sys/kernel/random/boot_id", 4096));
  return std::string(absl::StripAsciiWhitespace(text));
}

absl::StatusOr<ProcessStat> ReadProcessStat(int pid) {
  ZCB_ASSIGN_OR_RETURN(const std::string text,
                       ReadProcFile(pid, "stat", kMaxStatBytes));
  return ParseProcessStat(text);
}

absl::StatusOr<ProcessIdentity> IdentifyProcess(int pid) {
  ZCB_ASSIGN_OR_RETURN(const ProcessStat stat, ReadProcessStat(pid));
  ZCB_ASSIGN_OR_RETURN(std::string boot_id, BootId());
  return ProcessIdentity{pid, stat.start_time, std::move(boot_id)};
}

absl::StatusOr<UniqueFd> OpenPidfd(const ProcessIdentity& identity) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, identity.pid, 0)));
  if (!fd && errno == ESRCH) return Gone(identity.pid);
  if (!fd) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("pidfd_open ", identity.pid));
  }
  // The handle pins whoever has the pid now; only then is the pid compared.
  ZCB_ASSIGN_OR_RETURN(const ProcessIdentity now,
                       IdentifyProcess(identity.pid));
  if (now != identity) {
    return absl::NotFoundError(absl::StrCat("process ", identity.pid,
                                            " has ended and its number is "
                                            "another process's now"));
  }
  return fd;
}

bool IsAlive(const ProcessIdentity& identity) {
  const absl::StatusOr<ProcessStat> stat = ReadProcessStat(identity.pid);
  if (!stat.ok() || stat->start_time != identity.start_time) return false;
  const absl::StatusOr<std::string> boot_id = BootId();
  return boot_id.ok() && *boot_id == identity.boot_id && !stat->ended();
}

absl::Status SendSignal(const UniqueFd& pidfd, int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0) {
    return absl::OkStatus();
  }
  if (errno == ESRCH) return absl::NotFoundError("the process has ended");
  return absl::ErrnoToStatus(errno, absl::StrCat("send signal ", signal));
}

absl::StatusOr<std::string> ExecutablePath(int pid) {
  return ReadLink(absl::StrCat("/proc/", pid, "/exe"));
}

absl::StatusOr<std::map<std::string, std::string>> ReadEnvironment(
    int pid, const std::vector<std::string>& names) {
  ZCB_ASSIGN_OR_RETURN(const std::string block,
                       ReadProcFile(pid, "environ", kMaxEnvironmentBytes));
  std::map<std::string, std::string> found;
  for (absl::string_view entry : absl::StrSplit(block, '\0')) {
    for (const std::string& name : names) {
      if (entry.size() > name.size() && entry[name.size()] == '=' &&
          entry.substr(0, name.size()) == name) {
        // The first of two counts, as for getenv(3).
        found.emplace(name, std::string(entry.substr(name.size() + 1)));
      }
    }
  }
  return found;
}

absl::StatusOr<std::string> WaitChannel(int pid) {
  return ReadProcFile(pid, "wchan", kMaxStatBytes);
}

absl::StatusOr<std::string> MountNamespace(int pid) {
  return ReadLink(absl::StrCat("/proc/", pid, "/ns/mnt"));
}

absl::StatusOr<std::string> OwnMountNamespace() {
  return ReadLink("/proc/self/ns/mnt");
}

}  // namespace zcbroker::ipc
