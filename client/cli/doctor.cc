// The verb that looks for what could be wrong and says what to do about it.
// Read-only: it starts nothing, and asks the broker for no start.
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/broker_socket.h"
#include "client/cli/admin_client.h"
#include "client/cli/broker_program.h"
#include "client/cli/exit_status.h"
#include "client/cli/looks.h"
#include "client/cli/own_world.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "client/fallback.h"
#include "client/framed_negotiator.h"
#include "client/grpc_negotiator.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/os.h"
#include "ipc/peer_identity.h"
#include "ipc/process.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "ipc/zccache_rules.h"
#include "proto/zcbroker/version.h"

namespace zcbroker::cli {
namespace {

// The longest name of ours below the runtime directory.
constexpr absl::string_view kLongestLeaf = "/backends/0123456789abcdef.sock";
constexpr std::size_t kPathsGetTight = 8;
constexpr std::size_t kShownBytes = 400;

class Physician {
 public:
  Physician(const std::string& config_dir, Target target)
      : config_dir_(config_dir),
        target_(std::move(target)),
        environment_(ipc::HostEnvironment()) {}

  DoctorReport Examine() {
    LookAtEnvironment();
    LookAtPlaces();
    LookAtPrograms();
    LookAtDefinitions();
    LookAtBroker();
    LookAtRoutes();
    LookAtDirectEndpoint();
    LookAtUnit();
    const bool failed = std::any_of(
        report_.checks().begin(), report_.checks().end(),
        [](const auto& c) { return c.status() == DoctorReport::FAIL; });
    report_.set_exit_status(failed ? kExitFailure : kExitOk);
    return std::move(report_);
  }

 private:
  void Note(DoctorReport::Status status, absl::string_view name,
            absl::string_view detail) {
    DoctorReport::Check& check = *report_.add_checks();
    check.set_name(std::string(name));
    check.set_status(status);
    check.set_detail(ipc::Printable(detail, kShownBytes));
  }
  void Pass(absl::string_view name, absl::string_view detail) {
    Note(DoctorReport::PASS, name, detail);
  }
  void Warn(absl::string_view name, absl::string_view detail) {
    Note(DoctorReport::WARN, name, detail);
  }
  void Fail(absl::string_view name, absl::string_view detail) {
    Note(DoctorReport::FAIL, name, detail);
  }

  std::string Variable(absl::string_view name) const {
    return environment_(name).value_or("");
  }

  // --- What clients in this shell are told

  void LookAtEnvironment() {
    constexpr char kName[] = "environment";
    const std::size_t before = report_.checks_size();
    if (Variable("RUNNING_PROCESS_DISABLE") == "1") {
      Warn(kName,
           "RUNNING_PROCESS_DISABLE is '1': clients here go past the broker; "
           "unset it");
    }
    const std::string without_cache = Variable("ZCCACHE_DISABLE");
    if (without_cache == "1" || absl::EqualsIgnoreCase(without_cache, "true")) {
      Warn(kName, absl::StrCat("ZCCACHE_DISABLE is '", without_cache,
                               "': zcb runs the compiler itself here; unset "
                               "it"));
    }
    if (!Variable("RUNNING_PROCESS_FAKE_BACKEND").empty()) {
      Warn(kName,
           "RUNNING_PROCESS_FAKE_BACKEND is set: clients here are sent "
           "to that endpoint, and to no broker; unset it");
    }
    if (Variable("ZCBROKER_STRICT") == "1") {
      Warn(kName,
           "ZCBROKER_STRICT is 1: what would fall back fails instead; "
           "unset it but for tests");
    }
    if (Variable("HOME").empty()) {
      Fail(kName,
           "HOME is not set: there is no place for definitions, logs and "
           "caches; set it");
    }
    if (target_.version.empty()) target_.version = Variable("ZCBROKER_VERSION");
    if (!target_.version.empty() && !ipc::CheckVersion(target_.version).ok()) {
      Fail(kName, absl::StrCat("'", target_.version,
                               "' is no version: write it as 1.11.22"));
      target_.version.clear();
    }
    if (static_cast<std::size_t>(report_.checks_size()) == before) {
      Pass(kName, "nothing here turns the broker off");
    }
  }

  // --- Directories

