#include "client/cli/report_story.h"

#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/output.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::cli {
namespace {

using Key = std::pair<std::string, std::string>;

std::vector<std::string> Lines(
    const google::protobuf::RepeatedPtrField<std::string>& lines) {
  return {lines.begin(), lines.end()};
}

absl::Duration Sum(const Start& start) {
  absl::Duration sum;
  for (const auto& [name, duration] : start.steps) sum += duration;
  return sum;
}

// Follows backends from event to event.
class Historian {
 public:
  explicit Historian(absl::Time end) : end_(end) {}

  void Hear(const v1::Event& event) {
    const Key key{event.service(), event.version()};
    const absl::Time time = FromProto(event.time());
    switch (event.kind()) {
      case v1::EVENT_KIND_BACKEND_STARTING:
        starting_[key].push_back(time);
        break;
      case v1::EVENT_KIND_BACKEND_READY:
        HearReady(event, key, time);
        break;
      case v1::EVENT_KIND_BACKEND_START_FAILED: {
        Start start = TakeStart(key, time);
        start.outcome = Start::Outcome::kFailed;
        start.took = time - start.asked;
        start.text = event.text();
        start.evidence = Lines(event.evidence());
        Life life = LifeOf(key, event.pid());
        life.phases = {
            {Phase::Kind::kStartFailed, start.asked, time, start.text}};
        lives_.push_back(std::move(life));
        starts_.push_back(std::move(start));
        break;
      }
      case v1::EVENT_KIND_BACKEND_DRAINING:
        Enter(Phase::Kind::kDraining, event, key, time);
        break;
      case v1::EVENT_KIND_BACKEND_WEDGED:
        Enter(Phase::Kind::kWedged, event, key, time);
        break;
      case v1::EVENT_KIND_BACKEND_ENDED: {
        Life& life = Find(key, event.pid());
        life.phases.back().to = time;
        life.end = event.text();
        break;
      }
      default:
        break;
    }
  }

  // What runs and no event tells of: its start was forgotten, or was told to an
  // earlier broker.
  void See(const v1::Backend& backend) {
    if (!backend.has_route()) return;
    const Key key{backend.service(), backend.version()};
    const uint32_t pid = backend.route().pid();
    for (const Life& life : lives_) {
      if (Key{life.service, life.version} == key && life.pid == pid) return;
    }
    const bool drains = backend.state() == v1::BACKEND_STATE_DRAINING;
    Life life = LifeOf(key, pid);
    if (drains) {
      life.phases.push_back({Phase::Kind::kReady, absl::InfinitePast(),
                             FromProto(backend.since()), ""});
    }
    life.phases.push_back(
        {drains ? Phase::Kind::kDraining : Phase::Kind::kReady,
         FromProto(backend.since()), end_, StateName(backend.state())});
    lives_.push_back(std::move(life));
  }

  void Finish() {
    for (const auto& [key, times] : starting_) {
      for (const absl::Time asked : times) {
        Start start;
        std::tie(start.service, start.version) = key;
        start.asked = asked;
        start.took = end_ - asked;
        Life life = LifeOf(key, 0);
        life.phases = {{Phase::Kind::kStarting, asked, end_, "still starting"}};
        lives_.push_back(std::move(life));
        starts_.push_back(std::move(start));
      }
    }
    std::stable_sort(
        starts_.begin(), starts_.end(),
        [](const Start& a, const Start& b) { return a.asked < b.asked; });
  }

  std::vector<Start> starts_;
  std::vector<Life> lives_;

 private:
  static Life LifeOf(const Key& key, uint32_t pid) {
    Life life;
    std::tie(life.service, life.version) = key;
    life.pid = pid;
    return life;
  }

  // The start that has been under way for longest; one that began now where its
  // beginning was not noted.
  Start TakeStart(const Key& key, absl::Time now) {
    Start start;
    std::tie(start.service, start.version) = key;
    start.asked = now;
    std::deque<absl::Time>& times = starting_[key];
    if (!times.empty()) {
      start.asked = times.front();
      times.pop_front();
    }
    return start;
  }

  void HearReady(const v1::Event& event, const Key& key, absl::Time time) {
    Start start = TakeStart(key, time);
    start.outcome = event.origin() == v1::ROUTE_ORIGIN_ADOPTED
                        ? Start::Outcome::kAdopted
                        : Start::Outcome::kReady;
    for (const v1::NegotiationStep& step : event.steps()) {
      start.steps.emplace_back(step.name(), FromProto(step.duration()));
    }
    start.took = Sum(start);
    // Steps are timed in the broker and say it best.
    start.asked = std::min(start.asked, time - start.took);
    Life life = LifeOf(key, event.pid());
    life.phases = {{Phase::Kind::kStarting, start.asked, time, ""},
                   {Phase::Kind::kReady, time, end_, event.text()}};
    lives_.push_back(std::move(life));
    starts_.push_back(std::move(start));
  }

