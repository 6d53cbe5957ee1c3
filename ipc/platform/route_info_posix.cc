#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ipc/names.h"
#include "ipc/platform/small_file.h"
#include "ipc/private_dir.h"
#include "ipc/route_info.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

using zcbroker::v1::RouteInfo;

constexpr absl::string_view kRoutes = "routes";
constexpr absl::string_view kInfoSuffix = ".info";

// `leaf` of the open directory `dir_fd`, whose whole path is `path`.
absl::StatusOr<RouteInfo> ReadInfoAt(int dir_fd, const std::string& leaf,
                                     const std::string& path) {
  // O_NONBLOCK: a FIFO must not hold us up.
  UniqueFd fd(openat(dir_fd, leaf.c_str(),
                     O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    if (error == ELOOP || error == ENXIO) {
      return absl::FailedPreconditionError(absl::StrCat(
          path, " is a symbolic link or no regular file; remove it"));
    }
    return absl::ErrnoToStatus(error, absl::StrCat("open ", path));
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is no regular file; remove it"));
  }
  if (info.st_uid != geteuid()) {
    return absl::PermissionDeniedError(absl::StrCat(
        path, " belongs to uid ", info.st_uid, ", not to ", geteuid()));
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " may be written by others; run: chmod 600 ", path));
  }
  ZCB_ASSIGN_OR_RETURN(const std::string bytes,
                       ReadSmallFd(fd.get(), path, kMaxRouteInfoBytes));
  RouteInfo route;
  if (!route.ParseFromString(bytes)) {
    return absl::DataLossError(absl::StrCat(path, " is no route info"));
  }
  return route;
}

absl::Status WriteAll(int fd, const std::string& bytes,
                      const std::string& path) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
    written += static_cast<std::size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status WriteNewFileAt(int dir_fd, const std::string& leaf,
                            const std::string& path, const std::string& bytes) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  UniqueFd fd(openat(dir_fd, leaf.c_str(), kFlags, 0600));
  if (!fd && errno == EEXIST) {
    // Left by a process of this number that was killed here.
    if (unlinkat(dir_fd, leaf.c_str(), 0) != 0 && errno != ENOENT) {
      return absl::ErrnoToStatus(errno, absl::StrCat("remove ", path));
    }
    fd.reset(openat(dir_fd, leaf.c_str(), kFlags, 0600));
  }
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("create ", path));
  // A umask such as 0277 takes more than it should.
  if (fchmod(fd.get(), 0600) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("chmod ", path));
  }
  return WriteAll(fd.get(), bytes, path);
}

std::string DirPath(const RuntimeDir& dir, absl::string_view service) {
  return dir.Entry(absl::StrCat(kRoutes, "/", service));
}

std::string InfoLeaf(absl::string_view version) {
  return absl::StrCat(RouteStem(version), kInfoSuffix);
}

absl::Status CheckNames(absl::string_view service, absl::string_view version) {
  ZCB_RETURN_IF_ERROR(CheckServiceName(service));
  return CheckVersion(version);
}

struct CloseDir {
  void operator()(DIR* stream) const { closedir(stream); }
};

// All names in an open directory but hidden ones, which are half written.
absl::StatusOr<std::vector<std::string>> ListNames(int dir_fd,
                                                   const std::string& path) {
  UniqueFd copy(openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  const std::unique_ptr<DIR, CloseDir> stream(fdopendir(copy.get()));
  if (stream == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("list ", path));
  }
  (void)copy.release();  // the stream closes it
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  if (errno != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("list ", path));
  }
  return names;
}

}  // namespace

absl::StatusOr<UniqueFd> OpenRouteDir(const RuntimeDir& dir,
                                      absl::string_view service) {
  ZCB_RETURN_IF_ERROR(CheckServiceName(service));
  ZCB_ASSIGN_OR_RETURN(
      const UniqueFd routes,
      OpenPrivateDirAt(dir.fd(), dir.path(), kRoutes, geteuid()));
  return OpenPrivateDirAt(routes.get(), dir.Entry(kRoutes), service, geteuid());
}

absl::StatusOr<UniqueFd> OpenOrCreateRouteDir(const RuntimeDir& dir,
                                              absl::string_view service) {
  ZCB_RETURN_IF_ERROR(CheckServiceName(service));
  ZCB_ASSIGN_OR_RETURN(
      const UniqueFd routes,
      OpenOrCreatePrivateDirAt(dir.fd(), dir.path(), kRoutes, geteuid()));
  return OpenOrCreatePrivateDirAt(routes.get(), dir.Entry(kRoutes), service,
                                  geteuid());
}

