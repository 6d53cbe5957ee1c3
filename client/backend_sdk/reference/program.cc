#include "client/backend_sdk/reference/program.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/backend_sdk/managed_backend.h"
#include "client/backend_sdk/reference/backend.h"
#include "client/backend_sdk/reference/requests.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/deadline.h"
#include "ipc/unique_fd.h"

namespace zcbroker::client {
namespace {

using ipc::Deadline;
using ipc::UniqueFd;

constexpr char kVersion[] = "1.0.0";

enum ExitStatus { kServed = 0, kCannotServe = 1, kBadCommandLine = 2 };

struct Options {
  std::string endpoint;
  std::string report_version = kVersion;
  std::string namespace_id = "default";
  std::string log_file;
  uint64_t idle_timeout_secs = 14400;
  uint64_t start_delay_ms = 0;
  int exit_at_once = -1;
  bool never_listen = false;
  bool foreground = false;
  std::string register_as;
};

void Describe(CLI::App& app, const KeepLease& keep_lease, Options& options) {
  app.description(
      "A small real backend for zcbroker: speaks bincode v15, prost v16, "
      "FrameV1 and\nthe identity probe on one Unix socket, and compiles by "
      "running the compiler.\nIt keeps no cache and writes no file but the "
      "socket and the log.");
  app.footer(
      "Exit status: 0 served until SIGTERM, SIGINT, a Shutdown request or "
      "idleness,\nor somebody serves the endpoint already; 1 cannot serve; 2 "
      "bad command line.");
  app.set_version_flag("--version",
                       std::string("zcb-reference-backend ") + kVersion);
  app.add_option("--endpoint", options.endpoint,
                 "Absolute path of the socket to serve")
      ->envname("RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE")
      ->required();
  app.add_option("--report-version", options.report_version,
                 "Version that Status reports")
      ->envname("RUNNING_PROCESS_BROKER_V1_SERVICE_VERSION")
      ->capture_default_str();
  app.add_option("--namespace", options.namespace_id,
                 "Namespace that the identity probe reports")
      ->envname("RUNNING_PROCESS_BROKER_V1_BACKEND_NAMESPACE")
      ->capture_default_str();
  app.add_option("--log-file", options.log_file,
                 "Append one line per start and stop here, not to stderr");
  app.add_option("--idle-timeout-secs", options.idle_timeout_secs,
                 "Stop after so many seconds without a request; 0 = never")
      ->envname("ZCCACHE_IDLE_TIMEOUT_SECS")
      ->capture_default_str();
  app.add_flag("--foreground", options.foreground,
               "Accepted and ignored: it always runs in the foreground");
  if (keep_lease) {
    app.add_option("--register", options.register_as,
                   "Register with the broker as this service, at the version "
                   "of --report-version");
  }
  CLI::Option_group* tests = app.add_option_group("For tests");
  tests->add_option("--start-delay-ms", options.start_delay_ms,
                    "Wait so long before binding");
  tests
      ->add_option("--exit-at-once", options.exit_at_once,
                   "Exit with this status instead of serving")
      ->check(CLI::Range(0, 255));
  tests->add_flag("--never-listen", options.never_listen,
                  "Run until a signal comes, but do not bind");
}

void Log(const std::string& version, const std::string& text) {
  std::fprintf(stderr, "zcb-reference-backend %s pid %d: %s\n", version.c_str(),
               static_cast<int>(getpid()), text.c_str());
}

// Sends stderr to the log file, which is created with mode 0600.
absl::Status RedirectLog(const std::string& path) {
  const UniqueFd fd(
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return absl::ErrnoToStatus(errno, "open " + path);
  if (dup2(fd.get(), STDERR_FILENO) < 0) {
    return absl::ErrnoToStatus(errno, "redirect stderr");
  }
  return absl::OkStatus();
}

// True when a stop signal came within the time.
bool StoppedWithin(absl::Duration time) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  const Deadline deadline = Deadline::After(time);
  do {
    const timespec wait =
        absl::ToTimespec(std::min(deadline.Remaining(), absl::Hours(1)));
    if (sigtimedwait(&stop, nullptr, &wait) > 0) return true;
  } while (!deadline.Expired());
  return false;
}

const char* Name(StopReason reason) {
  switch (reason) {
    case StopReason::kStopCall:
      return "shutdown requested";
    case StopReason::kSignal:
      return "signal";
    case StopReason::kIdle:
      return "idle";
  }
  return "unknown";
}

absl::Status Serve(const Options& options, const KeepLease& keep_lease) {
  BackendOptions managed;
  managed.endpoint = options.endpoint;
  managed.namespace_id = options.namespace_id;
  if (options.idle_timeout_secs > 0) {
    managed.idle_timeout = absl::Seconds(options.idle_timeout_secs);
  }
  const auto opened = ManagedBackend::Open(managed);
  if (!opened.ok()) return opened.status();
  ManagedBackend& server = **opened;
  Log(options.report_version, "serving " + server.endpoint());
  // Ends after what it is about: who gives a lease up writes no more.
  std::shared_ptr<void> lease;
  if (!options.register_as.empty()) {
    lease = keep_lease(
        options.register_as, options.report_version, server.endpoint(),
        [&](const std::string& what) { Log(options.report_version, what); });
  }
  ReferenceBackend backend(options.report_version, server.endpoint());
  const auto reason = server.Serve([&](BackendConnection& connection) {
    AnswerRequests(connection, backend, [&] { server.Stop(); });
  });
  if (!reason.ok()) return reason.status();
  Log(options.report_version, std::string("stopped: ") + Name(*reason));
  return absl::OkStatus();
}

}  // namespace

int RunReferenceBackend(int argc, char** argv, const KeepLease& keep_lease) {
  CLI::App app("", "zcb-reference-backend");
  Options options;
  Describe(app, keep_lease, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kServed : kBadCommandLine;
  }
  // A peer's bad UTF-8 is refused; it is not a line in our log each time.
  google::protobuf::SetLogHandler(nullptr);
  if (options.exit_at_once >= 0) return options.exit_at_once;
  if (!options.log_file.empty()) {
    const absl::Status redirected = RedirectLog(options.log_file);
    if (!redirected.ok()) {
      Log(options.report_version, std::string(redirected.message()));
      return kCannotServe;
    }
  }
  // A log that nobody reads any more is no reason to end.
  signal(SIGPIPE, SIG_IGN);
  if (options.never_listen || options.start_delay_ms > 0) {
    Log(options.report_version, "waiting before it binds");
    if (StoppedWithin(options.never_listen
                          ? absl::InfiniteDuration()
                          : absl::Milliseconds(options.start_delay_ms))) {
      Log(options.report_version, "stopped: signal");
      return kServed;
    }
  }
  return ExitStatusOf(Serve(options, keep_lease));
}

}  // namespace zcbroker::client