  void LookAtPlaces() {
    auto dir = ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(environment_));
    constexpr char kName[] = "runtime directory";
    if (!dir.ok()) {
      if (absl::IsNotFound(dir.status())) {
        Warn(kName, absl::StrCat(dir.status().message(),
                                 "; no broker has run "
                                 "here yet: ",
                                 UpCommand()));
      } else {
        Fail(kName, dir.status().message());
      }
      return;
    }
    dir_ = *std::move(dir);
    for (const std::string& why : dir_->passed_over()) Fail(kName, why);
    if (dir_->passed_over().empty()) Pass(kName, dir_->path());
    LookAtPathLengths();
    LookAtSpace();
  }

  void LookAtPathLengths() {
    constexpr char kName[] = "path lengths";
    const std::size_t limit = ipc::MaxSocketPathBytes(ipc::HostOs());
    const std::size_t longest = dir_->path().size() + kLongestLeaf.size();
    const std::string text =
        absl::StrCat("sockets below ", dir_->path(), " have up to ", longest,
                     " of ", limit, " bytes");
    if (longest > limit) {
      Fail(kName, absl::StrCat(text,
                               "; set XDG_RUNTIME_DIR to a shorter "
                               "directory"));
    } else if (longest + kPathsGetTight > limit) {
      Warn(kName, text);
    } else {
      Pass(kName, text);
    }
  }

  void LookAtSpace() {
    constexpr char kName[] = "space";
    struct statvfs space;
    if (fstatvfs(dir_->fd(), &space) != 0 || space.f_blocks == 0) return;
    const auto percent = [](auto part, auto whole) {
      return static_cast<int>(100.0 * static_cast<double>(part) /
                              static_cast<double>(whole));
    };
    const int blocks = percent(space.f_bavail, space.f_blocks);
    const int files =
        space.f_files == 0 ? 100 : percent(space.f_favail, space.f_files);
    const std::string text =
        absl::StrCat(dir_->base(), ": ", blocks, " % of the bytes and ", files,
                     " % of the files are free");
    if (std::min(blocks, files) < 1) {
      Fail(kName, absl::StrCat(text,
                               "; sockets and journals cannot be made: "
                               "make room"));
    } else if (std::min(blocks, files) < 5) {
      Warn(kName, text);
    } else {
      Pass(kName, text);
    }
  }

  // --- Programs and definitions

  void LookAtPrograms() {
    const absl::StatusOr<std::string> broker = FindBrokerProgram();
    if (broker.ok()) {
      Pass("zcbrokerd", *broker);
    } else {
      Fail("zcbrokerd", broker.status().message());
    }
    const absl::StatusOr<std::string> keeper = FindKeeperProgram();
    if (keeper.ok()) {
      Pass("zcbroker-keeper", *keeper);
    } else {
      Warn("zcbroker-keeper",
           absl::StrCat(keeper.status().message(),
                        "; without it a broker that dies is not started "
                        "again, and nothing is claimed"));
    }
  }

  void LookAtDefinitions() {
    const auto checked = CheckDefinitions(ConfigDirectory(config_dir_));
    if (!checked.ok()) {
      Fail("definitions", checked.status().message());
      return;
    }
    for (const v1::Problem& problem : checked->problems()) {
      Fail("definitions", absl::StrCat(problem.where(), ": ", problem.what()));
    }
    if (checked->problems().empty()) {
      const int count = checked->services_size();
      Pass("definitions",
           absl::StrCat(count, count == 1 ? " service" : " services",
                        ", no mistakes"));
    }
    for (const v1::ServiceSummary& service : checked->services()) {
      if (service.name() != target_.service) continue;
      LookAtVersions(service);
      return;
    }
    Fail("versions", NoVersionOf(target_.service));
  }

  void LookAtVersions(const v1::ServiceSummary& service) {
    constexpr char kName[] = "versions";
    const std::vector<std::string> versions(service.versions().begin(),
                                            service.versions().end());
    if (versions.empty()) {
      Fail(kName, NoBinaryOf(service));
      return;
    }
    const std::string installed =
        absl::StrCat(service.name(), " ", absl::StrJoin(versions, ", "), " (",
                     service.source(), ")");
    if (target_.version.empty()) target_.version = versions.front();
    if (std::find(versions.begin(), versions.end(), target_.version) ==
        versions.end()) {
      Fail(kName,
           absl::StrCat(service.name(), " ", target_.version,
                        " is wanted and not installed; there is ", installed));
      return;
    }
    Pass(kName, installed);
  }

