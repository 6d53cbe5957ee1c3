// The verbs about the broker itself: status, service, up, down.
#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/cli/admin_client.h"
#include "client/cli/broker_program.h"
#include "client/cli/definition_file.h"
#include "client/cli/exit_status.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "client/fallback.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/status_macros.h"

namespace zcbroker::cli {
namespace {

constexpr absl::Duration kUpPatience = absl::Seconds(10);
// Beyond what the broker waits for backends that take their time to end.
constexpr absl::Duration kDownPatience = absl::Seconds(70);

// $`variable` where it is absolute, else $HOME/`fallback`.
std::string BaseDirectory(absl::string_view variable,
                          absl::string_view fallback) {
  const ipc::EnvironmentLookup environment = ipc::HostEnvironment();
  const absl::optional<std::string> set = environment(variable);
  if (set.has_value() && !set->empty() && (*set)[0] == '/') return *set;
  return absl::StrCat(environment("HOME").value_or(""), "/",
                      std::string(fallback));
}

const char* StateName(v1::BackendState state) {
  switch (state) {
    case v1::BACKEND_STATE_STARTING:
      return "starting";
    case v1::BACKEND_STATE_READY:
      return "ready";
    case v1::BACKEND_STATE_ENDING:
      return "ending";
    case v1::BACKEND_STATE_BACKOFF:
      return "backoff";
    case v1::BACKEND_STATE_BROKEN:
      return "broken";
    case v1::BACKEND_STATE_GONE:
      return "gone";
    default:
      return "unknown";
  }
}

void PrintServices(
    const google::protobuf::RepeatedPtrField<v1::ServiceSummary>& services) {
  for (const v1::ServiceSummary& service : services) {
    printf("  %-10s %s  (%s)\n", service.name().c_str(),
           service.versions().empty()
               ? "no usable binary"
               : absl::StrJoin(service.versions(), ", ").c_str(),
           service.source().c_str());
  }
}

template <typename Problems>
void PrintProblems(const Problems& problems) {
  for (const v1::Problem& problem : problems) {
    printf("%s: %s\n", problem.where().c_str(), problem.what().c_str());
  }
}

void PrintBackend(const v1::Backend& backend) {
  printf("  %s %s  %s", backend.service().c_str(), backend.version().c_str(),
         StateName(backend.state()));
  if (backend.state() == v1::BACKEND_STATE_READY) {
    printf(", process %u at %s", backend.route().pid(),
           backend.route().endpoint().c_str());
    if (!backend.direct_endpoint().empty() &&
        backend.direct_endpoint() != backend.route().endpoint()) {
      printf(", also at %s", backend.direct_endpoint().c_str());
    }
  } else if (backend.failed_starts() > 0) {
    printf(", %u failed start%s", backend.failed_starts(),
           backend.failed_starts() == 1 ? "" : "s");
  }
  printf("\n");
  for (const std::string& line : backend.evidence()) {
    printf("      %s\n", ipc::Printable(line, 200).c_str());
  }
  if (backend.state() != v1::BACKEND_STATE_READY &&
      !backend.log_file().empty()) {
    printf("      log: %s\n", backend.log_file().c_str());
  }
}

void PrintStatus(const v1::GetStatusResponse& status,
                 const v1::ListBackendsResponse& backends) {
  printf(
      "zcbrokerd %s, process %u, up %s\n", status.version().c_str(),
      status.pid(),
      absl::FormatDuration(absl::Seconds(status.uptime().seconds())).c_str());
  printf("  socket       %s\n", status.endpoint().c_str());
  if (!status.framed_endpoint().empty()) {
    printf("  framed name  %s\n", status.framed_endpoint().c_str());
  }
  printf("  connections  %u\n", status.connections());
  printf("services\n");
  PrintServices(status.services());
  if (!backends.backends().empty()) printf("backends\n");
  for (const v1::Backend& backend : backends.backends()) PrintBackend(backend);
  printf("counters\n");
  std::vector<std::string> lines;
  for (const auto& [name, count] : status.counters()) {
    lines.push_back(absl::StrCat("  ", name, " ", count, "\n"));
  }
  std::sort(lines.begin(), lines.end());
  for (const std::string& line : lines) printf("%s", line.c_str());
  if (!status.problems().empty()) printf("problems\n");
  for (const v1::Problem& problem : status.problems()) {
    printf("  %s: %s\n", problem.where().c_str(), problem.what().c_str());
  }
}

bool HasMistakeIn(const v1::ReloadDefinitionsResponse& checked,
                  const std::string& file) {
  return std::any_of(checked.problems().begin(), checked.problems().end(),
                     [&](const v1::Problem& problem) {
                       // "<file>:line:column" is a mistake in the text; the
                       // file alone one of a binary it names.
                       return absl::StartsWith(problem.where(),
                                               absl::StrCat(file, ":"));
                     });
}

absl::Status RemoveFile(const std::string& file) {
  if (unlink(file.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("remove ", file));
}

bool NoBrokerRuns(const absl::Status& status) {
  const client::FallbackReason reason = client::FallbackReasonOf(status);
  return reason == client::FallbackReason::kBrokerMissing ||
         reason == client::FallbackReason::kBrokerRefused;
}

// The status of a broker that answers; nothing where none runs.
absl::StatusOr<absl::optional<v1::GetStatusResponse>> RunningBroker() {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) {
    if (NoBrokerRuns(admin.status())) {
      return absl::optional<v1::GetStatusResponse>();
    }
    return admin.status();
  }
  ZCB_ASSIGN_OR_RETURN(v1::GetStatusResponse status, (*admin)->GetStatus());
  return absl::optional<v1::GetStatusResponse>(std::move(status));
}

int ReportUp(Format format, const UpReport& report) {
  if (format == Format::kJson) {
    PrintJson(report);
  } else if (report.started()) {
    printf("broker started in %s, process %u at %s\n",
           Spell(absl::Milliseconds(report.milliseconds())).c_str(),
           report.pid(), report.endpoint().c_str());
  } else {
    printf("a broker runs already, process %u at %s\n", report.pid(),
           report.endpoint().c_str());
  }
  return kExitOk;
}

}  // namespace

std::string ConfigDirectory(const std::string& given) {
  return given.empty()
             ? absl::StrCat(BaseDirectory("XDG_CONFIG_HOME", ".config"),
                            "/zcbroker")
             : given;
}

absl::StatusOr<v1::ReloadDefinitionsResponse> CheckDefinitions(
    const std::string& config_dir) {
  ZCB_ASSIGN_OR_RETURN(const std::string program, FindBrokerProgram());
  ZCB_ASSIGN_OR_RETURN(
      const std::string json,
      OutputOf(program, {"--check", "--config-dir", config_dir}));
  v1::ReloadDefinitionsResponse response;
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(json, &response);
  if (!parsed.ok()) {
    return absl::InternalError(absl::StrCat(
        program,
        " --check printed no report: ", std::string(parsed.message())));
  }
  return response;
}

int Status(Format format) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  const absl::StatusOr<v1::GetStatusResponse> status = (*admin)->GetStatus();
  if (!status.ok()) return PrintFailure(format, status.status());
  const absl::StatusOr<v1::ListBackendsResponse> backends =
      (*admin)->ListBackends();
  if (!backends.ok()) return PrintFailure(format, backends.status());
  if (format == Format::kJson) {
    StatusReport report;
    *report.mutable_broker() = *status;
    *report.mutable_backends() = backends->backends();
    PrintJson(report);
  } else {
    PrintStatus(*status, *backends);
  }
  return kExitOk;
}

