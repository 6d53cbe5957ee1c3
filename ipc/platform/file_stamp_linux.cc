#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <string>

#include "ipc/file_stamp.h"

namespace zcbroker::ipc {

absl::optional<FileStamp> StampOf(const std::string& path) {
  constexpr unsigned kWanted =
      STATX_TYPE | STATX_INO | STATX_CTIME | STATX_SIZE | STATX_MNT_ID;
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, kWanted, &info) != 0 ||
      (info.stx_mask & kWanted) != kWanted || !S_ISREG(info.stx_mode)) {
    return absl::nullopt;
  }
  FileStamp stamp;
  stamp.device = makedev(info.stx_dev_major, info.stx_dev_minor);
  stamp.inode = info.stx_ino;
  stamp.changed_nanos =
      info.stx_ctime.tv_sec * 1'000'000'000 + info.stx_ctime.tv_nsec;
  stamp.size = info.stx_size;
  stamp.mount = info.stx_mnt_id;
  return stamp;
}

}  // namespace zcbroker::ipc
