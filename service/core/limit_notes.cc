#include "service/core/limit_notes.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace zcbroker::service {
namespace {

constexpr std::chrono::seconds kTellAgain(1);

struct Limit {
  absl::string_view counter;
  absl::string_view text;
  v1::Refusal refusal;
};

constexpr Limit kLimits[] = {
    {"accept_failures", "could not accept: no descriptor is free",
     v1::REFUSAL_FD_PRESSURE},
    {"bad_frames.incomplete", "closed: a framed request did not arrive in time",
     v1::REFUSAL_UNSPECIFIED},
    {"bad_frames.too_large", "refused: a framed request is too large",
     v1::REFUSAL_UNSPECIFIED},
    {"connections.of_reserve", "accepted with a descriptor of the reserve",
     v1::REFUSAL_UNSPECIFIED},
    {"connections.too_many", "closed a connection: too many are open",
     v1::REFUSAL_RATE_LIMITED},
    {"connections.too_many_of_one",
     "closed a connection: its process has too many", v1::REFUSAL_RATE_LIMITED},
    {"grpc_build_failures", "closed: the gRPC server could not be built",
     v1::REFUSAL_FD_PRESSURE},
    {"refused.FD_PRESSURE", "closed a connection: no descriptor is free",
     v1::REFUSAL_FD_PRESSURE},
    {"refused.PEER_REJECTED", "closed a connection of another user",
     v1::REFUSAL_PEER_REJECTED},
    {"relay.idle_ended", "ended the relayed connection that was idle longest",
     v1::REFUSAL_UNSPECIFIED},
    {"relay.limit", "closed a relayed connection: too many are at work",
     v1::REFUSAL_RATE_LIMITED},
    {"relay.poison", "gave up a relayed request that has cost its backends",
     v1::REFUSAL_UNSPECIFIED},
    {"relay.slow_requests",
     "closed a relayed connection: its request did not arrive in time",
     v1::REFUSAL_UNSPECIFIED},
    {"relay.without_net",
     "passed on a relayed request that is too large to be kept",
     v1::REFUSAL_UNSPECIFIED},
    {"silent_peers", "closed a connection that said too little in time",
     v1::REFUSAL_UNSPECIFIED},
};

v1::Event EventOf(const std::string& counter, uint64_t count) {
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_LIMIT_REACHED);
  event.set_text(counter);
  for (const Limit& limit : kLimits) {
    if (limit.counter != counter) continue;
    event.set_text(std::string(limit.text));
    event.set_refusal(limit.refusal);
  }
  absl::StrAppend(event.mutable_text(), " (", counter, ", ", count,
                  " since the start)");
  return event;
}

}  // namespace

absl::optional<v1::Event> LimitNotes::Note(const std::string& counter,
                                           uint64_t count, Time now) {
  const auto told = told_.find(counter);
  if (told != told_.end() && now - told->second.at < kTellAgain) {
    told->second.untold = count;
    return absl::nullopt;
  }
  told_[counter] = {now, absl::nullopt};
  return EventOf(counter, count);
}

absl::optional<Time> LimitNotes::NextDue() const {
  absl::optional<Time> next;
  for (const auto& [counter, told] : told_) {
    if (!told.untold.has_value()) continue;
    next = std::min(next.value_or(told.at + kTellAgain), told.at + kTellAgain);
  }
  return next;
}

std::vector<v1::Event> LimitNotes::Overdue(Time now) {
  std::vector<v1::Event> events;
  for (auto& [counter, told] : told_) {
    if (!told.untold.has_value() || now - told.at < kTellAgain) continue;
    events.push_back(EventOf(counter, *told.untold));
    told = {now, absl::nullopt};
  }
  return events;
}

}  // namespace zcbroker::service
