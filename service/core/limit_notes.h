// What is told of limits that were reached. A counter has each (Counters);
// events are for people, so a flood of them is told once a second.
#ifndef ZCBROKER_SERVICE_CORE_LIMIT_NOTES_H_
#define ZCBROKER_SERVICE_CORE_LIMIT_NOTES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "service/core/machine.h"

namespace zcbroker::service {

// Owned by one thread.
class LimitNotes {
 public:
  // What to tell of `counter`, which stands at `count`; nothing where that was
  // told less than a second ago: then Overdue tells it.
  absl::optional<v1::Event> Note(const std::string& counter, uint64_t count,
                                 Time now);
  // When there is something to tell; nothing: not before the next Note.
  absl::optional<Time> NextDue() const;
  // Of what came since it was told last.
  std::vector<v1::Event> Overdue(Time now);

 private:
  struct Told {
    Time at;
    // Where it stood when it was not told.
    absl::optional<uint64_t> untold;
  };
  std::map<std::string, Told> told_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_LIMIT_NOTES_H_
