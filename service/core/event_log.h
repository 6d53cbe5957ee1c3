// What has happened lately, for whoever asks (admin.proto, StreamEvents): a
// ring. Nobody is held up by a slow reader, who misses what was overwritten.
#ifndef ZCBROKER_SERVICE_CORE_EVENT_LOG_H_
#define ZCBROKER_SERVICE_CORE_EVENT_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>

#include "absl/time/time.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::service {

// Owned by one thread.
class EventLog {
 public:
  // docs/operations.md, "Limits".
  static constexpr size_t kKept = 4096;
  static constexpr size_t kPerResponse = 256;

  using ReadId = uint64_t;
  // Empty where nothing was awaited, or where nothing is to come any more.
  using Done = std::function<void(v1::StreamEventsResponse)>;

  // Gives it its number and time; what it is then, until the next one.
  const v1::Event& Add(v1::Event event, absl::Time now);

  // Calls `done` once with what came after the event of that number, up to
  // kPerResponse of it: now where there is something or nothing is to be waited
  // for, else with the next event. `id` must be new.
  void Read(ReadId id, uint64_t after, bool wait, Done done);
  // Its `done` is not called any more. Unknown ids are ignored.
  void Forget(ReadId id);
  // Answers all who wait with nothing.
  void End();

 private:
  v1::StreamEventsResponse After(uint64_t after) const;

  std::deque<v1::Event> events_;
  uint64_t last_ = 0;
  // Who waits for whatever is next.
  std::map<ReadId, Done> waiting_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_EVENT_LOG_H_