  // --- The broker

  void LookAtBroker() {
    constexpr char kName[] = "broker";
    if (!dir_.has_value()) return;
    const BreakerLook breaker = LookAtBreaker(*dir_);
    if (breaker.open) {
      Fail("breaker", absl::StrCat(breaker.text,
                                   "; look at the broker's process: it is "
                                   "stopped, or the machine is overloaded"));
    } else {
      Pass("breaker", breaker.text);
    }
    const absl::StatusOr<ipc::Endpoint> broker =
        client::FindBroker(environment_);
    const absl::Status health =
        broker.ok() ? client::CheckBrokerHealth(
                          *broker, ipc::Deadline::After(kLookPatience))
                    : broker.status();
    if (!health.ok()) {
      NoteBrokerFault(health);
      return;
    }
    auto admin = AdminClient::Connect(environment_);
    const auto status =
        admin.ok() ? (*admin)->GetStatus()
                   : absl::StatusOr<v1::GetStatusResponse>(admin.status());
    if (!status.ok()) {
      Fail(kName, status.status().message());
      return;
    }
    broker_pid_ = status->pid();
    if (status->version() != kVersion) {
      Warn(kName, absl::StrCat("process ", status->pid(), " is ",
                               status->version(), ", this is ", kVersion,
                               "; replace it: zcbroker down, ", UpCommand()));
    } else {
      Pass(kName,
           absl::StrCat(status->endpoint(), ", process ", status->pid()));
    }
    for (const v1::Problem& problem : status->problems()) {
      // A policy or a definition that is none keeps something from starting;
      // a name that is taken is missed by a few clients only.
      Note(IsMistake(problem) ? DoctorReport::FAIL : DoctorReport::WARN,
           "broker's problems",
           absl::StrCat(problem.where(), ": ", problem.what()));
    }
    LookAtPolicy(*status);
    const auto backends = (*admin)->ListBackends();
    if (backends.ok()) LookAtBackends(*backends);
    LookAtNegotiation(*broker);
  }

  void NoteBrokerFault(const absl::Status& fault) {
    constexpr char kName[] = "broker";
    const std::string seen(fault.message());
    switch (client::FallbackReasonOf(fault)) {
      case client::FallbackReason::kBrokerMissing:
        Warn(kName,
             absl::StrCat("none runs; clients go direct: ", UpCommand()));
        return;
      case client::FallbackReason::kBrokerRefused:
        Fail(kName, absl::StrCat(seen,
                                 "; a broker died there and left its "
                                 "socket: ",
                                 UpCommand()));
        return;
      case client::FallbackReason::kBrokerMute:
        Fail(kName, absl::StrCat(seen,
                                 "; the broker is stopped or hangs: end "
                                 "its process, its keeper starts "
                                 "another"));
        return;
      default: {
        const auto there = TryConnect(dir_->broker_socket());
        Fail(kName, there.ok() ? absl::StrCat(seen, "; ", WhoListens(*there),
                                              ": end it, then: ", UpCommand())
                               : seen);
      }
    }
  }

  // In a file that people write: where has its line and column.
  static bool IsMistake(const v1::Problem& problem) {
    const std::vector<absl::string_view> parts =
        absl::StrSplit(problem.where(), ':');
    int line = 0;
    return parts.size() >= 3 &&
           absl::SimpleAtoi(parts[parts.size() - 2], &line) &&
           absl::SimpleAtoi(parts[parts.size() - 1], &line);
  }

  // Its file may have any name, and definitions have places of their own.
  static bool IsPolicy(absl::string_view file) {
    return absl::StartsWith(file, "/") &&
           !absl::StrContains(file, "/services/") &&
           !absl::StrContains(file, ".servicedef");
  }

  void LookAtPolicy(const v1::GetStatusResponse& status) {
    constexpr char kName[] = "policy";
    for (const v1::Problem& problem : status.problems()) {
      if (!IsMistake(problem) || !IsPolicy(problem.where())) continue;
      Fail(kName, absl::StrCat("nothing new is started before ",
                               problem.where(), " is mended"));
      return;
    }
    std::string file;
    std::vector<std::string> rules;
    for (const v1::Setting& setting : status.settings()) {
      if (!IsPolicy(setting.source())) continue;
      file = setting.source();
      rules.push_back(absl::StrCat(setting.name(), " ", setting.value()));
    }
    if (rules.empty()) {
      Pass(kName, "none restricts anything");
    } else {
      Pass(kName, absl::StrCat(file, ": ", absl::StrJoin(rules, "; ")));
    }
  }

