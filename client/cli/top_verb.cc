// top: what the broker does, as it happens.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/admin_client.h"
#include "client/cli/broker_follower.h"
#include "client/cli/exit_status.h"
#include "client/cli/report.pb.h"
#include "client/cli/report_story.h"
#include "client/cli/verbs.h"
#include "ipc/deadline.h"
#include "ipc/names.h"
#include "ipc/process.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::cli {
namespace {

// What `top` compares from one look to the next.
struct Look {
  absl::Time time;
  v1::GetStatusResponse status;
  v1::ListBackendsResponse backends;
  // Those that had to wait.
  Distribution answers;
  // Of backends' processes, in ticks.
  std::map<uint32_t, uint64_t> cpu;
};

absl::StatusOr<Look> LookAt(AdminClient& admin) {
  Look look;
  look.time = absl::Now();
  auto status = admin.GetStatus();
  if (!status.ok()) return status.status();
  auto backends = admin.ListBackends();
  if (!backends.ok()) return backends.status();
  const auto metrics = admin.GetMetrics();
  if (!metrics.ok()) return metrics.status();
  look.status = *std::move(status);
  look.backends = *std::move(backends);
  look.answers =
      ReadDistribution(metrics->open_metrics(), "zcbroker_answer_seconds", "");
  for (const v1::Backend& backend : look.backends.backends()) {
    const auto stat =
        ipc::ReadProcessStat(static_cast<int>(backend.route().pid()));
    if (stat.ok()) look.cpu[backend.route().pid()] = stat->cpu_ticks;
  }
  return look;
}

TopReport Compare(const Look& before, const Look& now) {
  const double seconds =
      std::max(0.001, absl::ToDoubleSeconds(now.time - before.time));
  const auto rate = [&](absl::string_view name) {
    return static_cast<double>(CountOf(now.status, name) -
                               CountOf(before.status, name)) /
           seconds;
  };
  TopReport report;
  *report.mutable_time() = ToProto(now.time);
  report.set_seconds(seconds);
  report.set_version(now.status.version());
  report.set_pid(now.status.pid());
  *report.mutable_uptime() = now.status.uptime();
  report.set_connections(now.status.connections());
  report.set_negotiations_per_second(rate("negotiations"));
  report.set_relayed_per_second(rate("relay.requests"));
  report.set_replays_per_second(rate("relay.replays"));
  report.set_refused_per_second(rate("refused"));
  const Distribution answers = Since(before.answers, now.answers);
  report.set_waited(answers.count);
  if (answers.count > 0) {
    report.set_mean_wait_milliseconds(1000.0 * answers.sum /
                                      static_cast<double>(answers.count));
  }
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  for (const v1::Backend& backend : now.backends.backends()) {
    TopReport::Row& row = *report.add_backends();
    row.set_service(backend.service());
    row.set_version(backend.version());
    row.set_state(backend.state());
    row.set_pid(backend.route().pid());
    row.set_endpoint(backend.route().endpoint());
    row.set_last_end(backend.last_end());
    const auto was = before.cpu.find(row.pid());
    const auto is = now.cpu.find(row.pid());
    if (was != before.cpu.end() && is != now.cpu.end()) {
      row.set_cpu_percent(100.0 *
                          static_cast<double>(is->second - was->second) /
                          ticks / seconds);
    }
  }
  return report;
}

std::string Screen(const TopReport& report) {
  std::string text = absl::StrFormat(
      "zcbrokerd %s, process %u, up %s, %u connections\n"
      "negotiations %.0f/s  relayed %.0f/s  replays %.0f/s  refused %.0f/s",
      report.version(), report.pid(),
      absl::FormatDuration(absl::Seconds(report.uptime().seconds())),
      report.connections(), report.negotiations_per_second(),
      report.relayed_per_second(), report.replays_per_second(),
      report.refused_per_second());
  if (report.waited() > 0) {
    absl::StrAppend(&text, "  waited ",
                    Spell(absl::Milliseconds(report.mean_wait_milliseconds())));
  }
  absl::StrAppendFormat(&text, "\n\n%-12s %-12s %-9s %8s %6s  %s\n", "SERVICE",
                        "VERSION", "STATE", "PROCESS", "CPU", "WHERE");
  for (const TopReport::Row& row : report.backends()) {
    absl::StrAppendFormat(
        &text, "%-12s %-12s %-9s %8s %6s  %s\n", row.service(), row.version(),
        StateName(row.state()), row.pid() == 0 ? "-" : absl::StrCat(row.pid()),
        row.has_cpu_percent() ? absl::StrFormat("%.0f %%", row.cpu_percent())
                              : "-",
        row.pid() == 0 ? ipc::Printable(row.last_end(), 60) : row.endpoint());
  }
  return text;
}

}  // namespace

int Top(Format format, const TopOptions& options) {
  auto follower = ConnectFollower();
  if (!follower.ok()) return PrintFailure(format, follower.status());
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  auto before = LookAt(*follower->admin);
  if (!before.ok()) return PrintFailure(format, before.status());
  for (int round = 0; options.rounds == 0 || round < options.rounds;) {
    absl::SleepFor(absl::Seconds(options.interval));
    auto now = LookAt(*follower->admin);
    if (!now.ok()) {
      auto next = ConnectAgain(ipc::Deadline::After(kNextBroker));
      if (!next.ok()) return PrintFailure(format, now.status());
      TellWhereAnother(follower->broker, next->broker);
      follower = std::move(next);
      // It counts anew, so there is nothing to compare yet.
      before = LookAt(*follower->admin);
      if (!before.ok()) return PrintFailure(format, before.status());
      continue;
    }
    ++round;
    const TopReport report = Compare(*before, *now);
    if (format == Format::kJson) {
      PrintJson(report);
    } else {
      // Home, and whatever was below is cleared.
      printf("%s%s%s", terminal ? "\x1b[H\x1b[2J" : "", Screen(report).c_str(),
             terminal ? "" : "\n");
    }
    if (fflush(stdout) != 0) break;
    before = std::move(now);
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
