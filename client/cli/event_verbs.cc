// events and metrics: what the broker has noted and counted.
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "client/cli/admin_client.h"
#include "client/cli/broker_follower.h"
#include "client/cli/exit_status.h"
#include "client/cli/verbs.h"
#include "client/fallback.h"
#include "ipc/deadline.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::cli {
namespace {

std::string Line(const v1::Event& event) {
  std::string line = absl::StrCat(
      absl::FormatTime("%Y-%m-%d %H:%M:%E3S", FromProto(event.time()),
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
      all += FromProto(step.duration());
      steps.push_back(
          absl::StrCat(step.name(), " ", Spell(FromProto(step.duration()))));
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

}  // namespace

int Events(Format format, const EventOptions& options) {
  auto follower = ConnectFollower();
  if (!follower.ok()) return PrintFailure(format, follower.status());
  uint64_t after = options.after;
  ipc::Deadline deadline = ipc::Deadline::After(kNextBroker);
  while (true) {
    const ipc::Deadline lasts = ipc::Deadline::After(kNextBroker);
    bool heard = false;
    const absl::Status ended = follower->admin->StreamEvents(
        after, options.follow, [&](const v1::Event& event) {
          heard = true;
          after = event.sequence();
          if (format == Format::kJson) {
            PrintJson(event);
          } else {
            printf("%s\n", Line(event).c_str());
          }
          // Whoever follows sees each as it happens; and whoever reads no more
          // ends it.
          return fflush(stdout) == 0;
        });
    if (ended.ok()) return kExitOk;
    if (!options.follow || !BrokerHasGone(ended)) {
      return PrintFailure(format, ended);
    }
    // One that says nothing and closes at once is not asked for ever.
    if (heard || lasts.Expired()) deadline = ipc::Deadline::After(kNextBroker);
    auto next = ConnectAgain(deadline);
    if (!next.ok() || deadline.Expired()) return PrintFailure(format, ended);
    // Another one counts anew.
    if (TellWhereAnother(follower->broker, next->broker)) after = 0;
    follower = std::move(next);
  }
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
