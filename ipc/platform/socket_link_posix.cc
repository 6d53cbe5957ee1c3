#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/deadline.h"
#include "ipc/private_dir.h"
#include "ipc/socket.h"
#include "ipc/socket_link.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {

absl::Status LinkSocket(const Endpoint& target, const Endpoint& name) {
  const std::string& path = name.path();
  ZCB_RETURN_IF_ERROR(MakeDirectories(path.substr(0, path.rfind('/'))));
  if (link(target.path().c_str(), path.c_str()) == 0) {
    return absl::OkStatus();
  }
  if (errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("link ", path));
  }
  struct stat there;
  if (lstat(path.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " is something else than a socket"));
  }
  const absl::Status answer =
      Connect(name, Deadline::After(absl::ZeroDuration())).status();
  if (!absl::IsUnavailable(answer) && !absl::IsNotFound(answer)) {
    return absl::AlreadyExistsError(
        absl::StrCat("somebody else listens at ", path));
  }
  return LinkOver(target, name);
}

absl::Status LinkOver(const Endpoint& target, const Endpoint& name) {
  const std::string temporary = absl::StrCat(name.path(), ".zcb", getpid());
  unlink(temporary.c_str());
  if (link(target.path().c_str(), temporary.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("link ", temporary));
  }
  if (rename(temporary.c_str(), name.path().c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("rename to ", name.path()));
  }
  // rename(2) leaves both where `name` leads to that socket already.
  unlink(temporary.c_str());
  return absl::OkStatus();
}

}  // namespace zcbroker::ipc
