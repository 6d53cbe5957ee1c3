#include "client/cli/report_page.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/output.h"
#include "client/cli/report_html.h"
#include "client/cli/report_pictures.h"
#include "client/cli/report_style.h"
#include "client/fallback.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::cli {
namespace {

constexpr size_t kToldFaults = 8;
constexpr size_t kShownIncidents = 40;
constexpr size_t kShownRows = 200;
constexpr size_t kShownEvents = 500;

// No script of anybody's would run, and nothing would be fetched.
constexpr char kHead[] = R"html(<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$0</title>
)html";

// What failed is hatched, in all pictures.
constexpr char kHatch[] =
    R"html(<svg class="hidden" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6"
patternUnits="userSpaceOnUse"><path d="M0 6 6 0M-1 1 1 -1M5 7 7 5"/></pattern></defs></svg>
)html";

std::string Plural(uint64_t count, absl::string_view one,
                   absl::string_view many) {
  return absl::StrCat(count, " ", count == 1 ? one : many);
}

std::string Day(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", time, absl::LocalTimeZone());
}

// "1h2m3s", "0.25s"; nobody needs the nanoseconds.
std::string Spent(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(
      duration, duration >= absl::Seconds(10) ? absl::Seconds(1)
                                              : absl::Milliseconds(1)));
}

std::string Whose(absl::string_view service, absl::string_view version) {
  return absl::StrCat(service, service.empty() ? "" : " ", version);
}

uint64_t Counter(const v1::GetStatusResponse& status, const char* name) {
  const auto found = status.counters().find(name);
  return found == status.counters().end() ? 0 : found->second;
}

// --- Tables

struct Column {
  const char* name;
  // "number", "short", "code" or nothing.
  const char* kind = "";
};

// Cells are HTML.
std::string Table(const char* name, const std::vector<Column>& columns,
                  const std::vector<std::vector<std::string>>& rows,
                  size_t shown = kShownRows) {
  std::string html = Html("<table class=\"$0\"><thead><tr>", name);
  for (const Column& column : columns) {
    absl::StrAppend(&html,
                    Html("<th class=\"$0\">$1</th>", column.kind, column.name));
  }
  absl::StrAppend(&html, "</tr></thead><tbody>\n");
  for (size_t i = 0; i < std::min(rows.size(), shown); ++i) {
    absl::StrAppend(&html, "<tr>");
    for (size_t j = 0; j < columns.size(); ++j) {
      absl::StrAppend(&html,
                      Html("<td class=\"$0\" data-name=\"$1\">",
                           columns[j].kind, columns[j].name),
                      rows[i][j], "</td>");
    }
    absl::StrAppend(&html, "</tr>\n");
  }
  absl::StrAppend(&html, "</tbody></table>\n");
  if (rows.size() > shown) {
    absl::StrAppend(&html, Html("<p class=\"soft\">And $0 more.</p>\n",
                                rows.size() - shown));
  }
  return html;
}

// What was said, with the lines that prove it below.
std::string Evidence(absl::string_view text,
                     const std::vector<std::string>& lines) {
  std::vector<std::string> more;
  for (const std::string& line : lines) {
    if (line != text) more.push_back(line);
  }
  std::string html = EscapeHtml(text);
  if (!more.empty()) {
    absl::StrAppend(&html, Html("<pre>$0</pre>", absl::StrJoin(more, "\n")));
  }
  return html;
}

std::string Incidents(const char* name, const Window& window,
                      const std::vector<Incident>& incidents) {
  std::vector<std::vector<std::string>> rows;
  for (const Incident& incident : incidents) {
    rows.push_back({EscapeHtml(incident.what),
                    EscapeHtml(Whose(incident.service, incident.version)),
                    absl::StrCat(incident.count), Clock(window, incident.first),
                    incident.count == 1 ? "" : Clock(window, incident.last),
                    Evidence(incident.text, incident.evidence)});
  }
  return Table(name,
               {{"what", "short"},
                {"of"},
                {"times", "number"},
                {"first", "short"},
                {"last", "short"},
                {"the last said"}},
               rows, kShownIncidents);
}

// --- Parts of the page

