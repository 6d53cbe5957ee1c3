// report: what a window of time looked like, as a page to show others.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/cli/admin_client.h"
#include "client/cli/exit_status.h"
#include "client/cli/output.h"
#include "client/cli/replace_file.h"
#include "client/cli/report.pb.h"
#include "client/cli/report_page.h"
#include "client/cli/report_story.h"
#include "client/cli/verbs.h"
#include "client/fallback_records.h"
#include "ipc/environment.h"
#include "ipc/runtime_dir.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/version.h"

namespace zcbroker::cli {
namespace {

constexpr char kAnswers[] = "zcbroker_answer_seconds";
constexpr char kSteps[] = "zcbroker_start_step_seconds";
// Looks while watching: so many, if they are at least and at most so far apart.
constexpr int kLooks = 120;
constexpr absl::Duration kSoonestLook = absl::Milliseconds(250);
constexpr absl::Duration kLatestLook = absl::Seconds(10);

// A report takes the place of a report, and of nothing else: a name given by
// mistake costs nothing. Before anything else, so that nobody watches in vain.
absl::Status CheckFile(const std::string& file) {
  const size_t slash = file.rfind('/');
  const std::string directory =
      slash == std::string::npos ? "." : file.substr(0, slash + 1);
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write ", file));
  }
  struct stat status;
  if (lstat(file.c_str(), &status) != 0) {
    return errno == ENOENT ? absl::OkStatus()
                           : absl::ErrnoToStatus(errno, file);
  }
  if (S_ISREG(status.st_mode)) {
    const ipc::UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return absl::ErrnoToStatus(errno, file);
    std::string begins(kPageBegins.size(), '\0');
    const ssize_t n = read(fd.get(), begins.data(), begins.size());
    if (n == 0 || (n > 0 && begins == kPageBegins)) return absl::OkStatus();
  }
  return absl::AlreadyExistsError(absl::StrCat(
      file, " is there and no report; name another file, or remove it"));
}

// The broker as it says it is at one moment.
struct Look {
  absl::Time time;
  absl::Duration answered;
  v1::GetStatusResponse status;
  std::vector<v1::Backend> backends;
  std::string metrics;
};

absl::StatusOr<Look> LookAt(AdminClient& admin) {
  Look look;
  const absl::Time asked = absl::Now();
  ZCB_ASSIGN_OR_RETURN(look.status, admin.GetStatus());
  look.time = absl::Now();
  look.answered = look.time - asked;
  ZCB_ASSIGN_OR_RETURN(const v1::ListBackendsResponse listed,
                       admin.ListBackends());
  look.backends.assign(listed.backends().begin(), listed.backends().end());
  ZCB_ASSIGN_OR_RETURN(const v1::GetMetricsResponse metrics,
                       admin.GetMetrics());
  look.metrics = metrics.open_metrics();
  return look;
}

Watched Between(const Look& before, const Look& after) {
  const auto counted = [&](absl::string_view name) {
    return CountOf(after.status, name) - CountOf(before.status, name);
  };
  const Distribution answers =
      Since(ReadDistribution(before.metrics, kAnswers, ""),
            ReadDistribution(after.metrics, kAnswers, ""));
  Watched watched;
  watched.when = {before.time, after.time};
  watched.negotiations = counted("negotiations");
  watched.relayed = counted("relay.requests");
  watched.refused = counted("refused");
  watched.waited = answers.count;
  watched.waited_seconds = answers.sum;
  watched.answered = after.answered;
  return watched;
}

// While it exists an interrupt ends a wait and nothing else. Threads that are
// made meanwhile do the same.
class Interruptible {
 public:
  Interruptible() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~Interruptible() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  // False where an interrupt came first.
  bool Wait(absl::Duration time) const {
    const timespec limit =
        absl::ToTimespec(std::max(time, absl::ZeroDuration()));
    return sigtimedwait(&signals_, nullptr, &limit) < 0;
  }

 private:
  sigset_t signals_;
  sigset_t before_;
};

// Everything the broker says, now and while it is watched.
class Observer {
 public:
  explicit Observer(AdminClient& admin) : admin_(admin) {}

  absl::Status Begin() {
    ZCB_ASSIGN_OR_RETURN(last_, LookAt(admin_));
    begun_ = last_.time;
    return HearEvents();
  }

  // Until `duration` is over, somebody interrupts, or the broker does not
  // answer any more.
  absl::Status Watch(absl::Duration duration, const Interruptible& interrupt) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    const absl::Duration apart =
        std::clamp(duration / kLooks, kSoonestLook, kLatestLook);
    const absl::Time end = begun_ + duration;
    absl::Status status;
    while (status.ok() && last_.time < end &&
           interrupt.Wait(std::min(apart, end - last_.time))) {
      status = LookAgain();
      if (terminal && status.ok()) Show(duration);
    }
    if (terminal) fprintf(stderr, "\r\x1b[K");
    return status;
  }