int ServiceAdd(Format format, const std::string& config_dir,
               const ServiceChange& change) {
  const std::string file = absl::StrCat(
      ConfigDirectory(config_dir), "/services/", change.name, ".textproto");
  const auto lock =
      LockDefinitions(absl::StrCat(ConfigDirectory(config_dir), "/services"));
  if (!lock.ok()) return PrintFailure(format, lock.status());
  const absl::StatusOr<v1::ServiceDefinition> before =
      ReadDefinition(file, change.name);
  if (!before.ok()) return PrintFailure(format, before.status());
  v1::ServiceDefinition definition = *before;
  if (const absl::Status changed = ApplyChange(change, &definition);
      !changed.ok()) {
    PrintFailure(format, changed);
    return kExitUsage;
  }
  if (const absl::Status written = WriteDefinition(file, definition);
      !written.ok()) {
    return PrintFailure(format, written);
  }
  ServiceAddReport report;
  report.set_file(file);
  const auto checked = CheckDefinitions(ConfigDirectory(config_dir));
  if (checked.ok() && HasMistakeIn(*checked, file)) {
    // What worked before goes on working.
    const absl::Status restored = before->binaries().empty()
                                      ? RemoveFile(file)
                                      : WriteDefinition(file, *before);
    if (!restored.ok()) return PrintFailure(format, restored);
    report.clear_file();
  }
  if (checked.ok()) {
    for (const v1::Problem& problem : checked->problems()) {
      report.add_problems(absl::StrCat(problem.where(), ": ", problem.what()));
    }
  }
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (admin.ok() && !report.file().empty()) {
    const auto reloaded = (*admin)->ReloadDefinitions();
    if (!reloaded.ok()) return PrintFailure(format, reloaded.status());
    // A broker with another --config-dir has read something else.
    for (const v1::ServiceSummary& service : reloaded->services()) {
      if (service.source() == file) report.set_reloaded(true);
    }
  }
  if (format == Format::kJson) {
    PrintJson(report);
  } else {
    if (report.file().empty()) {
      printf("%s is as it was: the change has a mistake\n", file.c_str());
    } else {
      printf("wrote %s%s\n", file.c_str(),
             report.reloaded() ? "; the running broker has read it" : "");
    }
    for (const std::string& problem : report.problems()) {
      printf("%s\n", problem.c_str());
    }
  }
  return report.problems().empty() ? kExitOk : kExitFailure;
}

