// What happened in a window of time, put together from what the broker and its
// clients have noted. Pure: no I/O, no clock.
#ifndef ZCBROKER_CLIENT_CLI_REPORT_STORY_H_
#define ZCBROKER_CLIENT_CLI_REPORT_STORY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/fallback_records.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

struct Window {
  absl::Time from;
  absl::Time to;

  bool Has(absl::Time time) const { return from <= time && time <= to; }
};

// One try to have a backend run.
struct Start {
  enum class Outcome { kReady, kAdopted, kFailed, kUnfinished };

  std::string service;
  std::string version;
  absl::Time asked;
  // Until it was ready or had failed; until the window's end where it is
  // unfinished.
  absl::Duration took;
  // Of kReady and kAdopted, in order; they come to `took`.
  std::vector<std::pair<std::string, absl::Duration>> steps;
  Outcome outcome = Outcome::kUnfinished;
  // Of kFailed: why.
  std::string text;
  std::vector<std::string> evidence;
};

// A part of a backend's life.
struct Phase {
  enum class Kind { kStarting, kStartFailed, kReady, kDraining, kWedged };

  Kind kind;
  absl::Time from;
  absl::Time to;
  std::string text;
};

// A backend from its start to its end, as far as the window shows it.
struct Life {
  std::string service;
  std::string version;
  uint32_t pid = 0;
  // In order; at least one.
  std::vector<Phase> phases;
  // It has ended, for that reason.
  absl::optional<std::string> end;
};

// All backends of one service at one version. Those that lived at the same
// time, in several worlds, are in different rows.
struct Lane {
  std::string service;
  std::string version;
  std::vector<std::vector<Life>> rows;
};

inline constexpr char kStartFailed[] = "start failed";
inline constexpr char kWedged[] = "wedged";
inline constexpr char kSentAgain[] = "sent again";
inline constexpr char kLimitReached[] = "limit reached";

// The same thing, however often it happened.
struct Incident {
  // One of those above, "ended", "drained", or a refusal's name.
  std::string what;
  std::string service;
  std::string version;
  uint64_t count = 0;
  absl::Time first;
  absl::Time last;
  // Of the last time.
  std::string text;
  std::vector<std::string> evidence;
};

// Something that takes no time.
struct Moment {
  absl::Time time;
  std::string text;
};

struct Story {
  Window window;
  // Of the window, in order.
  std::vector<v1::Event> events;
  // When the first event was that the broker had not forgotten when it was
  // asked, and how many it had.
  absl::Time remembered;
  uint64_t forgotten = 0;
  std::vector<Start> starts;
  std::vector<Lane> lanes;
  // The most frequent first.
  std::vector<Incident> refusals;
  // In order of their first.
  std::vector<Incident> faults;
  std::vector<Incident> ends;
  // Starts that failed, and what was wedged.
  std::vector<Moment> failed;
  std::vector<Moment> refused;
  std::vector<Moment> replayed;
  std::vector<Moment> broker;
  // Of clients, in the window.
  std::vector<client::FallbackRecord> fallbacks;
  // Records from before it.
  uint64_t older_fallbacks = 0;

  uint64_t CountStarts(Start::Outcome outcome) const;
  uint64_t CountFaults(absl::string_view what) const;
};

// `events` are all that the broker keeps, in order, `backends` what it knows of
// when it was asked, after them. Without `from` the window begins with the
// first event.
Story Tell(const std::vector<v1::Event>& events,
           const std::vector<v1::Backend>& backends,
           const std::vector<client::FallbackRecord>& fallbacks,
           absl::optional<absl::Time> from, absl::Time to);

// How often something took how long.
struct Distribution {
  // Each with how many took at most so many seconds and more than the one
  // before.
  std::vector<std::pair<double, uint64_t>> buckets;
  // Those that took longer than all of them.
  uint64_t beyond = 0;
  uint64_t count = 0;
  double sum = 0;
};

// The histogram `name` of an OpenMetrics text, with the label `labels`
// (`step="bind"`) or none. Empty where there is none.
Distribution ReadDistribution(absl::string_view open_metrics,
                              absl::string_view name, absl::string_view labels);
// What was added between two looks at one histogram; all of `after` where the
// broker is another one since.
Distribution Since(const Distribution& before, const Distribution& after);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_REPORT_STORY_H_
