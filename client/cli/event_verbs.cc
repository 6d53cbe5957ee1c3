// events and metrics: what the broker has noted and counted.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/admin_client.h"
#include "client/cli/exit_status.h"
#include "client/cli/verbs.h"
#include "client/fallback.h"
#include "ipc/deadline.h"
#include "ipc/environment.h"
#include "ipc/names.h"

namespace zcbroker::cli {
namespace {

constexpr absl::Duration kNextBroker = absl::Seconds(2);
constexpr absl::Duration kLookAgain = absl::Milliseconds(50);

std::string Line(const v1::Event& event) {
  std::string line =
      absl::StrCat(absl::FormatTime("%Y-%m-%d %H:%M:%E3S", ToTime(event.time()),
                                    absl::LocalTimeZone()),
                   "  ", KindName(event.kind()));
  if (!event.service().empty()) {
    absl::StrAppend(&line, "  ", event.service(), " ", event.version());
  }
  if (event.pid() != 0) absl::StrAppend(&line, "  process ", event.pid());
  if (event.refusal() != v1::REFUSAL_UNSPECIFIED) {
    absl::StrAppend(&line, "  ", RefusalName(event.refusal()));
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

bool BrokerHasGone(const absl::Status& status) {
  return client::RefusalNameOf(status) == "SHUTTING_DOWN" ||
         client::FallbackReasonOf(status) ==
             client::FallbackReason::kBrokerClosed;
}

// Of an upgrade, or started again by the keeper; a socket that the keeper holds
// takes connections meanwhile.
absl::StatusOr<std::unique_ptr<AdminClient>> AwaitNextBroker() {
  const ipc::Deadline deadline = ipc::Deadline::After(kNextBroker);
  while (true) {
    auto admin = AdminClient::Connect(ipc::HostEnvironment());
    if (admin.ok() || deadline.Expired()) return admin;
    absl::SleepFor(kLookAgain);
  }
}

}  // namespace

int Events(Format format, const EventOptions& options) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  const auto print = [format](const v1::Event& event) {
    if (format == Format::kJson) {
      PrintJson(event);
    } else {
      printf("%s\n", Line(event).c_str());
    }
    // Whoever follows sees each as it happens; and whoever reads no more ends
    // it.
    return fflush(stdout) == 0;
  };
  uint64_t after = options.after;
  while (admin.ok()) {
    const absl::Status ended =
        (*admin)->StreamEvents(after, options.follow, print);
    if (ended.ok()) return kExitOk;
    if (!options.follow || !BrokerHasGone(ended)) {
      return PrintFailure(format, ended);
    }
    admin = AwaitNextBroker();
    if (!admin.ok()) return PrintFailure(format, ended);
    fprintf(stderr, "zcbroker: another broker has taken over\n");
    // It counts anew.
    after = 0;
  }
  return PrintFailure(format, admin.status());
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
