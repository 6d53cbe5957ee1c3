#include "service/host/journald.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace zcbroker::service {

std::string EncodeJournalEntry(const JournalFields& fields) {
  std::string entry;
  for (const auto& [name, value] : fields) {
    if (value.find('\n') == std::string::npos) {
      absl::StrAppend(&entry, name, "=", value, "\n");
      continue;
    }
    absl::StrAppend(&entry, name, "\n");
    for (size_t i = 0; i < sizeof(uint64_t); ++i) {
      entry.push_back(
          static_cast<char>(uint64_t{value.size()} >> (8 * i) & 0xff));
    }
    absl::StrAppend(&entry, value, "\n");
  }
  return entry;
}

bool StandardErrorIsJournal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status;
  if (stream == nullptr || fstat(STDERR_FILENO, &status) != 0) return false;
  return stream == absl::StrCat(status.st_dev, ":", status.st_ino);
}

JournalSocket::JournalSocket(std::string path)
    : path_(std::move(path)),
      fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {}

bool JournalSocket::Send(const JournalFields& fields) const {
  const std::string entry = EncodeJournalEntry(fields);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(),
              std::min(path_.size(), sizeof(address.sun_path) - 1));
  return sendto(fd_.get(), entry.data(), entry.size(), MSG_NOSIGNAL,
                reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) == static_cast<ssize_t>(entry.size());
}

}  // namespace zcbroker::service