  // The life of that process that has not ended; one of which nothing was noted
  // so far was ready.
  Life& Find(const Key& key, uint32_t pid) {
    for (auto life = lives_.rbegin(); life != lives_.rend(); ++life) {
      if (Key{life->service, life->version} == key && life->pid == pid &&
          !life->end.has_value()) {
        return *life;
      }
    }
    Life life = LifeOf(key, pid);
    life.phases = {{Phase::Kind::kReady, absl::InfinitePast(), end_, ""}};
    lives_.push_back(std::move(life));
    return lives_.back();
  }

  void Enter(Phase::Kind kind, const v1::Event& event, const Key& key,
             absl::Time time) {
    Life& life = Find(key, event.pid());
    life.phases.back().to = time;
    life.phases.push_back({kind, time, end_, event.text()});
  }

  const absl::Time end_;
  std::map<Key, std::deque<absl::Time>> starting_;
};

// What of it is in the window; nothing where none is.
absl::optional<Life> Cut(Life life, const Window& window) {
  std::vector<Phase> phases;
  for (Phase& phase : life.phases) {
    phase.from = std::max(phase.from, window.from);
    phase.to = std::min(phase.to, window.to);
    if (phase.from <= phase.to) phases.push_back(std::move(phase));
  }
  if (phases.empty()) return absl::nullopt;
  life.phases = std::move(phases);
  return life;
}

std::vector<Lane> Arrange(std::vector<Life> lives, const Window& window) {
  std::map<Key, Lane> lanes;
  std::stable_sort(lives.begin(), lives.end(),
                   [](const Life& a, const Life& b) {
                     return a.phases.front().from < b.phases.front().from;
                   });
  for (Life& whole : lives) {
    absl::optional<Life> life = Cut(std::move(whole), window);
    if (!life.has_value()) continue;
    Lane& lane = lanes[{life->service, life->version}];
    lane.service = life->service;
    lane.version = life->version;
    const auto row = std::find_if(
        lane.rows.begin(), lane.rows.end(), [&](const std::vector<Life>& row) {
          return row.back().phases.back().to <= life->phases.front().from;
        });
    (row == lane.rows.end() ? lane.rows.emplace_back() : *row)
        .push_back(*std::move(life));
  }
  std::vector<Lane> arranged;
  for (auto& [key, lane] : lanes) arranged.push_back(std::move(lane));
  return arranged;
}

void Note(const v1::Event& event, std::string what,
          std::vector<Incident>* incidents) {
  const absl::Time time = FromProto(event.time());
  auto same = std::find_if(
      incidents->begin(), incidents->end(), [&](const Incident& incident) {
        return incident.what == what && incident.service == event.service() &&
               incident.version == event.version();
      });
  if (same == incidents->end()) {
    Incident incident;
    incident.what = std::move(what);
    incident.service = event.service();
    incident.version = event.version();
    incident.first = time;
    same = incidents->insert(incidents->end(), std::move(incident));
  }
  ++same->count;
  same->last = time;
  same->text = event.text();
  same->evidence = Lines(event.evidence());
}

void Sort(const v1::Event& event, Story* story) {
  const std::string whose =
      absl::StrCat(event.service(), " ", event.version(), ": ");
  switch (event.kind()) {
    case v1::EVENT_KIND_BROKER_STARTED:
    case v1::EVENT_KIND_BROKER_STOPPING:
    case v1::EVENT_KIND_DEFINITIONS_CHANGED:
      story->broker.push_back(
          {FromProto(event.time()),
           absl::StrCat(KindName(event.kind()), ": ", event.text())});
      break;
    case v1::EVENT_KIND_REFUSED:
      Note(event, RefusalName(event.refusal()), &story->refusals);
      story->refused.push_back(
          {FromProto(event.time()),
           absl::StrCat(whose, RefusalName(event.refusal()))});
      break;
    case v1::EVENT_KIND_REQUEST_REPLAYED:
      Note(event, kSentAgain, &story->faults);
      story->replayed.push_back(
          {FromProto(event.time()), absl::StrCat(whose, event.text())});
      break;
    case v1::EVENT_KIND_BACKEND_START_FAILED:
      Note(event, kStartFailed, &story->faults);
      story->failed.push_back(
          {FromProto(event.time()), absl::StrCat(whose, event.text())});
      break;
    case v1::EVENT_KIND_BACKEND_WEDGED:
      Note(event, kWedged, &story->faults);
      story->failed.push_back(
          {FromProto(event.time()), absl::StrCat(whose, kWedged)});
      break;
    case v1::EVENT_KIND_LIMIT_REACHED:
      Note(event, kLimitReached, &story->faults);
      story->broker.push_back({FromProto(event.time()), event.text()});
      break;
    case v1::EVENT_KIND_BACKEND_DRAINING:
      Note(event, "drained", &story->ends);
      break;
    case v1::EVENT_KIND_BACKEND_ENDED:
      Note(event, "ended", &story->ends);
      break;
    default:
      break;
  }
}

}  // namespace