absl::Status WriteRouteInfo(const RuntimeDir& dir, const RouteInfo& info) {
  ZCB_RETURN_IF_ERROR(CheckNames(info.service(), info.version()));
  std::string bytes;
  if (!info.SerializeToString(&bytes) || bytes.size() > kMaxRouteInfoBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the route info of ", info.service(), " ", info.version(),
        " cannot be written; limit ", kMaxRouteInfoBytes, " bytes"));
  }
  ZCB_ASSIGN_OR_RETURN(const UniqueFd fd,
                       OpenOrCreateRouteDir(dir, info.service()));
  const std::string leaf = InfoLeaf(info.version());
  const std::string path =
      absl::StrCat(DirPath(dir, info.service()), "/", leaf);
  const std::string temporary = absl::StrCat(".", leaf, ".", getpid());
  absl::Status written = WriteNewFileAt(fd.get(), temporary, path, bytes);
  if (written.ok() &&
      renameat(fd.get(), temporary.c_str(), fd.get(), leaf.c_str()) != 0) {
    written = absl::ErrnoToStatus(errno, absl::StrCat("rename to ", path));
  }
  if (!written.ok()) (void)unlinkat(fd.get(), temporary.c_str(), 0);
  return written;
}

absl::StatusOr<RouteInfo> ReadRouteInfo(const RuntimeDir& dir,
                                        absl::string_view service,
                                        absl::string_view version) {
  ZCB_RETURN_IF_ERROR(CheckNames(service, version));
  ZCB_ASSIGN_OR_RETURN(const UniqueFd fd, OpenRouteDir(dir, service));
  const std::string leaf = InfoLeaf(version);
  const std::string path = absl::StrCat(DirPath(dir, service), "/", leaf);
  ZCB_ASSIGN_OR_RETURN(RouteInfo info, ReadInfoAt(fd.get(), leaf, path));
  if (info.service() != service || info.version() != version) {
    return absl::DataLossError(absl::StrCat(
        path, " is of another service or version: ", Printable(info.service()),
        " ", Printable(info.version())));
  }
  return info;
}

absl::StatusOr<std::vector<std::string>> ListRouteServices(
    const RuntimeDir& dir) {
  absl::StatusOr<UniqueFd> routes =
      OpenPrivateDirAt(dir.fd(), dir.path(), kRoutes, geteuid());
  if (absl::IsNotFound(routes.status())) return std::vector<std::string>();
  ZCB_RETURN_IF_ERROR(routes.status());
  ZCB_ASSIGN_OR_RETURN(std::vector<std::string> services,
                       ListNames(routes->get(), dir.Entry(kRoutes)));
  services.erase(std::remove_if(services.begin(), services.end(),
                                [](const std::string& name) {
                                  return !CheckServiceName(name).ok();
                                }),
                 services.end());
  return services;
}

absl::StatusOr<std::vector<std::string>> ListRouteVersions(
    const RuntimeDir& dir, absl::string_view service) {
  absl::StatusOr<UniqueFd> fd = OpenRouteDir(dir, service);
  if (absl::IsNotFound(fd.status())) return std::vector<std::string>();
  ZCB_RETURN_IF_ERROR(fd.status());
  const std::string path = DirPath(dir, service);
  ZCB_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListNames(fd->get(), path));
  std::vector<std::string> versions;
  for (const absl::string_view name : names) {
    absl::string_view rest = name;
    if (!absl::ConsumeSuffix(&rest, kInfoSuffix)) continue;
    const std::string stem(rest);
    std::string version = stem;
    if (!IsVersion(stem)) {
      // A hash, or nothing of ours: the file knows.
      const std::string leaf = absl::StrCat(stem, kInfoSuffix);
      absl::StatusOr<RouteInfo> info =
          ReadInfoAt(fd->get(), leaf, absl::StrCat(path, "/", leaf));
      if (!info.ok() || RouteStem(info->version()) != stem) continue;
      version = info->version();
    }
    if (CheckVersion(version).ok()) versions.push_back(std::move(version));
  }
  std::sort(versions.begin(), versions.end(),
            [](const std::string& a, const std::string& b) {
              return CompareVersions(a, b) > 0;
            });
  return versions;
}

absl::Status RemoveRouteInfo(const RuntimeDir& dir, absl::string_view service,
                             absl::string_view version) {
  ZCB_RETURN_IF_ERROR(CheckNames(service, version));
  absl::StatusOr<UniqueFd> fd = OpenRouteDir(dir, service);
  if (absl::IsNotFound(fd.status())) return absl::OkStatus();
  ZCB_RETURN_IF_ERROR(fd.status());
  const std::string leaf = InfoLeaf(version);
  if (unlinkat(fd->get(), leaf.c_str(), 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(
      errno, absl::StrCat("remove ", DirPath(dir, service), "/", leaf));
}

}  // namespace zcbroker::ipc
