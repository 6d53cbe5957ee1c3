// systemd's journal in its own protocol, which keeps fields apart that a line
// of text would mix. Source: systemd, "Native Journal Protocol". libsystemd is
// no static library, and what is needed of it is a datagram.
#ifndef ZCBROKER_SERVICE_HOST_JOURNALD_H_
#define ZCBROKER_SERVICE_HOST_JOURNALD_H_

#include <string>
#include <utility>
#include <vector>

#include "ipc/unique_fd.h"

namespace zcbroker::service {

// Names of A-Z, 0-9 and '_', in any order; values are any bytes.
using JournalFields = std::vector<std::pair<std::string, std::string>>;

// As it goes over the wire.
std::string EncodeJournalEntry(const JournalFields& fields);

// Does standard error lead to the journal? $JOURNAL_STREAM says which device
// and inode that would be.
bool StandardErrorIsJournal();

// Thread-safe.
class JournalSocket {
 public:
  static constexpr char kPath[] = "/run/systemd/journal/socket";

  explicit JournalSocket(std::string path = kPath);

  // Sends one entry without waiting. False where it could not be: nobody
  // listens, there is no room, or it is too large for a datagram.
  bool Send(const JournalFields& fields) const;

 private:
  const std::string path_;
  const ipc::UniqueFd fd_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_JOURNALD_H_