  // `story` apart.
  Observations Seen() const {
    Observations seen;
    seen.status = last_.status;
    seen.backends = last_.backends;
    seen.watched = watched_;
    seen.answers = ReadDistribution(last_.metrics, kAnswers, "");
    for (const char* step : {"look", "spawn", "bind", "probe", "publish"}) {
      seen.steps.emplace_back(
          step, ReadDistribution(last_.metrics, kSteps,
                                 absl::StrCat("step=\"", step, "\"")));
    }
    return seen;
  }
  const std::vector<v1::Event>& events() const { return events_; }
  // When the broker was last heard of.
  absl::Time end() const { return last_.time; }

 private:
  absl::Status HearEvents() {
    const uint64_t after = events_.empty() ? 0 : events_.back().sequence();
    absl::Status heard = admin_.StreamEvents(after, /*follow=*/false,
                                             [this](const v1::Event& event) {
                                               events_.push_back(event);
                                               return true;
                                             });
    last_.time = absl::Now();
    return heard;
  }

  absl::Status LookAgain() {
    ZCB_ASSIGN_OR_RETURN(Look look, LookAt(admin_));
    watched_.push_back(Between(last_, look));
    last_ = std::move(look);
    return HearEvents();
  }

  void Show(absl::Duration duration) const {
    const Watched& now = watched_.back();
    fprintf(
        stderr, "\r\x1b[Kwatching: %s of %s, %.0f negotiations a second",
        absl::FormatDuration(absl::Trunc(last_.time - begun_, absl::Seconds(1)))
            .c_str(),
        absl::FormatDuration(duration).c_str(),
        static_cast<double>(now.negotiations) /
            absl::ToDoubleSeconds(now.when.to - now.when.from));
    fflush(stderr);
  }

  AdminClient& admin_;
  absl::Time begun_;
  Look last_;
  std::vector<v1::Event> events_;
  std::vector<Watched> watched_;
};

void DescribeMachine(Observations* seen) {
  utsname name;
  if (uname(&name) != 0) return;
  seen->host = name.nodename;
  seen->system =
      absl::StrCat(name.sysname, " ", name.release, ", ", name.machine, ", ",
                   sysconf(_SC_NPROCESSORS_ONLN), " processors");
}

std::vector<client::FallbackRecord> FallbackRecords() {
  const auto dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
  if (!dir.ok()) return {};
  return client::ReadFallbackRecords(*dir).value_or(
      std::vector<client::FallbackRecord>());
}

PageReport Describe(const std::string& file, size_t bytes,
                    const Observations& seen) {
  const Story& story = seen.story;
  PageReport report;
  report.set_file(file);
  report.set_bytes(bytes);
  report.set_from(absl::FormatTime(story.window.from, absl::LocalTimeZone()));
  report.set_to(absl::FormatTime(story.window.to, absl::LocalTimeZone()));
  report.set_events(story.events.size());
  report.set_forgotten_events(story.forgotten);
  report.set_starts(story.starts.size() -
                    story.CountStarts(Start::Outcome::kAdopted));
  report.set_failed_starts(story.CountStarts(Start::Outcome::kFailed));
  report.set_wedged(story.CountFaults(kWedged));
  report.set_refusals(story.refused.size());
  report.set_replays(story.replayed.size());
  report.set_fallbacks(story.fallbacks.size());
  report.set_cut_short(seen.cut_short);
  return report;
}

void PrintWritten(const PageReport& report) {
  printf(
      "wrote %s: %d events, %d starts, %d of them failed, %d refusals, %d "
      "fallbacks of clients\n",
      report.file().c_str(), static_cast<int>(report.events()),
      static_cast<int>(report.starts()),
      static_cast<int>(report.failed_starts()),
      static_cast<int>(report.refusals()),
      static_cast<int>(report.fallbacks()));
}

}  // namespace

int Report(Format format, const ReportOptions& options) {
  const absl::Status place = CheckFile(options.file);
  if (!place.ok()) return PrintFailure(format, place);
  // Before gRPC has threads, which would be ended by a signal otherwise.
  absl::optional<Interruptible> interrupt;
  if (options.watch > absl::ZeroDuration()) interrupt.emplace();
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  Observer observer(**admin);
  const absl::Status begun = observer.Begin();
  if (!begun.ok()) return PrintFailure(format, begun);
  const absl::optional<absl::Time> from =
      options.since > absl::ZeroDuration()
          ? absl::optional<absl::Time>(observer.end() - options.since)
          : absl::nullopt;
  // What was seen of a broker that went away is worth most.
  absl::Status watched;
  if (interrupt.has_value()) {
    watched = observer.Watch(options.watch, *interrupt);
  }
  Observations seen = observer.Seen();
  seen.story = Tell(observer.events(), seen.backends, FallbackRecords(), from,
                    watched.ok() ? observer.end() : absl::Now());
  seen.window_asked = from.has_value();
  seen.cut_short = std::string(watched.message());
  seen.version = kVersion;
  DescribeMachine(&seen);
  const std::string page = Page(seen);
  const absl::Status written = ReplaceFile(options.file, page);
  if (!written.ok()) return PrintFailure(format, written);
  const PageReport report = Describe(options.file, page.size(), seen);
  if (format == Format::kJson) {
    PrintJson(report);
  } else {
    PrintWritten(report);
  }
  return watched.ok() ? kExitOk : PrintFailure(Format::kText, watched);
}

}  // namespace zcbroker::cli