std::string Legend(
    std::initializer_list<std::pair<const char*, const char*>> entries) {
  std::string html = "<p class=\"legend\">";
  for (const auto& [kind, name] : entries) {
    absl::StrAppend(&html,
                    Html("<span><i class=\"$0\"></i>$1</span>", kind, name));
  }
  return absl::StrCat(html, "</p>\n");
}

std::string Section(const char* id, const char* title, absl::string_view body) {
  return absl::StrCat(Html("<section id=\"$0\">\n<h2>$1</h2>\n", id, title),
                      body, "</section>\n");
}

std::string Nothing(const char* text) {
  return Html("<p class=\"soft\">$0</p>\n", text);
}

std::string Facts(const Observations& seen) {
  const v1::GetStatusResponse& status = seen.status;
  const Window& window = seen.story.window;
  const std::vector<std::pair<const char*, std::string>> facts = {
      {"window", absl::StrCat(Day(window.from), " to ", Day(window.to), " (",
                              Spent(window.to - window.from), "), times are ",
                              absl::FormatTime("UTC%Ez", window.to,
                                               absl::LocalTimeZone()))},
      {"broker",
       absl::StrCat("zcbrokerd ", status.version(), ", process ", status.pid(),
                    ", started ", Day(FromProto(status.started_at())))},
      {"socket", status.endpoint()},
      {"host", absl::StrCat(seen.host, ": ", seen.system)},
      {"written by", absl::StrCat("zcbroker ", seen.version)}};
  std::string html = "<dl class=\"facts\">\n";
  for (const auto& [name, value] : facts) {
    absl::StrAppend(&html, Html("<dt>$0</dt><dd>$1</dd>\n", name, value));
  }
  return absl::StrCat(html, "</dl>\n");
}

std::string Verdict(const Observations& seen) {
  const Story& story = seen.story;
  std::vector<std::string> bad;
  const auto add = [&](uint64_t count, const char* one, const char* many) {
    if (count > 0) bad.push_back(Plural(count, one, many));
  };
  add(story.CountFaults(kStartFailed), "failed start", "failed starts");
  add(story.CountFaults(kWedged), "wedged backend", "wedged backends");
  add(story.refused.size(), "refusal", "refusals");
  add(story.CountFaults(kSentAgain), "request sent again",
      "requests sent again");
  add(story.CountFaults(kLimitReached), "limit reached", "limits reached");
  add(story.fallbacks.size(), "client went without the broker",
      "times a client went without the broker");
  add(static_cast<uint64_t>(seen.status.problems_size()), "problem",
      "problems");
  if (!seen.cut_short.empty()) bad.emplace_back("the broker went away");
  return bad.empty()
             ? "<p class=\"verdict good\">Nothing failed in this window.</p>\n"
             : Html("<p class=\"verdict bad\">$0</p>\n",
                    absl::StrJoin(bad, ", "));
}

std::string SummaryList(const Observations& seen) {
  std::string html = "<ul class=\"summary\">\n";
  for (const Sentence& sentence : Summary(seen)) {
    absl::StrAppend(&html,
                    Html("<li class=\"$0\">$1</li>\n",
                         sentence.tone == Sentence::Tone::kBad    ? "bad"
                         : sentence.tone == Sentence::Tone::kGood ? "good"
                                                                  : "plain",
                         sentence.text));
  }
  return absl::StrCat(html, "</ul>\n");
}

std::string Timeline(const Story& story) {
  std::string html = Legend({{"starting", "starting"},
                             {"ready", "ready"},
                             {"draining", "draining"},
                             {"wedged", "wedged"},
                             {"failed", "start failed"}});
  absl::StrAppend(&html, TimelinePicture(story));
  if (story.lanes.size() > kShownLanes) {
    absl::StrAppend(&html, Html("<p class=\"soft\">And $0 more versions.</p>\n",
                                story.lanes.size() - kShownLanes));
  }
  return absl::StrCat(
      html,
      Nothing("An upright stroke is an end. What is shorter than a few "
              "pixels is drawn that wide. Point at anything to read it."));
}

std::string Starts(const Story& story) {
  if (story.starts.empty()) return Nothing("Nothing was started.");
  std::string html = Legend({{"look", "look"},
                             {"spawn", "spawn"},
                             {"bind", "bind"},
                             {"probe", "probe"},
                             {"publish", "publish"},
                             {"failed", "failed"}});
  absl::StrAppend(&html, StartsPicture(story));
  if (story.starts.size() > kShownStarts) {
    absl::StrAppend(&html, Html("<p class=\"soft\">Shown are the $0 of $1 that "
                                "took longest.</p>\n",
                                kShownStarts, story.starts.size()));
  }
  return html;
}

