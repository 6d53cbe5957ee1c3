#include "service/host/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "ipc/process.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

constexpr char kSuffix[] = ".journal";
constexpr size_t kMaxBytes = size_t{64} * 1024;

// kDataLoss where it is no file of ours; others by errno.
absl::StatusOr<std::string> ReadOwnFile(const std::string& path) {
  const ipc::UniqueFd fd(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  struct stat status;
  if (fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_uid != geteuid()) {
    return absl::DataLossError(absl::StrCat(path, " is no file of ours"));
  }
  std::string bytes(kMaxBytes, '\0');
  const ssize_t n = read(fd.get(), &bytes[0], bytes.size());
  if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path));
  bytes.resize(static_cast<size_t>(n));
  return bytes;
}

}  // namespace

Journal::Journal(const std::string& directory, const std::string& id)
    : path_(absl::StrCat(directory, "/", id, kSuffix)) {}

absl::StatusOr<v1::JournalEntry> Journal::Read() const {
  struct stat status;
  if (lstat(path_.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path_));
  }
  const absl::StatusOr<std::string> bytes = ReadOwnFile(path_);
  // Out of descriptors, say: nothing is known of the file then.
  if (!bytes.ok() && !absl::IsDataLoss(bytes.status())) return bytes.status();
  v1::JournalEntry entry;
  if (!bytes.ok() || !entry.ParseFromString(*bytes) || !entry.has_backend() ||
      entry.backend().endpoint().empty()) {
    rename(path_.c_str(), absl::StrCat(path_, ".bad").c_str());
    return absl::DataLossError(
        absl::StrCat(path_, " makes no sense; set aside"));
  }
  const absl::StatusOr<std::string> boot = ipc::BootId();
  if (!boot.ok() || entry.backend().boot_id() != *boot) {
    unlink(path_.c_str());
    return absl::NotFoundError(absl::StrCat(path_, " is of another boot"));
  }
  return entry;
}

absl::Status Journal::Write(const v1::JournalEntry& entry) const {
  const std::string temporary = absl::StrCat(path_, ".new");
  const ipc::UniqueFd fd(
      open(temporary.c_str(),
           O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
           0600));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("open ", temporary));
  const std::string bytes = entry.SerializeAsString();
  const ssize_t n = write(fd.get(), bytes.data(), bytes.size());
  if (n != static_cast<ssize_t>(bytes.size())) {
    const int error = n < 0 ? errno : ENOSPC;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("write ", temporary));
  }
  if (rename(temporary.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("rename to ", path_));
  }
  return absl::OkStatus();
}

void Journal::Remove() const { unlink(path_.c_str()); }

std::vector<std::pair<std::string, v1::JournalEntry>> ReadJournals(
    const std::string& directory) {
  std::vector<std::pair<std::string, v1::JournalEntry>> entries;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()),
                                                closedir);
  if (dir == nullptr) return entries;
  while (const dirent* found = readdir(dir.get())) {
    absl::string_view id(found->d_name);
    if (!absl::ConsumeSuffix(&id, kSuffix)) continue;
    absl::StatusOr<v1::JournalEntry> entry =
        Journal(directory, std::string(id)).Read();
    if (entry.ok()) {
      entries.emplace_back(std::string(id), *std::move(entry));
    }
  }
  return entries;
}

}  // namespace zcbroker::service
