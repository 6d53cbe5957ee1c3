// logs and top: what backends say, and what the broker does, as it happens.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/cli/admin_client.h"
#include "client/cli/bring_up.h"
#include "client/cli/exit_status.h"
#include "client/cli/report_story.h"
#include "client/cli/verbs.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/process.h"

namespace zcbroker::cli {
namespace {

// The logs of a service's backends, those of other worlds among them: a version
// has one in each.
std::vector<std::string> LogsOf(const Target& target) {
  std::vector<std::string> logs;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(LogDirectory(), error)) {
    const std::string name = entry.path().filename();
    absl::string_view version = name;
    if (absl::ConsumePrefix(&version, absl::StrCat(target.service, "-")) &&
        absl::ConsumeSuffix(&version, ".log") &&
        (target.version.empty() ? ipc::CheckVersion(version).ok()
                                : version == target.version)) {
      logs.push_back(entry.path());
    }
  }
  std::sort(logs.begin(), logs.end());
  return logs;
}

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

std::string Screen(const Look& before, const Look& now) {
  const double seconds =
      std::max(0.001, absl::ToDoubleSeconds(now.time - before.time));
  const auto rate = [&](absl::string_view name) {
    return static_cast<double>(CountOf(now.status, name) -
                               CountOf(before.status, name)) /
           seconds;
  };
  std::string text = absl::StrFormat(
      "zcbrokerd %s, process %u, up %s, %u connections\n"
      "negotiations %.0f/s  relayed %.0f/s  replays %.0f/s  refused %.0f/s",
      now.status.version(), now.status.pid(),
      absl::FormatDuration(absl::Seconds(now.status.uptime().seconds())),
      now.status.connections(), rate("negotiations"), rate("relay.requests"),
      rate("relay.replays"), rate("refused"));
  const Distribution answers = Since(before.answers, now.answers);
  if (answers.count > 0) {
    absl::StrAppend(
        &text, "  waited ",
        Spell(absl::Seconds(answers.sum / static_cast<double>(answers.count))));
  }
  absl::StrAppendFormat(&text, "\n\n%-12s %-12s %-9s %8s %6s  %s\n", "SERVICE",
                        "VERSION", "STATE", "PROCESS", "CPU", "WHERE");
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  for (const v1::Backend& backend : now.backends.backends()) {
    const uint32_t pid = backend.route().pid();
    const auto was = before.cpu.find(pid);
    const auto is = now.cpu.find(pid);
    const std::string cpu =
        was == before.cpu.end() || is == now.cpu.end()
            ? "-"
            : absl::StrFormat(
                  "%.0f %%", 100.0 *
                                 static_cast<double>(is->second - was->second) /
                                 ticks / seconds);
    absl::StrAppendFormat(&text, "%-12s %-12s %-9s %8s %6s  %s\n",
                          backend.service(), backend.version(),
                          StateName(backend.state()),
                          pid == 0 ? "-" : absl::StrCat(pid), cpu,
                          pid == 0 ? ipc::Printable(backend.last_end(), 60)
                                   : backend.route().endpoint());
  }
  return text;
}

}  // namespace

int Logs(const Target& target, const LogOptions& options) {
  const std::vector<std::string> logs = LogsOf(target);
  if (logs.empty()) {
    fprintf(stderr, "zcbroker: no log of %s%s%s in %s\n",
            target.service.c_str(), target.version.empty() ? "" : " ",
            target.version.c_str(), LogDirectory().c_str());
    return kExitFailure;
  }
  // It knows how to wait for what is written, and what is renamed.
  std::vector<std::string> words = {"tail", "-n", absl::StrCat(options.lines)};
  if (options.follow) words.emplace_back("-F");
  words.insert(words.end(), logs.begin(), logs.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  execvp("tail", pointers.data());
  fprintf(stderr, "zcbroker: cannot run tail: %s; the log is %s\n",
          strerror(errno), logs[0].c_str());
  return kExitFailure;
}

int Top(const TopOptions& options) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(Format::kText, admin.status());
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  auto before = LookAt(**admin);
  if (!before.ok()) return PrintFailure(Format::kText, before.status());
  for (int round = 0; options.rounds == 0 || round < options.rounds; ++round) {
    absl::SleepFor(absl::Seconds(options.interval));
    auto now = LookAt(**admin);
    if (!now.ok()) return PrintFailure(Format::kText, now.status());
    // Home, and whatever was below is cleared.
    printf("%s%s%s", terminal ? "\x1b[H\x1b[2J" : "",
           Screen(*before, *now).c_str(), terminal ? "" : "\n");
    if (fflush(stdout) != 0) break;
    before = std::move(now);
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
