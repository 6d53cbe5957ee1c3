#include "client/backend_sdk/reference/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/backend_sdk/reference/backend.h"
#include "client/backend_sdk/reference/own_identity.h"
#include "client/backend_sdk/reference/server.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
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

// Blocks the stop signals in this and every later thread and returns a
// descriptor that is readable once one has come.
absl::StatusOr<UniqueFd> TakeStopSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  UniqueFd fd(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, "signalfd");
  return fd;
}

// True when a signal came within the time.
bool WaitForSignal(const UniqueFd& signals, Deadline deadline) {
  pollfd event = {signals.get(), POLLIN, 0};
  while (poll(&event, 1, deadline.PollTimeoutMillis()) <= 0) {
    if (deadline.Expired()) return false;
  }
  return true;
}

const char* Name(StopReason reason) {
  switch (reason) {
    case StopReason::kShutdownRequest:
      return "shutdown requested";
    case StopReason::kSignal:
      return "signal";
    case StopReason::kIdle:
      return "idle";
  }
  return "unknown";
}

absl::Status Serve(const Options& options, const KeepLease& keep_lease,
                   const UniqueFd& signals) {
  const auto endpoint = ipc::Endpoint::Parse(options.endpoint);
  if (!endpoint.ok()) return endpoint.status();
  if (ipc::Connect(*endpoint, Deadline::After(absl::Seconds(1))).ok()) {
    Log(options.report_version, "somebody serves " + options.endpoint);
    return absl::OkStatus();
  }
  const auto listener = ipc::Listener::Bind(*endpoint);
  if (!listener.ok()) return listener.status();
  ReferenceBackend backend(options.report_version, endpoint->path());
  const absl::Time started = absl::Now();
  Server server(
      *listener, backend,
      [&] {
        return DescribeOwnProcess(options.namespace_id, endpoint->path(),
                                  started);
      },
      signals, absl::Seconds(options.idle_timeout_secs));
  Log(options.report_version, "serving " + endpoint->path());
  // Ends with this call, before the socket does.
  std::shared_ptr<void> lease;
  if (!options.register_as.empty()) {
    lease = keep_lease(
        options.register_as, options.report_version, endpoint->path(),
        [&](const std::string& what) { Log(options.report_version, what); });
  }
  const auto reason = server.Run();
  lease.reset();
  absl::Status unlinked = listener->UnlinkIfOurs();
  if (!reason.ok()) return reason.status();
  Log(options.report_version, std::string("stopped: ") + Name(*reason));
  return unlinked;
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
  const auto signals = TakeStopSignals();
  if (!signals.ok()) {
    Log(options.report_version, std::string(signals.status().message()));
    return kCannotServe;
  }
  const Deadline start =
      options.never_listen ? Deadline::Infinite()
                           : Deadline::After(absl::Milliseconds(
                                 static_cast<int64_t>(options.start_delay_ms)));
  if (options.never_listen || options.start_delay_ms > 0) {
    Log(options.report_version, "waiting before it binds");
    if (WaitForSignal(*signals, start)) {
      Log(options.report_version, "stopped: signal");
      return kServed;
    }
  }
  const absl::Status served = Serve(options, keep_lease, *signals);
  if (served.ok()) return kServed;
  Log(options.report_version, "cannot serve: " + std::string(served.message()));
  return kCannotServe;
}

}  // namespace zcbroker::client
