#include "service/core/event_log.h"

#include <algorithm>
#include <utility>

#include "proto/zcbroker/v1/times.h"

namespace zcbroker::service {

const v1::Event& EventLog::Add(v1::Event event, absl::Time now) {
  event.set_sequence(++last_);
  *event.mutable_time() = ToProto(now);
  events_.push_back(std::move(event));
  if (events_.size() > kKept) events_.pop_front();
  for (auto& [id, done] : std::exchange(waiting_, {})) done(After(last_ - 1));
  return events_.back();
}

void EventLog::Read(ReadId id, uint64_t after, bool wait, Done done) {
  // A number that is yet to come is of an earlier broker: all is news.
  if (after > last_) after = 0;
  if (after < last_ || !wait) {
    done(After(after));
  } else {
    waiting_.emplace(id, std::move(done));
  }
}

void EventLog::Forget(ReadId id) { waiting_.erase(id); }

void EventLog::End() {
  for (auto& [id, done] : std::exchange(waiting_, {})) done({});
}

v1::StreamEventsResponse EventLog::After(uint64_t after) const {
  v1::StreamEventsResponse response;
  const uint64_t gone = last_ - events_.size();
  const size_t first = after > gone ? after - gone : 0;
  const size_t end = std::min(events_.size(), first + kPerResponse);
  for (size_t i = first; i < end; ++i) *response.add_events() = events_[i];
  return response;
}

}  // namespace zcbroker::service
