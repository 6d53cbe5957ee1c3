// What a broker leaves for its successor about each backend, so that the next
// one goes on with what runs and ends what is left of what does not.
// Source: design section 5, "The broker's journal"; journal.proto.
#ifndef ZCBROKER_SERVICE_HOST_JOURNAL_H_
#define ZCBROKER_SERVICE_HOST_JOURNAL_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/zcbroker/v1/journal.pb.h"

namespace zcbroker::service {

// One backend's entry. Not thread-safe.
class Journal {
 public:
  // `directory` is the broker's own; `id` names the backend in it.
  Journal(const std::string& directory, const std::string& id);

  // What the last broker wrote. kNotFound where nothing is, or it is of another
  // boot; kDataLoss where it makes no sense: it is set aside as
  // "<id>.journal.bad".
  absl::StatusOr<v1::JournalEntry> Read() const;
  // In one step. No fsync: it never outlives the boot.
  absl::Status Write(const v1::JournalEntry& entry) const;
  void Remove() const;

 private:
  const std::string path_;
};

// Every entry in `directory` that can be read, with its id.
std::vector<std::pair<std::string, v1::JournalEntry>> ReadJournals(
    const std::string& directory);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_JOURNAL_H_
