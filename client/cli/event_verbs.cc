// events and metrics: what the broker has noted and counted.
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "client/cli/admin_client.h"
#include "client/cli/exit_status.h"
#include "client/cli/verbs.h"
#include "ipc/environment.h"
#include "ipc/names.h"

namespace zcbroker::cli {
namespace {

// "EVENT_KIND_BACKEND_READY" is "backend ready".
std::string KindName(v1::EventKind kind) {
  std::string name = v1::EventKind_Name(kind);
  name = name.empty() ? "unknown" : name.substr(sizeof("EVENT_KIND_") - 1);
  for (char& c : name) {
    c = c == '_' ? ' ' : static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  return name;
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

std::string Line(const v1::Event& event) {
  const absl::Time time = absl::FromUnixSeconds(event.time().seconds()) +
                          absl::Nanoseconds(event.time().nanos());
  std::string line = absl::StrCat(
      absl::FormatTime("%Y-%m-%d %H:%M:%E3S", time, absl::LocalTimeZone()),
      "  ", KindName(event.kind()));
  if (!event.service().empty()) {
    absl::StrAppend(&line, "  ", event.service(), " ", event.version());
  }
  if (event.pid() != 0) absl::StrAppend(&line, "  process ", event.pid());
  if (event.refusal() != v1::REFUSAL_UNSPECIFIED) {
    absl::StrAppend(
        &line, "  ",
        v1::Refusal_Name(event.refusal()).substr(sizeof("REFUSAL_") - 1));
  }
  absl::StrAppend(&line, "  ", ipc::Printable(event.text(), 400));
  if (event.kind() == v1::EVENT_KIND_BACKEND_READY) {
    absl::Duration all;
    std::vector<std::string> steps;
    for (const v1::NegotiationStep& step : event.steps()) {
      all += ToDuration(step.duration());
      steps.push_back(
          absl::StrCat(step.name(), " ", Spell(ToDuration(step.duration()))));
    }
    absl::StrAppend(
        &line, event.origin() == v1::ROUTE_ORIGIN_ADOPTED ? "  adopted" : "",
        steps.empty() ? ""
                      : absl::StrCat("  in ", Spell(all), " (",
                                     absl::StrJoin(steps, ", "), ")"));
  }
  for (const std::string& evidence : event.evidence()) {
    // What the text says already.
    if (evidence == event.text()) continue;
    absl::StrAppend(&line, "\n    ", ipc::Printable(evidence, 200));
  }
  return line;
}

}  // namespace

int Events(Format format, const EventOptions& options) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  const absl::Status ended = (*admin)->StreamEvents(
      options.after, options.follow, [format](const v1::Event& event) {
        if (format == Format::kJson) {
          PrintJson(event);
        } else {
          printf("%s\n", Line(event).c_str());
        }
        // Whoever follows sees each as it happens; and whoever reads no more
        // ends it.
        return fflush(stdout) == 0;
      });
  return ended.ok() ? kExitOk : PrintFailure(format, ended);
}

int Metrics(Format format) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  const auto metrics = (*admin)->GetMetrics();
  if (!metrics.ok()) return PrintFailure(format, metrics.status());
  if (format == Format::kJson) {
    PrintJson(*metrics);
  } else {
    printf("%s", metrics->open_metrics().c_str());
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
