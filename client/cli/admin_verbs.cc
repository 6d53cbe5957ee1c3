// The verbs about the broker itself: status, service, config, up, down, and
// start, stop and drain of one backend.
#include <errno.h>
#include <unistd.h>

#include <algorithm>
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
#include "client/cli/bring_up.h"
#include "client/cli/broker_program.h"
#include "client/cli/definition_file.h"
#include "client/cli/exit_status.h"
#include "client/cli/looks.h"
#include "client/cli/progress.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "client/fallback.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/deadline.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"

namespace zcbroker::cli {
namespace {

// One that died while it ended is replaced; that one ends in order.
constexpr int kDownRounds = 3;
// A keeper takes 10 s to find that nobody is served, and to start another; some
// more on a busy machine.
constexpr absl::Duration kMutePatience = absl::Seconds(20);

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
  if (backend.has_route()) {
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
  if (backend.has_world()) {
    printf("      for clients of %s, namespace %s\n",
           ipc::Printable(backend.world().cache_root(), 200).c_str(),
           ipc::Printable(backend.world().daemon_namespace(), 200).c_str());
  }
  if (!backend.last_end().empty()) {
    printf("      the last one ended: %s\n",
           ipc::Printable(backend.last_end(), 200).c_str());
  }
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
  const absl::Duration uptime = absl::Seconds(status.uptime().seconds());
  // FormatDuration gives nothing a unit.
  printf("zcbrokerd %s, process %u, up %s\n", status.version().c_str(),
         status.pid(),
         uptime == absl::ZeroDuration() ? "0s"
                                        : absl::FormatDuration(uptime).c_str());
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

int ReportBackend(Format format, const absl::StatusOr<v1::Backend>& backend) {
  if (!backend.ok()) return PrintFailure(format, backend.status());
  if (format == Format::kJson) {
    PrintJson(*backend);
  } else {
    PrintBackend(*backend);
  }
  return kExitOk;
}

Progress WaitFor(const Target& target, absl::string_view what) {
  return Progress(
      absl::StrCat("waiting for ", target.service, " ", target.version, what));
}

absl::StatusOr<v1::Backend> StartBackend(AdminClient& admin,
                                         const Target& target) {
  const Progress progress = WaitFor(target, " to start");
  return admin.StartBackend(target.service, target.version);
}

absl::StatusOr<v1::Backend> StopBackend(AdminClient& admin,
                                        const Target& target) {
  const Progress progress = WaitFor(target, " to end");
  return admin.StopBackend(target.service, target.version);
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
  if (given.empty()) {
    return absl::StrCat(ipc::BaseDirectory(ipc::HostEnvironment(),
                                           "XDG_CONFIG_HOME", ".config"),
                        "/zcbroker");
  }
  return WholeDirectory(given).value_or(given);
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

// Against another command that changes one.
absl::StatusOr<ipc::UniqueFd> LockAllDefinitions(const std::string& config) {
  const Progress progress("waiting for another `zcbroker service`");
  return LockDefinitions(absl::StrCat(config, "/services"));
}

int ServiceAdd(Format format, const std::string& config_dir,
               const ServiceChange& change) {
  const std::string config = ConfigDirectory(config_dir);
  if (absl::StartsWith(config, ipc::kNoHome)) {
    return PrintFailure(
        format, absl::FailedPreconditionError(
                    "neither HOME nor XDG_CONFIG_HOME names a place for "
                    "definitions; set one, or give --config-dir"));
  }
  const std::string file =
      absl::StrCat(config, "/services/", change.name, ".textproto");
  const auto lock = LockAllDefinitions(config);
  if (!lock.ok()) return PrintFailure(format, lock.status());
  const absl::StatusOr<DefinitionFile> before =
      ReadDefinition(file, change.name);
  if (!before.ok()) return PrintFailure(format, before.status());
  v1::ServiceDefinition definition = before->definition;
  if (const absl::Status changed = ApplyChange(change, &definition);
      !changed.ok()) {
    PrintFailure(format, changed);
    return kExitUsage;
  }
  ServiceAddReport report;
  report.set_file(file);
  absl::Status written;
  if (before->by_hand) {
    // What is written has no comments.
    report.set_kept(absl::StrCat(file, ".before"));
    // One that was kept earlier stays, too.
    for (int n = 2; access(report.kept().c_str(), F_OK) == 0; ++n) {
      report.set_kept(absl::StrCat(file, ".before", n));
    }
    written = WriteDefinitionText(report.kept(), *before->text);
  }
  if (written.ok()) written = WriteDefinition(file, definition);
  if (!written.ok()) return PrintFailure(format, written);
  const auto checked = CheckDefinitions(config);
  if (checked.ok() && HasMistakeIn(*checked, file)) {
    // What worked before goes on working.
    absl::Status restored = before->text.has_value()
                                ? WriteDefinitionText(file, *before->text)
                                : RemoveFile(file);
    if (restored.ok() && before->by_hand) restored = RemoveFile(report.kept());
    if (!restored.ok()) return PrintFailure(format, restored);
    report.clear_file();
    report.clear_kept();
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
      if (!report.kept().empty()) {
        printf("what stood there, with its comments: %s\n",
               report.kept().c_str());
      }
    }
    for (const std::string& problem : report.problems()) {
      printf("%s\n", problem.c_str());
    }
  }
  return report.problems().empty() ? kExitOk : kExitFailure;
}

int ServiceRemove(Format format, const std::string& config_dir,
                  const std::string& name) {
  const std::string directory =
      absl::StrCat(ConfigDirectory(config_dir), "/services");
  const std::string file = absl::StrCat(directory, "/", name, ".textproto");
  if (const absl::Status named = ipc::CheckServiceName(name); !named.ok()) {
    PrintFailure(format, named);
    return kExitUsage;
  }
  if (access(file.c_str(), F_OK) != 0) {
    if (errno != ENOENT) {
      return PrintFailure(format, absl::ErrnoToStatus(errno, file));
    }
    return PrintFailure(
        format, absl::NotFoundError(absl::StrCat(
                    "there is no ", file,
                    "; what is built in is not removed by a file: a policy may "
                    "forbid it")));
  }
  const auto lock = LockAllDefinitions(ConfigDirectory(config_dir));
  if (!lock.ok()) return PrintFailure(format, lock.status());
  const absl::Status removed = RemoveFile(file);
  if (!removed.ok()) return PrintFailure(format, removed);
  ServiceRemoveReport report;
  report.set_file(file);
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (admin.ok()) {
    const auto reloaded = (*admin)->ReloadDefinitions();
    if (!reloaded.ok()) return PrintFailure(format, reloaded.status());
    report.set_reloaded(true);
  }
  if (format == Format::kJson) {
    PrintJson(report);
  } else {
    printf("removed %s%s\n", file.c_str(),
           report.reloaded() ? "; the running broker goes on without it" : "");
  }
  return kExitOk;
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
    const int count = checked->services_size();
    printf("%d %s, no problems\n", count, count == 1 ? "service" : "services");
  } else {
    PrintProblems(checked->problems());
  }
  return checked->problems().empty() ? kExitOk : kExitFailure;
}

int ConfigEffective(Format format, const std::string& config_dir) {
  ConfigReport report;
  const auto running = RunningBroker();
  if (!running.ok()) return PrintFailure(format, running.status());
  if (running->has_value()) {
    report.set_pid((*running)->pid());
    *report.mutable_settings() = (*running)->settings();
  } else {
    const auto checked = CheckDefinitions(ConfigDirectory(config_dir));
    if (!checked.ok()) return PrintFailure(format, checked.status());
    *report.mutable_settings() = checked->settings();
  }
  if (format == Format::kJson) {
    PrintJson(report);
    return kExitOk;
  }
  printf("%s\n",
         report.pid() != 0
             ? absl::StrCat("the broker, process ", report.pid(), ", goes by")
                   .c_str()
             : "no broker runs; one started now would go by");
  for (const v1::Setting& setting : report.settings()) {
    printf("  %-34s %-20s %s\n", setting.name().c_str(),
           ipc::Printable(setting.value(), 200).c_str(),
           ipc::Printable(setting.source(), 200).c_str());
  }
  return kExitOk;
}

int Start(Format format, const Target& target) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  return ReportBackend(format, StartBackend(**admin, target));
}

int Stop(Format format, const Target& target) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  return ReportBackend(format, StopBackend(**admin, target));
}