  void LookAtBackends(const v1::ListBackendsResponse& backends) {
    constexpr char kName[] = "backends";
    int well = 0;
    for (const v1::Backend& backend : backends.backends()) {
      const std::string who =
          absl::StrCat(backend.service(), " ", backend.version());
      const std::string last =
          backend.evidence().empty()
              ? ""
              : absl::StrCat(": ",
                             backend.evidence(backend.evidence_size() - 1));
      const std::string log =
          backend.log_file().empty()
              ? ""
              : absl::StrCat("; its log: ", backend.log_file());
      switch (backend.state()) {
        case v1::BACKEND_STATE_BROKEN:
          Fail(kName,
               absl::StrCat(who, " is broken after ", backend.failed_starts(),
                            " failed starts", last, log,
                            "; mend it, then: zcbroker start ", who));
          break;
        case v1::BACKEND_STATE_SUSPECT:
        case v1::BACKEND_STATE_WEDGED:
          Warn(kName, absl::StrCat(who, " does not answer", last));
          break;
        default:
          // Also once the next start is allowed.
          if (backend.failed_starts() > 0 && !backend.has_route()) {
            Warn(kName, absl::StrCat(who, " did not start", last, log));
          } else {
            ++well;
          }
      }
    }
    if (well == backends.backends_size()) {
      Pass(kName, absl::StrCat(well, " known, none in trouble"));
    }
  }

  void LookAtNegotiation(const ipc::Endpoint& broker) {
    constexpr char kName[] = "negotiation";
    if (target_.version.empty()) return;
    client::NegotiationRequest request =
        OwnRequest(target_.service, target_.version);
    request.start_policy = client::StartPolicy::kOnlyIfRunning;
    const auto route = client::GrpcNegotiator(broker).Negotiate(request);
    const std::string who = absl::StrCat(target_.service, " ", target_.version);
    if (route.ok()) {
      Pass(kName, absl::StrCat(who, ": process ", route->pid, " at ",
                               route->endpoint.path()));
      return;
    }
    const std::string refusal =
        client::RefusalNameOf(route.status()).value_or("no answer");
    if (refusal == "BACKEND_START_FAILED") {
      Pass(kName, absl::StrCat(who, ": a client has it started"));
    } else {
      Fail(kName,
           absl::StrCat(who, ": ", refusal, ": ", route.status().message()));
    }
  }

  // --- What leads to backends

  void LookAtRoutes() {
    constexpr char kName[] = "routes";
    if (!dir_.has_value()) return;
    const auto services = ipc::ListRouteServices(*dir_);
    if (!services.ok()) {
      Fail(kName, services.status().message());
      return;
    }
    int alive = 0;
    bool well = true;
    for (const std::string& service : *services) {
      const auto versions = ipc::ListRouteVersions(*dir_, service);
      if (!versions.ok()) {
        Fail(kName, versions.status().message());
        well = false;
        continue;
      }
      for (const std::string& version : *versions) {
        const auto info = ipc::ReadRouteInfo(*dir_, service, version);
        const absl::Status there =
            info.ok() ? TryConnect(info->endpoint()).status() : info.status();
        if (there.ok()) {
          ++alive;
          continue;
        }
        well = false;
        Warn(kName, absl::StrCat(service, " ", version,
                                 " leads to nobody: ", there.message(),
                                 "; clients ask the broker instead"));
      }
    }
    if (well) Pass(kName, absl::StrCat(alive, " lead to a backend"));
  }

