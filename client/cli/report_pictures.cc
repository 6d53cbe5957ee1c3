#include "client/cli/report_pictures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/output.h"
#include "client/cli/report_html.h"
#include "client/fallback.h"

namespace zcbroker::cli {
namespace {

// Pixels.
constexpr int kLine = 16;  // of text
constexpr int kBar = 12;
constexpr int kRow = kBar + 4;
constexpr int kGap = 8;

// What is shorter is drawn as long as this, to be seen at all.
constexpr double kLeast = 0.003;
// Bars leave room for the number behind them.
constexpr double kBarsEnd = 0.78;
// Where bars of a distribution begin, right of what they are of.
constexpr double kBarsBegin = 0.2;
// Moments that are nearer than this are one mark.
constexpr int kMarks = 150;

std::string Percent(double fraction) {
  return absl::StrFormat("%.3f%%", 100 * fraction);
}

std::string Open(absl::string_view name, absl::string_view label, int height) {
  return Html(
      "<svg class=\"picture $0\" width=\"100%\" height=\"$1\" role=\"img\" "
      "aria-label=\"$2\">\n",
      name, height, label);
}

std::string Label(double x, int y, absl::string_view anchor,
                  absl::string_view text) {
  return Html("<text x=\"$0\" y=\"$1\" text-anchor=\"$2\">$3</text>\n",
              Percent(x), y, anchor, text);
}

std::string Bar(absl::string_view kind, double from, double to, int y,
                int height, absl::string_view title) {
  const double width = std::max(to - from, kLeast);
  return Html(
      "<rect class=\"$0\" x=\"$1\" y=\"$2\" width=\"$3\" height=\"$4\">"
      "<title>$5</title></rect>\n",
      kind, Percent(std::min(from, 1 - width)), y, Percent(width), height,
      title);
}

// --- Time from left to right

double Place(const Window& window, absl::Time time) {
  const double all = absl::ToDoubleSeconds(window.to - window.from);
  return all <= 0 ? 0 : absl::ToDoubleSeconds(time - window.from) / all;
}

// In seconds, each at most twice the one before, so that there is always one of
// which a window holds two to four.
constexpr std::array<double, 34> kSteps = {
    0.001, 0.002, 0.003, 0.005, 0.01,  0.02,   0.03,  0.05, 0.1,
    0.2,   0.3,   0.5,   1,     2,     3,      5,     10,   15,
    30,    60,    120,   180,   300,   600,    900,   1800, 3600,
    7200,  10800, 21600, 43200, 86400, 172800, 345600};

absl::Duration Step(const Window& window) {
  const double all = absl::ToDoubleSeconds(window.to - window.from);
  const auto enough =
      std::find_if(kSteps.begin(), kSteps.end(),
                   [&](double step) { return step * 4 >= all; });
  return absl::Seconds(enough == kSteps.end()
                           ? kSteps.back() * std::ceil(all / 4 / kSteps.back())
                           : *enough);
}

// Round times by the clock on the wall, two to five of them.
std::vector<absl::Time> Ticks(const Window& window, absl::Duration step) {
  const absl::Duration offset =
      absl::Seconds(absl::LocalTimeZone().At(window.from).offset);
  absl::Time tick = absl::UnixEpoch() - offset +
                    absl::Ceil(window.from - absl::UnixEpoch() + offset, step);
  std::vector<absl::Time> ticks;
  for (; tick <= window.to; tick += step) ticks.push_back(tick);
  return ticks;
}

// At most eight letters, since neighbours must not touch on a telephone: the
// heading has the rest. Where steps are of hours, midnight is told by its day.
const char* TickFormat(absl::Duration step, absl::Time tick) {
  const absl::TimeZone zone = absl::LocalTimeZone();
  if (step >= absl::Hours(1) &&
      absl::ToCivilSecond(tick, zone) ==
          absl::CivilSecond(absl::ToCivilDay(tick, zone))) {
    return "%m-%d";
  }
  return step >= absl::Minutes(1)          ? "%H:%M"
         : step >= absl::Seconds(1)        ? "%H:%M:%S"
         : step >= absl::Milliseconds(100) ? "%M:%E1S"
                                           : "%E3S";
}

std::string TimeAxis(const Window& window, int height) {
  const absl::Duration step = Step(window);
  std::string svg;
  for (const absl::Time tick : Ticks(window, step)) {
    const double x = Place(window, tick);
    absl::StrAppend(
        &svg,
        Html("<line class=\"grid\" x1=\"$0\" x2=\"$0\" y1=\"$1\" y2=\"$2\"/>\n",
             Percent(x), kLine, height),
        Label(x, kLine - 4,
              x < 0.1   ? "start"
              : x > 0.9 ? "end"
                        : "middle",
              absl::FormatTime(TickFormat(step, tick), tick,
                               absl::LocalTimeZone())));
  }
  return svg;
}

// --- The timeline

const char* ClassOf(Phase::Kind kind) {
  switch (kind) {
    case Phase::Kind::kStarting:
      return "starting";
    case Phase::Kind::kStartFailed:
      return "failed";
    case Phase::Kind::kReady:
      return "ready";
    case Phase::Kind::kDraining:
      return "draining";
    case Phase::Kind::kWedged:
      return "wedged";
  }
  return "";
}

std::string LifePicture(const Life& life, const Window& window, int y) {
  std::string svg;
  for (const Phase& phase : life.phases) {
    std::string title = absl::StrCat(
        life.service, " ", life.version, " ", ClassOf(phase.kind), ", ",
        Clock(window, phase.from), " to ", Clock(window, phase.to));
    if (life.pid != 0) absl::StrAppend(&title, ", process ", life.pid);
    if (!phase.text.empty()) absl::StrAppend(&title, ": ", phase.text);
    absl::StrAppend(&svg, Bar(ClassOf(phase.kind), Place(window, phase.from),
                              Place(window, phase.to), y, kBar, title));
  }
  if (life.end.has_value()) {
    const std::string x = Percent(Place(window, life.phases.back().to));
    absl::StrAppend(&svg,
                    Html("<line class=\"end\" x1=\"$0\" x2=\"$0\" y1=\"$1\" "
                         "y2=\"$2\"><title>ended: $3</title></line>\n",
                         x, y - 2, y + kBar + 2, *life.end));
  }
  return svg;
}

// Moments as marks that grow with their number.
std::string MarksPicture(absl::string_view kind,
                         const std::vector<Moment>& moments,
                         const Window& window, int y) {
  std::map<int, std::vector<const Moment*>> marks;
  for (const Moment& moment : moments) {
    marks[static_cast<int>(kMarks * Place(window, moment.time))].push_back(
        &moment);
  }
  std::string svg;
  for (const auto& [place, those] : marks) {
    std::map<std::string, int> texts;
    for (const Moment* moment : those) ++texts[moment->text];
    std::string title = Clock(window, those.front()->time);
    if (those.size() > 1) {
      absl::StrAppend(&title, " to ", Clock(window, those.back()->time));
    }
    int told = 0;
    for (const auto& [text, count] : texts) {
      if (++told > 8) break;
      absl::StrAppend(&title, "\n", text,
                      count > 1 ? absl::StrCat(" (", count, " times)") : "");
    }
    const double x = Place(window, those.front()->time);
    absl::StrAppend(
        &svg, Html("<circle class=\"$0\" cx=\"$1\" cy=\"$2\" r=\"$3\">"
                   "<title>$4</title></circle>\n",
                   kind, Percent(std::clamp(x, 0.008, 0.992)), y + kBar / 2,
                   absl::StrFormat("%.1f",
                                   std::min(8.0, 3 + std::log2(those.size()))),
                   title));
  }
  return svg;
}

// What was before the broker's memory begins.
std::string Unknown(const Story& story, int height) {
  if (story.remembered <= story.window.from) return "";
  return Bar("unknown", 0, std::min(1.0, Place(story.window, story.remembered)),
             kLine, height - kLine, "not remembered");
}

// --- Starts

const char* ClassOfStep(absl::string_view name) {
  for (const char* known : {"look", "spawn", "bind", "probe", "publish"}) {
    if (name == known) return known;
  }
  return "other";
}

std::string StartPicture(const Start& start, const Window& window,
                         absl::Duration longest, int y) {
  const auto at = [&](absl::Duration time) {
    return kBarsEnd * absl::FDivDuration(time, longest);
  };
  std::string svg = absl::StrCat(
      "<g class=\"start\">\n",
      Label(0, y + kLine - 5, "start",
            absl::StrCat(
                Clock(window, start.asked), "  ", start.service, " ",
                start.version,
                start.outcome == Start::Outcome::kAdopted ? ", adopted" : "")));
  const int bar = y + kLine;
  if (start.steps.empty()) {
    const bool failed = start.outcome == Start::Outcome::kFailed;
    absl::StrAppend(&svg, Bar(failed ? "failed" : "starting", 0, at(start.took),
                              bar, kBar, start.text));
  }
  absl::Duration before;
  for (const auto& [name, duration] : start.steps) {
    absl::StrAppend(
        &svg, Bar(ClassOfStep(name), at(before), at(before + duration), bar,
                  kBar, absl::StrCat(name, " ", Spell(duration))));
    before += duration;
  }
  const char* said = start.outcome == Start::Outcome::kFailed       ? " failed"
                     : start.outcome == Start::Outcome::kUnfinished ? " so far"
                                                                    : "";
  return absl::StrCat(
      svg,
      Label(std::max(at(start.took), kLeast) + 0.01, bar + kBar - 2, "start",
            absl::StrCat(Spell(start.took), said)),
      "</g>\n");
}

// "0.1 ms", "5 s".
std::string Bound(double seconds) {
  return seconds < 0.1 ? absl::StrCat(seconds * 1000, " ms")
                       : absl::StrCat(seconds, " s");
}

}  // namespace

std::string Clock(const Window& window, absl::Time time) {
  return absl::FormatTime(window.to - window.from < absl::Hours(24)
                              ? "%H:%M:%E3S"
                              : "%m-%d %H:%M:%E3S",
                          time, absl::LocalTimeZone());
}

std::string TimelinePicture(const Story& story) {
  const size_t lanes = std::min(story.lanes.size(), kShownLanes);
  std::string body;
  int y = kLine + kGap;
  for (size_t i = 0; i < lanes; ++i) {
    const Lane& lane = story.lanes[i];
    absl::StrAppend(&body, "<g class=\"lane\">\n",
                    Label(0, y + kLine - 4, "start",
                          absl::StrCat(lane.service, " ", lane.version)));
    y += kLine;
    for (const std::vector<Life>& row : lane.rows) {
      absl::StrAppend(
          &body, Html("<rect class=\"rail\" x=\"0\" y=\"$0\" width=\"100%\" "
                      "height=\"$1\"/>\n",
                      y, kBar));
      for (const Life& life : row) {
        absl::StrAppend(&body, LifePicture(life, story.window, y));
      }
      y += kRow;
    }
    absl::StrAppend(&body, "</g>\n");
    y += kGap;
  }
  std::vector<Moment> fallbacks;
  for (const client::FallbackRecord& record : story.fallbacks) {
    fallbacks.push_back(
        {record.wall, absl::StrCat(record.program, ": ",
                                   client::FallbackReasonName(record.reason))});
  }
  const std::array<std::tuple<const char*, const char*, std::vector<Moment>>, 5>
      marks = {{{"fault", "failed or wedged", story.failed},
                {"refused", "refused", story.refused},
                {"replayed", "requests sent again", story.replayed},
                {"fallback", "clients that went without", fallbacks},
                {"broker", "the broker itself", story.broker}}};
  for (const auto& [kind, name, moments] : marks) {
    if (moments.empty()) continue;
    absl::StrAppend(
        &body, "<g class=\"marks\">\n",
        Label(0, y + kLine - 4, "start",
              moments.size() == 1
                  ? std::string(name)
                  : absl::StrCat(name, ", ", moments.size(), " times")),
        MarksPicture(kind, moments, story.window, y + kLine), "</g>\n");
    y += kLine + kRow + kGap;
  }
  return absl::StrCat(
      Open("timeline",
           absl::StrCat("Backends and incidents from ",
                        Clock(story.window, story.window.from), " to ",
                        Clock(story.window, story.window.to)),
           y),
      Unknown(story, y), TimeAxis(story.window, y), body, "</svg>\n");
}

std::string StartsPicture(const Story& story) {
  std::vector<const Start*> shown;
  for (const Start& start : story.starts) shown.push_back(&start);
  const size_t count = std::min(shown.size(), kShownStarts);
  std::partial_sort(
      shown.begin(), shown.begin() + static_cast<std::ptrdiff_t>(count),
      shown.end(),
      [](const Start* a, const Start* b) { return a->took > b->took; });
  shown.resize(count);
  if (shown.empty()) return "";
  const absl::Duration longest =
      std::max(shown.front()->took, absl::Microseconds(1));
  std::sort(shown.begin(), shown.end(),
            [](const Start* a, const Start* b) { return a->asked < b->asked; });
  constexpr int kHeight = kLine + kBar + kGap;
  std::string svg = Open("starts", "How long each step of each start took",
                         static_cast<int>(count) * kHeight);
  int y = 0;
  for (const Start* start : shown) {
    absl::StrAppend(&svg, StartPicture(*start, story.window, longest, y));
    y += kHeight;
  }
  return absl::StrCat(svg, "</svg>\n");
}

std::string DistributionPicture(const Distribution& distribution) {
  std::vector<std::pair<std::string, uint64_t>> bars;
  for (const auto& [bound, count] : distribution.buckets) {
    bars.emplace_back(absl::StrCat("≤ ", Bound(bound)), count);
  }
  if (!distribution.buckets.empty()) {
    bars.emplace_back(
        absl::StrCat("> ", Bound(distribution.buckets.back().first)),
        distribution.beyond);
  }
  const auto full = [](const auto& bar) { return bar.second > 0; };
  bars.erase(bars.begin(), std::find_if(bars.begin(), bars.end(), full));
  bars.erase(std::find_if(bars.rbegin(), bars.rend(), full).base(), bars.end());
  if (bars.empty()) return "";
  uint64_t most = 0;
  for (const auto& [name, count] : bars) most = std::max(most, count);
  std::string svg = Open("distribution", "How often something took how long",
                         static_cast<int>(bars.size()) * kRow);
  int y = 0;
  for (const auto& [name, count] : bars) {
    const double end = kBarsBegin + (kBarsEnd - kBarsBegin) *
                                        static_cast<double>(count) /
                                        static_cast<double>(most);
    absl::StrAppend(&svg, "<g class=\"bucket\">\n",
                    Label(kBarsBegin - 0.02, y + kBar - 2, "end", name));
    if (count > 0) {
      absl::StrAppend(&svg, Bar("count", kBarsBegin, end, y, kBar,
                                absl::StrCat(name, ": ", count)));
    }
    absl::StrAppend(
        &svg, Label(end + 0.01, y + kBar - 2, "start", absl::StrCat(count)),
        "</g>\n");
    y += kRow;
  }
  return absl::StrCat(svg, "</svg>\n");
}

std::string SeriesPicture(const Series& series) {
  constexpr int kHeight = 56;
  if (series.values.empty()) return "";
  const Window window = {series.values.front().first.from,
                         series.values.back().first.to};
  double most = 0;
  for (const auto& [when, value] : series.values) most = std::max(most, value);
  std::string svg =
      absl::StrCat(Open("series", series.name, kLine + kHeight),
                   Label(0, kLine - 4, "start", Clock(window, window.from)),
                   Label(1, kLine - 4, "end", Clock(window, window.to)));
  for (const auto& [when, value] : series.values) {
    const int height =
        most <= 0 ? 0 : static_cast<int>(std::lround(kHeight * value / most));
    absl::StrAppend(
        &svg, Bar("rate", Place(window, when.from), Place(window, when.to),
                  kLine + kHeight - height, height,
                  absl::StrFormat("%s: %.4g %s", Clock(window, when.from),
                                  value, series.unit)));
  }
  return absl::StrCat(svg, "</svg>\n");
}

}  // namespace zcbroker::cli