std::string Mean(const Distribution& distribution) {
  return Spell(absl::Seconds(distribution.sum /
                             static_cast<double>(distribution.count)));
}

std::string Answers(const Observations& seen) {
  std::string html;
  if (seen.answers.count == 0) {
    html = Nothing("No negotiation has had to wait since the broker's start.");
  } else {
    html = absl::StrCat(
        Html("<p>Since the broker's start $0 had to wait, $1 each on average. "
             "Those that found their backend ready are answered from a table "
             "and not timed.</p>\n",
             Plural(seen.answers.count, "negotiation", "negotiations"),
             Mean(seen.answers)),
        DistributionPicture(seen.answers));
  }
  std::string steps;
  for (const auto& [name, distribution] : seen.steps) {
    if (distribution.count == 0) continue;
    absl::StrAppend(
        &steps, "<div>",
        Html("<h3>$0: $1, $2 on average</h3>\n", name,
             Plural(distribution.count, "time", "times"), Mean(distribution)),
        DistributionPicture(distribution), "</div>\n");
  }
  if (!steps.empty()) {
    absl::StrAppend(&html,
                    "<h3>Steps of starts</h3>\n<div class=\"grid-of\">\n",
                    steps, "</div>\n");
  }
  return html;
}

std::string WatchedPart(const std::vector<Watched>& watched) {
  Series negotiations = {"negotiations", "a second", {}};
  Series relayed = {"relayed requests", "a second", {}};
  Series refused = {"refusals", "a second", {}};
  Series waited = {"answers that had to wait, on average", "ms", {}};
  Series answered = {
      "the broker's answer to this program (GetStatus)", "ms", {}};
  for (const Watched& look : watched) {
    const double seconds =
        std::max(1e-3, absl::ToDoubleSeconds(look.when.to - look.when.from));
    const auto rate = [&](uint64_t count) {
      return static_cast<double>(count) / seconds;
    };
    negotiations.values.emplace_back(look.when, rate(look.negotiations));
    relayed.values.emplace_back(look.when, rate(look.relayed));
    refused.values.emplace_back(look.when, rate(look.refused));
    waited.values.emplace_back(
        look.when, look.waited == 0 ? 0
                                    : 1000 * look.waited_seconds /
                                          static_cast<double>(look.waited));
    answered.values.emplace_back(look.when,
                                 absl::ToDoubleMilliseconds(look.answered));
  }
  std::string html = "<div class=\"grid-of\">\n";
  for (const Series* series :
       {&negotiations, &relayed, &refused, &waited, &answered}) {
    double most = 0;
    for (const auto& [when, value] : series->values) {
      most = std::max(most, value);
    }
    absl::StrAppend(&html, "<div>",
                    Html("<h3>$0: at most $1 $2</h3>\n", series->name,
                         absl::StrFormat("%.3g", most), series->unit),
                    most > 0 ? SeriesPicture(*series) : Nothing("None."),
                    "</div>\n");
  }
  return absl::StrCat(html, "</div>\n");
}

std::string Fallbacks(const Story& story) {
  struct Group {
    uint64_t count = 0;
    absl::Time last;
  };
  std::map<std::vector<std::string>, Group> groups;
  for (const client::FallbackRecord& record : story.fallbacks) {
    Group& group = groups[{
        std::string(client::FallbackReasonName(record.reason)), record.program,
        Whose(record.service, record.version),
        record.origin == client::FallbackOrigin::kLauncher ? "launcher"
                                                           : "library"}];
    ++group.count;
    group.last = std::max(group.last, record.wall);
  }
  std::string html;
  if (groups.empty()) {
    html = Nothing("No client of this user's left a record in this window.");
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const auto& [key, group] : groups) {
      rows.push_back({EscapeHtml(key[0]), EscapeHtml(key[1]),
                      EscapeHtml(key[2]), EscapeHtml(key[3]),
                      absl::StrCat(group.count),
                      Clock(story.window, group.last)});
    }
    html = Table("fallbacks",
                 {{"reason", "short"},
                  {"program", "short"},
                  {"of"},
                  {"by the", "short"},
                  {"times", "number"},
                  {"last", "short"}},
                 rows);
  }
  if (story.older_fallbacks > 0) {
    absl::StrAppend(
        &html, Html("<p class=\"soft\">$0 from before the window: zcbroker "
                    "explain --all.</p>\n",
                    Plural(story.older_fallbacks, "record is", "records are")));
  }
  return html;
}