int ServiceList(Format format, const std::string& config_dir) {
  const auto checked = CheckDefinitions(ConfigDirectory(config_dir));
  if (!checked.ok()) return PrintFailure(format, checked.status());
  if (format == Format::kJson) {
    PrintJson(*checked);
  } else if (checked->services().empty()) {
    printf(
        "no services; add one with: zcbroker service add NAME --binary PATH\n");
  } else {
    PrintServices(checked->services());
  }
  return kExitOk;
}

int ServiceCheck(Format format, const std::string& config_dir) {
  const auto checked = CheckDefinitions(ConfigDirectory(config_dir));
  if (!checked.ok()) return PrintFailure(format, checked.status());
  if (format == Format::kJson) {
    PrintJson(*checked);
  } else if (checked->problems().empty()) {
    printf("%d services, no problems\n", checked->services_size());
  } else {
    PrintProblems(checked->problems());
  }
  return checked->problems().empty() ? kExitOk : kExitFailure;
}

int Up(Format format, const UpOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto running = RunningBroker();
  if (!running.ok()) return PrintFailure(format, running.status());
  UpReport report;
  if (running->has_value()) {
    report.set_pid((*running)->pid());
    report.set_endpoint((*running)->endpoint());
    return ReportUp(format, report);
  }
  const absl::StatusOr<std::string> program = FindBrokerProgram();
  if (!program.ok()) return PrintFailure(format, program.status());
  const std::string log_dir = absl::StrCat(
      BaseDirectory("XDG_STATE_HOME", ".local/state"), "/zcbroker/log");
  if (const absl::Status made = MakeDirectories(log_dir); !made.ok()) {
    return PrintFailure(format, made);
  }
  std::vector<std::string> arguments;
  if (!options.config_dir.empty()) {
    arguments.insert(arguments.end(), {"--config-dir", options.config_dir});
  }
  if (options.allow_root) arguments.emplace_back("--allow-root");
  const std::string log_file = absl::StrCat(log_dir, "/zcbrokerd.log");
  const absl::StatusOr<StartedBroker> started =
      StartBroker(*program, arguments, log_file, kUpPatience);
  if (!started.ok()) {
    // Somebody else's `up` may have been quicker.
    const auto other = RunningBroker();
    if (!other.ok() || !other->has_value()) {
      return PrintFailure(format, started.status());
    }
    report.set_pid((*other)->pid());
    report.set_endpoint((*other)->endpoint());
    return ReportUp(format, report);
  }
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  report.set_pid(static_cast<uint32_t>(started->pid));
  report.set_endpoint((*admin)->endpoint());
  if (const auto status = (*admin)->GetStatus(); status.ok()) {
    // What a person should know at once: it is not where they think it is, or
    // a definition has a mistake.
    for (const v1::Problem& problem : status->problems()) {
      fprintf(stderr, "%s: %s\n", problem.where().c_str(),
              problem.what().c_str());
    }
  }
  report.set_started(true);
  report.set_log_file(log_file);
  report.set_milliseconds(absl::ToDoubleMilliseconds(
      absl::FromChrono(std::chrono::steady_clock::now() - start)));
  return ReportUp(format, report);
}

int Down(Format format, bool stop_backends) {
  DownReport report;
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok() && !NoBrokerRuns(admin.status())) {
    return PrintFailure(format, admin.status());
  }
  if (admin.ok()) {
    const auto status = (*admin)->GetStatus();
    if (!status.ok()) return PrintFailure(format, status.status());
    report.set_pid(status->pid());
    const auto stopping =
        (*admin)->Shutdown(stop_backends ? v1::ShutdownRequest::BACKENDS_STOP
                                         : v1::ShutdownRequest::BACKENDS_LEAVE);
    if (!stopping.ok()) return PrintFailure(format, stopping.status());
    admin->reset();
    const absl::Status ended =
        AwaitEnd(static_cast<int>(status->pid()), kDownPatience);
    if (!ended.ok()) return PrintFailure(format, ended);
    report.set_stopped(true);
    report.set_backends_stopped(stopping->backends_to_stop());
  }
  if (format == Format::kJson) {
    PrintJson(report);
  } else if (report.stopped()) {
    const std::string backends =
        stop_backends
            ? absl::StrCat(
                  report.backends_stopped(),
                  report.backends_stopped() == 1 ? " backend" : " backends",
                  " that it looked after, too")
            : std::string("its backends go on running");
    printf("broker stopped (process %u); %s\n", report.pid(), backends.c_str());
  } else {
    printf("no broker runs; nothing was stopped\n");
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