uint64_t Story::CountStarts(Start::Outcome outcome) const {
  return static_cast<uint64_t>(std::count_if(
      starts.begin(), starts.end(),
      [&](const Start& start) { return start.outcome == outcome; }));
}

uint64_t Story::CountFaults(absl::string_view what) const {
  uint64_t count = 0;
  for (const Incident& fault : faults) {
    if (fault.what == what) count += fault.count;
  }
  return count;
}

Story Tell(const std::vector<v1::Event>& events,
           const std::vector<v1::Backend>& backends,
           const std::vector<client::FallbackRecord>& fallbacks,
           absl::optional<absl::Time> from, absl::Time to) {
  Story story;
  const absl::Time first = events.empty() ? to : FromProto(events[0].time());
  story.window = {from.value_or(first), to};
  story.remembered = first;
  if (!events.empty()) story.forgotten = events[0].sequence() - 1;
  Historian historian(to);
  for (const v1::Event& event : events) {
    historian.Hear(event);
    if (!story.window.Has(FromProto(event.time()))) continue;
    story.events.push_back(event);
    Sort(event, &story);
  }
  for (const v1::Backend& backend : backends) historian.See(backend);
  historian.Finish();
  for (Start& start : historian.starts_) {
    if (start.asked + start.took >= story.window.from) {
      story.starts.push_back(std::move(start));
    }
  }
  story.lanes = Arrange(std::move(historian.lives_), story.window);
  std::stable_sort(
      story.refusals.begin(), story.refusals.end(),
      [](const Incident& a, const Incident& b) { return a.count > b.count; });
  for (const client::FallbackRecord& record : fallbacks) {
    if (story.window.Has(record.wall)) story.fallbacks.push_back(record);
    if (record.wall < story.window.from) ++story.older_fallbacks;
  }
  return story;
}

Distribution ReadDistribution(absl::string_view open_metrics,
                              absl::string_view name,
                              absl::string_view labels) {
  Distribution distribution;
  const std::string bucket = absl::StrCat(name, "_bucket{", labels,
                                          labels.empty() ? "" : ",", "le=\"");
  const std::string all =
      labels.empty() ? " " : absl::StrCat("{", labels, "} ");
  uint64_t below = 0;
  for (absl::string_view line : absl::StrSplit(open_metrics, '\n')) {
    if (absl::ConsumePrefix(&line, bucket)) {
      const std::pair<absl::string_view, absl::string_view> parts =
          absl::StrSplit(line, absl::MaxSplits("\"} ", 1));
      double bound = 0;
      uint64_t count = 0;
      if (!absl::SimpleAtoi(parts.second, &count)) continue;
      if (parts.first == "+Inf") {
        distribution.beyond = count - below;
      } else if (absl::SimpleAtod(parts.first, &bound)) {
        distribution.buckets.emplace_back(bound, count - below);
        below = count;
      }
    } else if (absl::ConsumePrefix(&line, absl::StrCat(name, "_count", all))) {
      (void)absl::SimpleAtoi(line, &distribution.count);
    } else if (absl::ConsumePrefix(&line, absl::StrCat(name, "_sum", all))) {
      (void)absl::SimpleAtod(line, &distribution.sum);
    }
  }
  return distribution;
}

Distribution Since(const Distribution& before, const Distribution& after) {
  if (before.buckets.size() != after.buckets.size() ||
      before.count > after.count) {
    return after;
  }
  Distribution between = after;
  for (size_t i = 0; i < between.buckets.size(); ++i) {
    between.buckets[i].second -= before.buckets[i].second;
  }
  between.beyond -= before.beyond;
  between.count -= before.count;
  between.sum -= before.sum;
  return between;
}

}  // namespace zcbroker::cli