std::string Backends(const std::vector<v1::Backend>& backends) {
  if (backends.empty()) return Nothing("None is known.");
  std::vector<std::vector<std::string>> rows;
  for (const v1::Backend& backend : backends) {
    const std::vector<std::string> evidence(backend.evidence().begin(),
                                            backend.evidence().end());
    std::string last;
    if (!backend.last_end().empty()) {
      last = absl::StrCat("the last one ended: ", backend.last_end());
    }
    if (backend.has_world()) {
      absl::StrAppend(&last, last.empty() ? "" : "; ", "for clients of ",
                      backend.world().cache_root());
    }
    rows.push_back(
        {EscapeHtml(Whose(backend.service(), backend.version())),
         StateName(backend.state()),
         backend.has_route() ? absl::StrCat(backend.route().pid()) : "",
         EscapeHtml(backend.has_route() ? backend.route().endpoint()
                                        : backend.log_file()),
         Evidence(last, evidence)});
  }
  return Table("backends",
               {{"backend"},
                {"state", "short"},
                {"process", "number"},
                {"endpoint or log", "code"},
                {"more"}},
               rows);
}

std::string Definitions(const v1::GetStatusResponse& status) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::ServiceSummary& service : status.services()) {
    rows.push_back({EscapeHtml(service.name()),
                    EscapeHtml(absl::StrJoin(service.versions(), ", ")),
                    EscapeHtml(service.source())});
  }
  std::string html =
      Table("services", {{"service"}, {"versions"}, {"from", "code"}}, rows);
  rows.clear();
  for (const v1::Problem& problem : status.problems()) {
    rows.push_back({EscapeHtml(problem.where()), EscapeHtml(problem.what())});
  }
  absl::StrAppend(
      &html, rows.empty()
                 ? Nothing("No problems.")
                 : Table("problems", {{"where", "code"}, {"problem"}}, rows));
  rows.clear();
  for (const v1::Setting& setting : status.settings()) {
    rows.push_back({EscapeHtml(setting.name()), EscapeHtml(setting.value()),
                    EscapeHtml(setting.source())});
  }
  return absl::StrCat(
      html, "<details><summary>Settings in force</summary>\n",
      Table("settings", {{"name", "code"}, {"value"}, {"set by"}}, rows),
      "</details>\n");
}

std::string Counters(const v1::GetStatusResponse& status) {
  const std::map<std::string, uint64_t> sorted(status.counters().begin(),
                                               status.counters().end());
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, count] : sorted) {
    rows.push_back({EscapeHtml(name), absl::StrCat(count)});
  }
  return absl::StrCat(
      "<details><summary>Counters since the broker's start</summary>\n",
      Table("counters", {{"counter", "code"}, {"count", "number"}}, rows),
      "</details>\n");
}

std::string Events(const Story& story) {
  std::vector<std::vector<std::string>> rows;
  const size_t skipped =
      story.events.size() - std::min(story.events.size(), kShownEvents);
  for (size_t i = skipped; i < story.events.size(); ++i) {
    const v1::Event& event = story.events[i];
    rows.push_back({Clock(story.window, FromProto(event.time())),
                    KindName(event.kind()),
                    EscapeHtml(Whose(event.service(), event.version())),
                    event.pid() == 0 ? "" : absl::StrCat(event.pid()),
                    EscapeHtml(event.text())});
  }
  std::string html;
  for (size_t i = 0; i < rows.size(); i += kShownRows) {
    const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(i);
    const auto end = begin + static_cast<std::ptrdiff_t>(
                                 std::min(kShownRows, rows.size() - i));
    absl::StrAppend(&html, Table("events",
                                 {{"time", "short"},
                                  {"event", "short"},
                                  {"of"},
                                  {"process", "number"},
                                  {"text"}},
                                 {begin, end}));
  }
  return absl::StrCat(
      Html("<details><summary>$0$1</summary>\n",
           Plural(story.events.size(), "event", "events"),
           skipped == 0 ? "" : absl::StrCat(", the last ", kShownEvents)),
      html, "</details>\n");
}

