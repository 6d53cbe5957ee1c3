#include "client/fallback_records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ipc/boot_clock.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::client {
namespace {

constexpr char kLeaf[] = "fallbacks";
constexpr char kOldLeaf[] = "fallbacks.1";
constexpr std::uint8_t kMark = 0xFB;
constexpr std::uint8_t kLayout = 2;

struct Layout {
  std::uint8_t mark;
  std::uint8_t layout;
  std::uint8_t origin;
  std::uint8_t reason;
  std::uint32_t pid;
  std::uint32_t parent;
  std::uint32_t session;
  std::int64_t wall_micros;
  std::int64_t boot_micros;
  char service[8];
  char version[12];
  char program[8];
  // Of all the rest: a mark alone is also found within a record, where one was
  // cut short.
  std::uint32_t check;
};
static_assert(sizeof(Layout) == kFallbackRecordBytes);

std::uint32_t CheckOf(Layout layout) {
  layout.check = 0;
  return static_cast<std::uint32_t>(ipc::Fnv64(absl::string_view(
      reinterpret_cast<const char*>(&layout), sizeof(layout))));
}

bool IsPlain(char c) { return c >= 0x20 && c < 0x7f; }

template <std::size_t kSize>
void Put(char (&field)[kSize], absl::string_view text) {
  std::memset(field, 0, kSize);
  const std::size_t size = std::min(kSize, text.size());
  for (std::size_t i = 0; i < size; ++i) {
    field[i] = IsPlain(text[i]) ? text[i] : '?';
  }
}

template <std::size_t kSize>
absl::optional<std::string> Get(const char (&field)[kSize]) {
  std::string text(field, strnlen(field, kSize));
  if (!std::all_of(text.begin(), text.end(), IsPlain)) return absl::nullopt;
  return text;
}

absl::StatusOr<ipc::UniqueFd> OpenRecords(const ipc::RuntimeDir& dir,
                                          const char* leaf, int flags) {
  ipc::UniqueFd fd(openat(dir.fd(), leaf,
                          flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (!fd && errno == ELOOP) {
    return absl::FailedPreconditionError(
        absl::StrCat(dir.Entry(leaf), " is a symbolic link; remove it"));
  }
  if (!fd) {
    return absl::ErrnoToStatus(errno, absl::StrCat("open ", dir.Entry(leaf)));
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) ||
      info.st_uid != geteuid()) {
    return absl::FailedPreconditionError(absl::StrCat(
        dir.Entry(leaf), " is no regular file of this user; remove it"));
  }
  return fd;
}

// Of many who see a full file at once, one renames it: the lock is on the
// file, and who comes after finds it no longer under its name.
void RotateIfFull(const ipc::RuntimeDir& dir, const ipc::UniqueFd& fd) {
  struct stat open_file;
  if (fstat(fd.get(), &open_file) != 0 ||
      open_file.st_size + static_cast<off_t>(kFallbackRecordBytes) <=
          static_cast<off_t>(kMaxFallbackFileBytes) ||
      flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return;
  }
  struct stat named_file;
  if (fstatat(dir.fd(), kLeaf, &named_file, AT_SYMLINK_NOFOLLOW) == 0 &&
      named_file.st_ino == open_file.st_ino &&
      named_file.st_dev == open_file.st_dev) {
    renameat(dir.fd(), kLeaf, dir.fd(), kOldLeaf);
  }
}

std::string OwnName() {
  const ipc::UniqueFd fd(open("/proc/self/comm", O_RDONLY | O_CLOEXEC));
  char name[32];
  ssize_t n = fd ? read(fd.get(), name, sizeof(name)) : 0;
  if (n > 0 && name[n - 1] == '\n') --n;
  return std::string(name, n > 0 ? static_cast<std::size_t>(n) : 0);
}

absl::Status ReadInto(const ipc::RuntimeDir& dir, const char* leaf,
                      std::vector<FallbackRecord>& records) {
  absl::StatusOr<ipc::UniqueFd> fd = OpenRecords(dir, leaf, O_RDONLY);
  if (absl::IsNotFound(fd.status())) return absl::OkStatus();
  ZCB_RETURN_IF_ERROR(fd.status());
  std::string bytes;
  char chunk[16 * 1024];
  // Twice the limit: records may be on their way while the file is renamed.
  while (bytes.size() < 2 * kMaxFallbackFileBytes) {
    const ssize_t n = read(fd->get(), chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("read ", dir.Entry(leaf)));
    }
    if (n == 0) break;
    bytes.append(chunk, static_cast<std::size_t>(n));
  }
  absl::string_view rest = bytes;
  while (rest.size() >= kFallbackRecordBytes) {
    absl::optional<FallbackRecord> record =
        DecodeFallbackRecord(rest.substr(0, kFallbackRecordBytes));
    // A full disk may have cut one short: the next begins somewhere behind.
    rest.remove_prefix(record.has_value() ? kFallbackRecordBytes : 1);
    if (record.has_value()) records.push_back(*std::move(record));
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeFallbackRecord(const FallbackRecord& record) {
  Layout layout = {};
  layout.mark = kMark;
  layout.layout = kLayout;
  layout.origin = static_cast<std::uint8_t>(record.origin);
  layout.reason = static_cast<std::uint8_t>(record.reason);
  layout.pid = record.pid;
  layout.parent = record.parent;
  layout.session = record.session;
  layout.wall_micros = absl::ToUnixMicros(record.wall);
  layout.boot_micros = absl::ToInt64Microseconds(record.since_boot);
  Put(layout.service, record.service);
  Put(layout.version, record.version);
  Put(layout.program, record.program);
  layout.check = CheckOf(layout);
  return std::string(reinterpret_cast<const char*>(&layout), sizeof(layout));
}

absl::optional<FallbackRecord> DecodeFallbackRecord(absl::string_view bytes) {
  if (bytes.size() != kFallbackRecordBytes) return absl::nullopt;
  Layout layout;
  std::memcpy(&layout, bytes.data(), sizeof(layout));
  const auto service = Get(layout.service);
  const auto version = Get(layout.version);
  const auto program = Get(layout.program);
  if (layout.mark != kMark || layout.layout != kLayout ||
      layout.check != CheckOf(layout) ||
      layout.origin > static_cast<std::uint8_t>(FallbackOrigin::kLauncher) ||
      layout.reason >= kAllFallbackReasons.size() || !service.has_value() ||
      !version.has_value() || !program.has_value()) {
    return absl::nullopt;
  }
  FallbackRecord record;
  record.origin = static_cast<FallbackOrigin>(layout.origin);
  record.reason = static_cast<FallbackReason>(layout.reason);
  record.pid = layout.pid;
  record.parent = layout.parent;
  record.session = layout.session;
  record.wall = absl::FromUnixMicros(layout.wall_micros);
  record.since_boot = absl::Microseconds(layout.boot_micros);
  record.service = *service;
  record.version = *version;
  record.program = *program;
  return record;
}

absl::Status AppendFallbackRecord(const ipc::RuntimeDir& dir,
                                  FallbackOrigin origin, FallbackReason reason,
                                  absl::string_view service,
                                  absl::string_view version) {
  constexpr int kFlags = O_WRONLY | O_APPEND | O_CREAT;
  ZCB_ASSIGN_OR_RETURN(const ipc::UniqueFd fd, OpenRecords(dir, kLeaf, kFlags));
  FallbackRecord record;
  record.origin = origin;
  record.reason = reason;
  record.pid = static_cast<std::uint32_t>(getpid());
  record.parent = static_cast<std::uint32_t>(getppid());
  record.session = static_cast<std::uint32_t>(getsid(0));
  record.wall = absl::Now();
  record.since_boot = ipc::SinceBoot();
  record.service = std::string(service);
  record.version = std::string(version);
  record.program = OwnName();
  const std::string bytes = EncodeFallbackRecord(record);
  const ssize_t n = write(fd.get(), bytes.data(), bytes.size());
  if (n < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write ", dir.Entry(kLeaf)));
  }
  RotateIfFull(dir, fd);
  return absl::OkStatus();
}

void RecordFallback(const ipc::EnvironmentLookup& environment,
                    FallbackOrigin origin, FallbackReason reason,
                    absl::string_view service, absl::string_view version) {
  const absl::StatusOr<ipc::RuntimeDir> dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(environment));
  if (!dir.ok()) return;
  AppendFallbackRecord(*dir, origin, reason, service, version).IgnoreError();
}

absl::StatusOr<std::vector<FallbackRecord>> ReadFallbackRecords(
    const ipc::RuntimeDir& dir) {
  std::vector<FallbackRecord> records;
  ZCB_RETURN_IF_ERROR(ReadInto(dir, kOldLeaf, records));
  ZCB_RETURN_IF_ERROR(ReadInto(dir, kLeaf, records));
  return records;
}

}  // namespace zcbroker::client
