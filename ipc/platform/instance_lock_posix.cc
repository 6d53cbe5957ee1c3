#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ipc/instance_lock.h"
#include "ipc/names.h"
#include "ipc/platform/small_file.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

constexpr std::size_t kMaxPidBytes = 64;

bool IsNamed(int dir_fd, int fd) {
  struct stat open_file;
  struct stat named_file;
  return fstat(fd, &open_file) == 0 &&
         fstatat(dir_fd, kInstanceLockLeaf, &named_file, AT_SYMLINK_NOFOLLOW) ==
             0 &&
         open_file.st_dev == named_file.st_dev &&
         open_file.st_ino == named_file.st_ino;
}

absl::StatusOr<UniqueFd> OpenLockFile(const RuntimeDir& dir) {
  UniqueFd fd(openat(dir.fd(), kInstanceLockLeaf,
                     O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd) return fd;
  if (errno == ELOOP) {
    return absl::FailedPreconditionError(absl::StrCat(
        dir.Entry(kInstanceLockLeaf), " is a symbolic link; remove it"));
  }
  return absl::ErrnoToStatus(
      errno, absl::StrCat("open ", dir.Entry(kInstanceLockLeaf)));
}

absl::Status HeldBy(const UniqueFd& fd, const RuntimeDir& dir) {
  const absl::StatusOr<std::string> text =
      ReadSmallFd(fd.get(), dir.Entry(kInstanceLockLeaf), kMaxPidBytes);
  const std::string pid =
      text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : "";
  return absl::AlreadyExistsError(
      absl::StrCat("another broker runs here, process ",
                   pid.empty() ? "unknown" : Printable(pid), " (",
                   dir.Entry(kInstanceLockLeaf), ")"));
}

absl::Status WritePid(const UniqueFd& fd, const RuntimeDir& dir) {
  const std::string text = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), text.data(), text.size(), 0) !=
          static_cast<ssize_t>(text.size())) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("write ", dir.Entry(kInstanceLockLeaf)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<InstanceLock> InstanceLock::TryAcquire(const RuntimeDir& dir) {
  UniqueFd own_dir(fcntl(dir.fd(), F_DUPFD_CLOEXEC, 0));
  if (!own_dir) return absl::ErrnoToStatus(errno, "duplicate a descriptor");
  // Each round lost means that the file was replaced meanwhile.
  for (int attempt = 0; attempt < 16; ++attempt) {
    ZCB_ASSIGN_OR_RETURN(UniqueFd fd, OpenLockFile(dir));
    int result;
    do {
      result = flock(fd.get(), LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EWOULDBLOCK) return HeldBy(fd, dir);
    if (result != 0) {
      return absl::ErrnoToStatus(
          errno, absl::StrCat("lock ", dir.Entry(kInstanceLockLeaf)));
    }
    if (!IsNamed(own_dir.get(), fd.get())) continue;
    ZCB_RETURN_IF_ERROR(WritePid(fd, dir));
    return InstanceLock(std::move(own_dir), std::move(fd));
  }
  return absl::AbortedError(absl::StrCat(dir.Entry(kInstanceLockLeaf),
                                         " is being replaced again and again"));
}

absl::StatusOr<int> InstanceLock::LastHolder(const RuntimeDir& dir) {
  const UniqueFd fd(
      openat(dir.fd(), kInstanceLockLeaf, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  const std::string path = dir.Entry(kInstanceLockLeaf);
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  ZCB_ASSIGN_OR_RETURN(const std::string text,
                       ReadSmallFd(fd.get(), path, kMaxPidBytes));
  int pid = 0;
  if (!absl::SimpleAtoi(text, &pid) || pid <= 0) {
    return absl::NotFoundError(absl::StrCat(path, " names no process"));
  }
  return pid;
}

bool InstanceLock::StillHeld() const {
  return file_ && IsNamed(dir_.get(), file_.get());
}

}  // namespace zcbroker::ipc