  void LookAtDirectEndpoint() {
    constexpr char kName[] = "direct endpoint";
    if (target_.service != "zccache" ||
        (target_.version.empty() && !environment_("ZCCACHE_ENDPOINT"))) {
      return;
    }
    const std::string path = ipc::ZccacheClientEndpoint(
        ipc::ZccacheInputs{environment_, WorkingDirectory()}, target_.version);
    const absl::StatusOr<ipc::UniqueFd> there = TryConnect(path);
    if (there.ok()) {
      const int other = OtherBroker(*there);
      if (other != 0) {
        Fail(kName,
             absl::StrCat(path, ": another broker of yours, process ", other,
                          ", has that name; end it with its own "
                          "XDG_RUNTIME_DIR: zcbroker down"));
      } else {
        Pass(kName, absl::StrCat(path, ": ", WhoListens(*there)));
      }
    } else if (absl::IsNotFound(there.status())) {
      Pass(kName, absl::StrCat(path,
                               ": nobody yet; the first client starts "
                               "a daemon"));
    } else if (absl::IsUnavailable(there.status())) {
      Warn(kName, absl::StrCat(path,
                               ": a dead socket; a client replaces it, "
                               "or: ",
                               UpCommand()));
    } else {
      Fail(kName, there.status().message());
    }
  }

  // The process that listens at the other end where it is a broker and neither
  // ours nor one that handed over to it, under the same keeper; else 0.
  int OtherBroker(const ipc::UniqueFd& connection) const {
    const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(connection);
    if (!peer.ok() || peer->pid == static_cast<int>(broker_pid_)) return 0;
    if (!ipc::RunsProgram(peer->pid, "zcbrokerd")) return 0;
    const auto theirs = ipc::ReadProcessStat(peer->pid);
    const auto ours = ipc::ReadProcessStat(static_cast<int>(broker_pid_));
    const bool same_keeper =
        theirs.ok() && ours.ok() && theirs->parent == ours->parent;
    return same_keeper ? 0 : peer->pid;
  }

  // --- systemd

  void LookAtUnit() {
    constexpr char kName[] = "systemd";
    const std::string config = ipc::BaseDirectory(ipc::HostEnvironment(),
                                                  "XDG_CONFIG_HOME", ".config");
    for (const std::string& directory :
         {absl::StrCat(config, "/systemd/user"),
          std::string("/etc/systemd/user"),
          std::string("/usr/local/lib/systemd/user"),
          std::string("/usr/lib/systemd/user")}) {
      const std::string path = absl::StrCat(directory, "/zcbroker.service");
      std::ifstream file(path);
      if (!file) continue;
      std::stringstream text;
      text << file.rdbuf();
      const std::vector<std::string> lines = absl::StrSplit(text.str(), '\n');
      const bool process = std::find(lines.begin(), lines.end(),
                                     "KillMode=process") != lines.end();
      if (process) {
        Pass(kName, path);
      } else {
        Fail(kName, absl::StrCat(path,
                                 " has no line KillMode=process: every "
                                 "restart of the broker ends its "
                                 "backends and their compiles"));
      }
      return;
    }
    Pass(kName, absl::StrCat("no unit; ", UpCommand(), " starts the broker"));
  }

  const std::string config_dir_;
  Target target_;
  const ipc::EnvironmentLookup environment_;
  absl::optional<ipc::RuntimeDir> dir_;
  uint32_t broker_pid_ = 0;  // 0: none has answered
  DoctorReport report_;
};

void PrintReport(const DoctorReport& report) {
  const bool colours = isatty(STDOUT_FILENO) == 1 &&
                       !ipc::HostEnvironment()("NO_COLOR").has_value();
  std::map<DoctorReport::Status, int> counts;
  for (const DoctorReport::Check& check : report.checks()) {
    ++counts[check.status()];
    const char* colour = check.status() == DoctorReport::PASS   ? "32"
                         : check.status() == DoctorReport::WARN ? "33"
                                                                : "31";
    const std::string& status = DoctorReport::Status_Name(check.status());
    printf("%s  %-18s %s\n",
           colours
               ? absl::StrCat("\x1b[", colour, "m", status, "\x1b[0m").c_str()
               : status.c_str(),
           check.name().c_str(), check.detail().c_str());
  }
  printf("%d passed, %d warned, %d failed\n", counts[DoctorReport::PASS],
         counts[DoctorReport::WARN], counts[DoctorReport::FAIL]);
}

}  // namespace

int Doctor(Format format, const std::string& config_dir, const Target& target) {
  const DoctorReport report = Physician(config_dir, target).Examine();
  if (format == Format::kJson) {
    PrintJson(report);
  } else {
    PrintReport(report);
  }
  return report.exit_status();
}

}  // namespace zcbroker::cli