std::string About(const Observations& seen) {
  const Story& story = seen.story;
  std::vector<std::string> said = {
      seen.window_asked
          ? "The window is what was asked for."
          : "The window is all that the broker remembers: it keeps its last "
            "4096 events, and none of the broker before it.",
      story.forgotten == 0
          ? "No event was forgotten."
          : absl::StrCat(Plural(story.forgotten, "event was", "events were"),
                         " forgotten before the report was asked for."),
      ("Timeline, starts, faults, refusals and ends are events "
       "(Admin.StreamEvents). An event does not say of which world it is: two "
       "backends of one version are told apart by their process."),
      ("Single negotiations are no events. They are counted, and those that "
       "had to wait are timed in a histogram (Admin.GetMetrics): both since "
       "the broker's start, whatever the window."),
      seen.watched.empty()
          ? "How often and how fast over time is not known; zcbroker report "
            "--for 1m FILE watches the broker for a minute first."
          : absl::StrCat("Rates are differences of counters between ",
                         seen.watched.size() + 1,
                         " looks at the broker while it was watched."),
      ("Clients that went without the broker are those of this user that left "
       "a record beside its socket; a client that is not ours leaves none.")};
  if (story.remembered > story.window.from) {
    said.push_back(absl::StrCat("The broker's memory begins at ",
                                Day(story.remembered),
                                ", within the window: what was before is not "
                                "known, and grey in the timeline."));
  }
  if (!seen.cut_short.empty()) {
    said.push_back(
        absl::StrCat("The watching ended early: ", seen.cut_short,
                     ". What the broker said last is what is here."));
  }
  std::string html = "<ul>\n";
  for (const std::string& sentence : said) {
    absl::StrAppend(&html, Html("<li>$0</li>\n", sentence));
  }
  return absl::StrCat(html, "</ul>\n");
}

void SummarizeStarts(const Story& story, std::vector<Sentence>* sentences) {
  const uint64_t ready = story.CountStarts(Start::Outcome::kReady);
  const uint64_t adopted = story.CountStarts(Start::Outcome::kAdopted);
  if (ready + adopted > 0) {
    const auto slowest = std::max_element(
        story.starts.begin(), story.starts.end(),
        [](const Start& a, const Start& b) {
          return (a.steps.empty() ? absl::ZeroDuration() : a.took) <
                 (b.steps.empty() ? absl::ZeroDuration() : b.took);
        });
    std::string text =
        absl::StrCat(Plural(ready, "backend was", "backends were"), " started");
    if (adopted > 0) absl::StrAppend(&text, " and ", adopted, " adopted");
    if (!slowest->steps.empty()) {
      const auto step = std::max_element(
          slowest->steps.begin(), slowest->steps.end(),
          [](const auto& a, const auto& b) { return a.second < b.second; });
      absl::StrAppend(
          &text, ready + adopted == 1 ? ", in " : "; the slowest, ",
          ready + adopted == 1
              ? ""
              : absl::StrCat(Whose(slowest->service, slowest->version),
                             ", took "),
          Spell(slowest->took), ", ", Spell(step->second), " of it for its ",
          step->first);
    }
    sentences->push_back({Sentence::Tone::kPlain, absl::StrCat(text, ".")});
  }
  size_t told = 0;
  for (const Incident& fault : story.faults) {
    if (fault.what == kSentAgain) continue;
    sentences->push_back(
        {Sentence::Tone::kBad,
         absl::StrCat(
             Whose(fault.service, fault.version), ": ", fault.what,
             fault.count == 1 ? "" : absl::StrCat(" ", fault.count, " times"),
             "; ",
             fault.what == kWedged && !fault.evidence.empty()
                 ? fault.evidence.front()
                 : fault.text)});
    if (++told == kToldFaults) break;
  }
}

}  // namespace

