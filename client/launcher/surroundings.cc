#include "client/launcher/surroundings.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {
namespace {

absl::optional<mode_t> UmaskOf(int pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/status");
  const ipc::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  // "Umask:" is the second line.
  std::array<char, 256> text;
  const ssize_t n = fd ? read(fd.get(), text.data(), text.size()) : -1;
  if (n <= 0) return absl::nullopt;
  const absl::string_view status(text.data(), static_cast<std::size_t>(n));
  constexpr absl::string_view kLabel = "\nUmask:\t";
  const std::size_t at = status.find(kLabel);
  if (at == absl::string_view::npos) return absl::nullopt;
  mode_t mask = 0;
  for (char c : status.substr(at + kLabel.size())) {
    if (c < '0' || c > '7') break;
    mask = mask * 8 + static_cast<mode_t>(c - '0');
  }
  return mask;
}

mode_t OwnUmask() {
  // There is no way to ask; no other thread makes files meanwhile.
  const mode_t mask = umask(0);
  umask(mask);
  return mask;
}

bool SameRoot(int pid) {
  struct stat ours;
  struct stat theirs;
  const std::string path = absl::StrCat("/proc/", pid, "/root/.");
  return stat("/", &ours) == 0 && stat(path.c_str(), &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

bool IsLimited() {
  for (const auto resource :
       {RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE}) {
    rlimit limit;
    if (getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::Status CheckSameSurroundings(int pid, std::uint32_t gid) {
  if (IsLimited()) {
    return absl::FailedPreconditionError(
        "memory, processor time or the size of files is limited here");
  }
  if (gid != getegid()) {
    return absl::FailedPreconditionError("the daemon has another group");
  }
  const absl::optional<mode_t> theirs = UmaskOf(pid);
  if (!theirs.has_value() || *theirs != OwnUmask()) {
    return absl::FailedPreconditionError("the daemon has another umask");
  }
  if (!SameRoot(pid)) {
    return absl::FailedPreconditionError("the daemon has another root");
  }
  return absl::OkStatus();
}

}  // namespace zcbroker::client
