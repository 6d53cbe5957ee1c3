#include "service/core/metrics.h"

#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::service {
namespace {

std::string Label(absl::string_view name, absl::string_view value) {
  return absl::StrCat(
      name, "=\"",
      absl::StrReplaceAll(value,
                          {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}),
      "\"");
}

void Family(absl::string_view name, absl::string_view type,
            absl::string_view help, std::string* text) {
  absl::StrAppend(text, "# TYPE ", name, " ", type, "\n# HELP ", name, " ",
                  help, "\n");
}

// Counters are called by one word, or by a family and a member: "refused" and
// "RATE_LIMITED".
std::pair<std::string, std::string> Split(const std::string& counter) {
  const size_t dot = counter.find('.');
  if (dot == std::string::npos) return {counter, ""};
  return {counter.substr(0, dot), counter.substr(dot + 1)};
}

std::string StateName(v1::BackendState state) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::BackendState_Name(state), "BACKEND_STATE_"));
}

}  // namespace

void Histogram::Observe(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  for (size_t i = 0; i < kBounds.size(); ++i) {
    if (seconds <= kBounds[i]) ++counts_[i];
  }
  ++counts_.back();
  sum_ += seconds;
}

std::string Histogram::Samples(const std::string& name,
                               const std::string& labels) const {
  std::string text;
  const std::string more = labels.empty() ? "" : absl::StrCat(labels, ",");
  const std::string all = labels.empty() ? "" : absl::StrCat("{", labels, "}");
  for (size_t i = 0; i < kBounds.size(); ++i) {
    absl::StrAppend(&text, name, "_bucket{", more, "le=\"", kBounds[i], "\"} ",
                    counts_[i], "\n");
  }
  absl::StrAppend(&text, name, "_bucket{", more, "le=\"+Inf\"} ",
                  counts_.back(), "\n", name, "_count", all, " ",
                  counts_.back(), "\n", name, "_sum", all, " ", sum_, "\n");
  return text;
}

void Metrics::Observe(const v1::NegotiationStep& step) {
  steps_[step.name()].Observe(FromProto(step.duration()));
}

std::string Metrics::Render(const v1::GetStatusResponse& status,
                            const v1::ListBackendsResponse& backends) const {
  std::string text;
  Family("zcbroker_build", "info", "The running broker.", &text);
  absl::StrAppend(&text, "zcbroker_build_info{",
                  Label("version", status.version()), "} 1\n");
  Family("zcbroker_uptime_seconds", "gauge", "Since the broker started.",
         &text);
  absl::StrAppend(&text, "zcbroker_uptime_seconds ", status.uptime().seconds(),
                  "\n");
  Family("zcbroker_open_connections", "gauge",
         "Connections open at the broker's own socket.", &text);
  absl::StrAppend(&text, "zcbroker_open_connections ", status.connections(),
                  "\n");
  Family("zcbroker_problems", "gauge", "What `zcbroker status` lists as such.",
         &text);
  absl::StrAppend(&text, "zcbroker_problems ", status.problems_size(), "\n");

  // Of one version there may be several, in several worlds.
  std::map<std::string, int> states;
  for (const v1::Backend& backend : backends.backends()) {
    ++states[absl::StrCat(Label("service", backend.service()), ",",
                          Label("version", backend.version()), ",",
                          Label("state", StateName(backend.state())))];
  }
  Family("zcbroker_backends", "gauge", "Backends the broker knows.", &text);
  for (const auto& [labels, count] : states) {
    absl::StrAppend(&text, "zcbroker_backends{", labels, "} ", count, "\n");
  }

  // A family's members stand together.
  std::map<std::string, std::map<std::string, uint64_t>> families;
  for (const auto& [counter, count] : status.counters()) {
    const auto [family, member] = Split(counter);
    families[family][member] = count;
  }
  for (const auto& [family, members] : families) {
    const std::string name = absl::StrCat("zcbroker_", family);
    Family(name, "counter", "See docs/operations.md, Counters.", &text);
    for (const auto& [member, count] : members) {
      absl::StrAppend(
          &text, name, "_total",
          member.empty() ? "" : absl::StrCat("{", Label("what", member), "}"),
          " ", count, "\n");
    }
  }

  Family("zcbroker_answer_seconds", "histogram",
         "Negotiations that had to wait, from question to answer.", &text);
  text += answers_.Samples("zcbroker_answer_seconds", "");
  Family("zcbroker_start_step_seconds", "histogram",
         "Steps of starts that succeeded.", &text);
  for (const auto& [step, histogram] : steps_) {
    text +=
        histogram.Samples("zcbroker_start_step_seconds", Label("step", step));
  }
  return absl::StrCat(text, "# EOF\n");
}

}  // namespace zcbroker::service
