#include "client/cli/replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "ipc/unique_fd.h"

namespace zcbroker::cli {

absl::Status ReplaceFile(const std::string& file, absl::string_view text) {
  const std::string temporary = absl::StrCat(file, ".", getpid());
  unlink(temporary.c_str());
  struct stat before;
  const bool keeps_mode =
      lstat(file.c_str(), &before) == 0 && S_ISREG(before.st_mode);
  const ipc::UniqueFd fd(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("make ", temporary));
  // A write that is cut short leaves no error behind; the next one has it.
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t n =
        write(fd.get(), text.data() + written, text.size() - written);
    if (n < 0) break;
    written += static_cast<size_t>(n);
  }
  if (written != text.size() ||
      (keeps_mode && fchmod(fd.get(), before.st_mode & 0777) != 0) ||
      fsync(fd.get()) != 0 || rename(temporary.c_str(), file.c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("write ", file));
  }
  return absl::OkStatus();
}

}  // namespace zcbroker::cli