int Restart(Format format, const Target& target) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  const auto stopped = StopBackend(**admin, target);
  if (!stopped.ok()) return PrintFailure(format, stopped.status());
  return ReportBackend(format, StartBackend(**admin, target));
}

int Drain(Format format, const Target& target) {
  auto admin = AdminClient::Connect(ipc::HostEnvironment());
  if (!admin.ok()) return PrintFailure(format, admin.status());
  const Progress progress = WaitFor(target, " to have nothing in flight");
  return ReportBackend(format,
                       (*admin)->DrainBackend(target.service, target.version));
}

int Up(Format format, const UpOptions& options) {
  const absl::StatusOr<UpReport> report = BringUp(options);
  if (!report.ok()) return PrintFailure(format, report.status());
  return ReportUp(format, *report);
}

// Waits while a broker gives no sign of life: its keeper replaces it, or it was
// only stopped for a while.
absl::StatusOr<std::unique_ptr<AdminClient>> ConnectOnceNotMute() {
  const ipc::Deadline deadline = ipc::Deadline::After(kMutePatience);
  const Progress progress("waiting for a broker that gives no sign of life");
  for (;;) {
    auto admin = AdminClient::Connect(ipc::HostEnvironment());
    if (admin.ok() || deadline.Expired() ||
        client::FallbackReasonOf(admin.status()) !=
            client::FallbackReason::kBrokerMute) {
      return admin;
    }
  }
}