std::vector<Sentence> Summary(const Observations& seen) {
  const Story& story = seen.story;
  std::vector<Sentence> sentences;
  const uint64_t negotiations = Counter(seen.status, "negotiations");
  const uint64_t relayed = Counter(seen.status, "relay.requests");
  sentences.push_back(
      {Sentence::Tone::kPlain,
       absl::StrCat(
           "Since its start, ", Day(FromProto(seen.status.started_at())),
           ", the broker has answered ",
           Plural(negotiations, "negotiation", "negotiations"), " and relayed ",
           Plural(relayed, "request", "requests"), "; ", seen.answers.count,
           " had to wait",
           seen.answers.count == 0
               ? "."
               : absl::StrCat(", ", Mean(seen.answers), " on average."))});
  if (story.starts.empty()) {
    sentences.push_back({Sentence::Tone::kPlain, "Nothing was started."});
  }
  SummarizeStarts(story, &sentences);
  if (!story.refusals.empty()) {
    const Incident& most = story.refusals.front();
    sentences.push_back(
        {Sentence::Tone::kBad,
         absl::StrCat(
             Plural(story.refused.size(), "refusal", "refusals"),
             story.refusals.size() == 1 ? ": " : ", the most frequent ",
             most.what, " for ", Whose(most.service, most.version),
             most.count == 1 ? "" : absl::StrCat(", ", most.count, " times"),
             ".")});
  }
  if (const uint64_t again = story.CountFaults(kSentAgain); again > 0) {
    sentences.push_back(
        {Sentence::Tone::kBad,
         absl::StrCat(
             Plural(again, "relayed request was", "relayed requests were"),
             " sent again, since its backend died or was wedged.")});
  }
  if (!story.fallbacks.empty()) {
    std::map<absl::string_view, uint64_t> reasons;
    for (const client::FallbackRecord& record : story.fallbacks) {
      ++reasons[client::FallbackReasonName(record.reason)];
    }
    sentences.push_back(
        {Sentence::Tone::kBad,
         absl::StrCat("Clients went without the broker: ",
                      absl::StrJoin(reasons, ", ", absl::PairFormatter(" ")),
                      ".")});
  }
  for (const v1::Problem& problem : seen.status.problems()) {
    sentences.push_back(
        {Sentence::Tone::kBad,
         absl::StrCat("Problem: ", problem.where(), ": ", problem.what())});
  }
  if (!seen.cut_short.empty()) {
    sentences.push_back(
        {Sentence::Tone::kBad,
         absl::StrCat("The watching ended early: ", seen.cut_short, ".")});
  }
  return sentences;
}

std::string Page(const Observations& seen) {
  const Story& story = seen.story;
  const std::string title =
      absl::StrCat("zcbroker on ", seen.host, ", ", Day(story.window.to));
  std::string html = absl::StrCat(
      kPageBegins, Html(kHead, title), "<style>", kReportStyle,
      "</style>\n</head>\n<body>\n", kHatch, Html("<h1>$0</h1>\n", title),
      Verdict(seen), SummaryList(seen), Facts(seen));
  const auto add = [&](const char* id, const char* heading,
                       const std::string& body) {
    absl::StrAppend(&html, Section(id, heading, body));
  };
  add("timeline", "Timeline", Timeline(story));
  add("starts", "Starts, step by step", Starts(story));
  if (!seen.watched.empty()) {
    add("watched", "While it was watched", WatchedPart(seen.watched));
  }
  add("answers", "How long answers took", Answers(seen));
  add("faults", "Faults",
      story.faults.empty()
          ? Nothing("No start failed, nothing was wedged or sent again.")
          : Incidents("faults", story.window, story.faults));
  add("refusals", "Refusals",
      story.refusals.empty()
          ? Nothing("Nobody was refused.")
          : Incidents("refusals", story.window, story.refusals));
  add("ends", "Ends",
      story.ends.empty() ? Nothing("No backend ended.")
                         : Incidents("ends", story.window, story.ends));
  add("fallbacks", "Clients that went without", Fallbacks(story));
  add("backends", "Backends, at the end of the window",
      Backends(seen.backends));
  add("definitions", "Definitions and problems", Definitions(seen.status));
  add("all", "Everything else",
      absl::StrCat(Counters(seen.status), Events(story)));
  add("about", "What this page can say", About(seen));
  return absl::StrCat(html, "</body>\n</html>\n");
}

}  // namespace zcbroker::cli
