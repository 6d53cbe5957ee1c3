#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ipc/private_dir.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

constexpr int kOpenFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

std::string Joined(absl::string_view parent, absl::string_view leaf) {
  return absl::StrCat(parent, "/", leaf);
}

absl::Status OpenError(int error, absl::string_view path) {
  if (error == ELOOP || error == ENOTDIR) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is a symbolic link or no directory; remove it"));
  }
  return absl::ErrnoToStatus(error, absl::StrCat("open ", path));
}

absl::StatusOr<UniqueFd> Checked(UniqueFd fd, absl::string_view path,
                                 std::uint32_t owner) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  }
  if (info.st_uid != owner) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " belongs to uid ", info.st_uid, ", not to ", owner,
                     "; have it removed"));
  }
  if ((info.st_mode & 0777) != 0700) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s has mode %04o, must be 0700; run: chmod 700 %s",
                        path, info.st_mode & 0777, path));
  }
  return fd;
}

absl::StatusOr<UniqueFd> OpenCheckedAt(int parent_fd, const std::string& leaf,
                                       absl::string_view path,
                                       std::uint32_t owner) {
  UniqueFd fd(openat(parent_fd, leaf.c_str(), kOpenFlags));
  if (!fd) return OpenError(errno, path);
  return Checked(std::move(fd), path, owner);
}

}  // namespace

absl::StatusOr<UniqueFd> OpenPrivateDir(const std::string& path,
                                        std::uint32_t owner) {
  return OpenCheckedAt(AT_FDCWD, path, path, owner);
}

absl::StatusOr<UniqueFd> OpenDirectory(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  return fd;
}

absl::StatusOr<UniqueFd> OpenPrivateDirAt(int parent_fd,
                                          absl::string_view parent_path,
                                          absl::string_view leaf,
                                          std::uint32_t owner) {
  return OpenCheckedAt(parent_fd, std::string(leaf), Joined(parent_path, leaf),
                       owner);
}

absl::StatusOr<UniqueFd> OpenOrCreatePrivateDirAt(int parent_fd,
                                                  absl::string_view parent_path,
                                                  absl::string_view leaf,
                                                  std::uint32_t owner) {
  const std::string name(leaf);
  const std::string path = Joined(parent_path, leaf);
  const bool created = mkdirat(parent_fd, name.c_str(), 0700) == 0;
  if (!created && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("mkdir ", path));
  }
  UniqueFd fd(openat(parent_fd, name.c_str(), kOpenFlags));
  if (!fd) return OpenError(errno, path);
  // A umask such as 0277 or a set-group-id parent may have changed the mode.
  if (created && fchmod(fd.get(), 0700) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("chmod ", path));
  }
  return Checked(std::move(fd), path, owner);
}

absl::Status MakeDirectories(const std::string& path) {
  if (path.empty() || mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) {
    return absl::OkStatus();
  }
  if (errno != ENOENT) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make ", path));
  }
  ZCB_RETURN_IF_ERROR(MakeDirectories(path.substr(0, path.rfind('/'))));
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, absl::StrCat("make ", path));
}

}  // namespace zcbroker::ipc