// What came of an attempt to end the broker.
enum class Ending {
  kNobody,  // none runs
  kOver,    // it has ended, and its keeper
  kAgain,   // one that is ending, or its keeper has started another
};

absl::StatusOr<Ending> EndBroker(bool stop_backends, DownReport* report) {
  auto admin = ConnectOnceNotMute();
  if (!admin.ok() && NoBrokerRuns(admin.status())) return Ending::kNobody;
  if (!admin.ok()) return admin.status();
  const auto status = (*admin)->GetStatus();
  const int keeper =
      status.ok() ? KeeperOf(static_cast<int>(status->pid())) : 0;
  const auto stopping =
      status.ok()
          ? (*admin)->Shutdown(stop_backends
                                   ? v1::ShutdownRequest::BACKENDS_STOP
                                   : v1::ShutdownRequest::BACKENDS_LEAVE)
          : status.status();
  if (!stopping.ok()) {
    // Somebody else has ended it, or something has.
    if (client::FallbackReasonOf(stopping.status()) ==
        client::FallbackReason::kBrokerClosed) {
      return Ending::kAgain;
    }
    return stopping.status();
  }
  admin->reset();
  ZCB_RETURN_IF_ERROR(AwaitEnd(static_cast<int>(status->pid()), kEndPatience));
  report->set_stopped(true);
  report->set_pid(status->pid());
  report->set_backends_stopped(stopping->backends_to_stop());
  // It ends when its broker has ended in order, and starts another where that
  // died.
  const bool over = keeper == 0 || AwaitEnd(keeper, kKeeperPatience).ok();
  return over ? Ending::kOver : Ending::kAgain;
}

int Down(Format format, bool stop_backends) {
  DownReport report;
  // One that was ending already.
  int ending_one = 0;
  for (int round = 0;; ++round) {
    const auto ending = EndBroker(stop_backends, &report);
    if (!ending.ok()) return PrintFailure(format, ending.status());
    if (*ending == Ending::kOver) break;
    const auto before = AwaitEndingBroker();
    if (!before.ok()) return PrintFailure(format, before.status());
    if (*before != 0) ending_one = *before;
    // Where one has ended meanwhile its keeper may have started another.
    if (*ending == Ending::kNobody && *before == 0) break;
    if (round == kDownRounds) {
      return PrintFailure(
          format, absl::AbortedError("a broker is started again and again; "
                                     "see who does so: zcbroker status"));
    }
  }
  const bool asked = report.stopped();
  if (!asked && ending_one != 0) {
    report.set_stopped(true);
    report.set_pid(static_cast<uint32_t>(ending_one));
  }
  if (format == Format::kJson) {
    PrintJson(report);
  } else if (report.stopped() && !asked) {
    printf("the broker was ending already, and has ended (process %u)\n",
           report.pid());
  } else if (report.stopped()) {
    const std::string backends =
        !stop_backends ? std::string("its backends go on running")
        : report.backends_stopped() == 0
            ? std::string("it had no backends")
            : absl::StrCat(
                  report.backends_stopped(),
                  report.backends_stopped() == 1 ? " backend" : " backends",
                  " that it looked after, too");
    printf("broker stopped (process %u); %s\n", report.pid(), backends.c_str());
  } else {
    printf("no broker runs; nothing was stopped\n");
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
