// The verb that says why a client is or is not connected through the broker.
// It walks the table of client/connect_daemon.h with the same functions that
// decide there, for this very environment, and notes what it sees.
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/broker_socket.h"
#include "client/cli/exit_status.h"
#include "client/cli/looks.h"
#include "client/cli/output.h"
#include "client/cli/own_world.h"
#include "client/cli/report.pb.h"
#include "client/cli/verbs.h"
#include "client/connect_daemon.h"
#include "client/fallback.h"
#include "client/fallback_records.h"
#include "client/framed_negotiator.h"
#include "client/grpc_negotiator.h"
#include "client/named_route.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "ipc/wire_lane.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::cli {
namespace {

using client::FallbackReason;

constexpr std::size_t kShownFallbacks = 20;
constexpr std::size_t kShownBytes = 200;

constexpr char kYes[] = "yes";
constexpr char kNo[] = "no";
constexpr char kFailed[] = "failed";
constexpr char kPassedOver[] = "passed over";

// How row 3 would end.
struct BrokerOutcome {
  std::string endpoint;  // empty: the broker would tell
  absl::optional<FallbackReason> fallback;
};

class Explanation {
 public:
  explicit Explanation(const Target& target)
      : environment_(ipc::HostEnvironment()),
        dir_(ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(environment_))),
        world_(OwnWorld()) {
    report_.set_service(target.service);
    report_.set_version(target.version);
    if (target.version.empty()) ChooseVersion();
  }

  ExplainReport Walk(bool all) {
    const bool disabled = LookAtDisable();
    const absl::optional<bool> fake = LookAtFakeBackend();
    const bool wanted = LookAtSwitch();
    const BrokerOutcome broker = LookAtBroker();
    const std::string direct = LookAtDirectEndpoint();
    report_.set_connection("direct");
    report_.set_endpoint(direct);
    if (disabled) {
      report_.set_row(1);
    } else if (fake.has_value()) {
      report_.set_row(2);
      if (*fake) {
        report_.set_connection("fake_backend");
        report_.set_endpoint(*environment_("RUNNING_PROCESS_FAKE_BACKEND"));
      } else {
        SetFallback(FallbackReason::kFakeBackendDead);
      }
    } else if (!wanted) {
      report_.set_row(4);
    } else if (broker.fallback.has_value()) {
      report_.set_row(3);
      SetFallback(*broker.fallback);
    } else {
      report_.set_row(3);
      report_.set_connection("broker");
      report_.set_endpoint(broker.endpoint);
    }
    AddFallbacks(all);
    return std::move(report_);
  }

 private:
  void Note(absl::string_view name, absl::string_view outcome,
            absl::string_view evidence) {
    ExplainStep& step = *report_.add_steps();
    step.set_name(std::string(name));
    step.set_outcome(std::string(outcome));
    step.set_evidence(ipc::Printable(evidence, kShownBytes));
  }
  void SetFallback(FallbackReason reason) {
    report_.set_fallback(std::string(client::FallbackReasonName(reason)));
  }

  // The newest that has a route info: what most likely is meant.
  void ChooseVersion() {
    if (!dir_.ok()) return;
    const auto versions = ipc::ListRouteVersions(*dir_, report_.service());
    if (versions.ok() && !versions->empty()) {
      report_.set_version(versions->front());
    }
  }

  std::string Shown(absl::string_view variable) const {
    const absl::optional<std::string> value = environment_(variable);
    return value.has_value() ? absl::StrCat("is '", *value, "'") : "is not set";
  }

  bool LookAtDisable() {
    constexpr char kName[] = "RUNNING_PROCESS_DISABLE";
    const bool on = environment_(kName) == absl::optional<std::string>("1");
    Note(kName, on ? kYes : kNo, Shown(kName));
    return on;
  }

  // Nothing where none is named; else whether it answers.
  absl::optional<bool> LookAtFakeBackend() {
    constexpr char kName[] = "RUNNING_PROCESS_FAKE_BACKEND";
    const std::string value = environment_(kName).value_or("");
    if (value.empty()) {
      Note(kName, kNo, Shown(kName));
      return absl::nullopt;
    }
    const absl::Status answer = TryConnect(value).status();
    Note(kName, answer.ok() ? kYes : kFailed,
         answer.ok() ? absl::StrCat(value, " answers") : answer.message());
    return answer.ok();
  }

  bool LookAtSwitch() {
    constexpr char kName[] = "ZCCACHE_BROKER_CONNECT";
    const bool on = environment_(kName) == absl::optional<std::string>("1");
    Note(
        kName, on ? kYes : kNo,
        absl::StrCat(Shown(kName),
                     on ? "" : "; 1 asks for the broker, and zcb always does"));
    return on;
  }

  BrokerOutcome LookAtBroker() {
    BrokerOutcome outcome;
    if (!dir_.ok()) {
      Note("runtime directory", kFailed, dir_.status().message());
      outcome.fallback = absl::IsNotFound(dir_.status())
                             ? FallbackReason::kBrokerMissing
                             : FallbackReason::kBrokerUnreachable;
      return outcome;
    }
    Note("runtime directory", kYes,
         dir_->passed_over().empty()
             ? dir_->path()
             : absl::StrCat(dir_->path(), "; passed over: ",
                            absl::StrJoin(dir_->passed_over(), "; ")));
    if (const auto endpoint = LookAtRouteInfo(); endpoint.has_value()) {
      Note("broker", kPassedOver, "the route info leads past it");
      outcome.endpoint = *endpoint;
      return outcome;
    }
    outcome.fallback = NoteBreaker();
    const absl::optional<FallbackReason> broker = LookAtBrokerItself();
    if (!outcome.fallback.has_value()) outcome.fallback = broker;
    return outcome;
  }

  // Where it leads, if somebody is there.
  absl::optional<std::string> LookAtRouteInfo() {
    constexpr char kName[] = "route info";
    if (report_.version().empty()) {
      Note(kName, kNo,
           absl::StrCat("there is none of ", report_.service(),
                        "; say which version with --wanted"));
      return absl::nullopt;
    }
    const std::string& service = report_.service();
    const std::string& version = report_.version();
    const std::vector<ipc::WireLane> lanes =
        client::ConnectOptions().accepted_lanes;
    const client::NamedRouteRequest request = {service, version, lanes, world_};
    absl::StatusOr<client::NamedConnection> found =
        client::ConnectNamedRoute(*dir_, request, kLookPatience);
    if (!found.ok()) {
      const absl::StatusOr<ipc::RuntimeDir> other = dir_->FindWorld(
          ipc::ZccacheWorldId({world_.cache_root, world_.daemon_namespace}));
      if (other.ok()) {
        found = client::ConnectNamedRoute(*other, request, kLookPatience);
      }
    }
    if (!found.ok()) {
      Note(kName, absl::IsNotFound(found.status()) ? kNo : kFailed,
           found.status().message());
      return absl::nullopt;
    }
    const client::BackendRoute& backend = found->route.backend;
    Note(kName, kYes,
         absl::StrCat(backend.endpoint.path(), ", process ", backend.pid, ", ",
                      ipc::WireLaneName(found->route.lane)));
    return backend.endpoint.path();
  }

  absl::optional<FallbackReason> NoteBreaker() {
    const BreakerLook look = LookAtBreaker(*dir_);
    Note("breaker", look.open ? kYes : kNo, look.text);
    if (!look.open) return absl::nullopt;
    return FallbackReason::kBreakerOpen;
  }

  absl::optional<FallbackReason> LookAtBrokerItself() {
    constexpr char kName[] = "broker";
    const absl::StatusOr<ipc::Endpoint> broker =
        client::FindBroker(environment_);
    const absl::Status health =
        broker.ok() ? client::CheckBrokerHealth(
                          *broker, ipc::Deadline::After(kLookPatience))
                    : broker.status();
    if (!health.ok()) {
      const FallbackReason reason = client::FallbackReasonOf(health);
      Note(kName, reason == FallbackReason::kBrokerMissing ? kNo : kFailed,
           health.message());
      return reason;
    }
    Note(kName, kYes, absl::StrCat(broker->path(), " answers"));
    if (report_.version().empty()) return absl::nullopt;
    return LookAtNegotiation(*broker);
  }

  // Asks for what runs only, so nothing is started.
  absl::optional<FallbackReason> LookAtNegotiation(
      const ipc::Endpoint& broker) {
    constexpr char kName[] = "negotiation";
    client::NegotiationRequest request =
        OwnRequest(report_.service(), report_.version());
    request.start_policy = client::StartPolicy::kOnlyIfRunning;
    const auto route = client::GrpcNegotiator(broker).Negotiate(request);
    if (route.ok()) {
      Note(kName, kYes,
           absl::StrCat(route->endpoint.path(), ", process ", route->pid));
      return absl::nullopt;
    }
    const absl::optional<std::string> refusal =
        client::RefusalNameOf(route.status());
    if (refusal == absl::optional<std::string>("BACKEND_START_FAILED")) {
      Note(kName, kYes, "it does not run; a client has it started");
      return absl::nullopt;
    }
    Note(kName, kFailed,
         absl::StrCat(refusal.value_or("no answer"), ": ",
                      route.status().message()));
    return client::FallbackReasonOf(route.status());
  }

  std::string LookAtDirectEndpoint() {
    constexpr char kName[] = "direct endpoint";
    const bool named = environment_("ZCCACHE_ENDPOINT").has_value();
    if (report_.version().empty() && !named) {
      Note(kName, kNo, "it follows from the version; say --wanted");
      return "";
    }
    std::string path = ipc::ZccacheClientEndpoint(
        ipc::ZccacheInputs{environment_, WorkingDirectory()},
        report_.version());
    const absl::StatusOr<ipc::UniqueFd> answer = TryConnect(path);
    std::string evidence = answer.ok()
                               ? absl::StrCat(path, ": ", WhoListens(*answer))
                               : std::string(answer.status().message());
    if (named) absl::StrAppend(&evidence, ", by ZCCACHE_ENDPOINT");
    if (IsOurRoute(path)) {
      absl::StrAppend(&evidence, ", the broker's own name");
    } else if (absl::StrContains(evidence, "zcbrokerd")) {
      absl::StrAppend(&evidence, ", which claims it and relays to the daemon");
    }
    Note(kName, answer.ok() ? kYes : kNo, evidence);
    return path;
  }

  bool IsOurRoute(const std::string& path) const {
    return dir_.ok() &&
           absl::StartsWith(path, absl::StrCat(dir_->path(), "/routes/"));
  }

  void AddFallbacks(bool all) {
    if (!dir_.ok()) return;
    const auto records = client::ReadFallbackRecords(*dir_);
    if (!records.ok()) {
      Note("fallback records", kFailed, records.status().message());
      return;
    }
    const auto session = static_cast<std::uint32_t>(getsid(0));
    const auto shell = static_cast<std::uint32_t>(getppid());
    for (auto record = records->rbegin(); record != records->rend(); ++record) {
      if (!all && record->session != session && record->parent != shell) {
        continue;
      }
      const std::string reason(client::FallbackReasonName(record->reason));
      ++(*report_.mutable_fallback_counts())[reason];
      if (static_cast<std::size_t>(report_.fallbacks_size()) ==
          kShownFallbacks) {
        continue;
      }
      ExplainFallback& shown = *report_.add_fallbacks();
      shown.set_time(absl::FormatTime(absl::RFC3339_sec, record->wall,
                                      absl::LocalTimeZone()));
      shown.set_reason(reason);
      shown.set_origin(record->origin == client::FallbackOrigin::kLauncher
                           ? "launcher"
                           : "library");
      shown.set_program(record->program);
      shown.set_pid(record->pid);
      shown.set_parent(record->parent);
      shown.set_service(record->service);
      shown.set_version(record->version);
    }
  }

  const ipc::EnvironmentLookup environment_;
  const absl::StatusOr<ipc::RuntimeDir> dir_;
  const client::World world_;
  ExplainReport report_;
};

void PrintExplanation(const ExplainReport& report, bool all) {
  printf("%s%s%s here: %s, row %u", report.service().c_str(),
         report.version().empty() ? "" : " ", report.version().c_str(),
         report.connection().c_str(), report.row());
  if (!report.fallback().empty()) printf(", %s", report.fallback().c_str());
  if (!report.endpoint().empty()) printf(", %s", report.endpoint().c_str());
  if (report.connection() == "broker" && report.endpoint().empty()) {
    printf(", where the broker says");
  }
  printf("\n");
  for (const ExplainStep& step : report.steps()) {
    printf("  %-28s  %-11s  %s\n", step.name().c_str(), step.outcome().c_str(),
           step.evidence().c_str());
  }
  if (report.fallbacks().empty()) {
    printf("no fallbacks of %s\n", all ? "any process" : "this shell");
    return;
  }
  printf("fallbacks of %s\n", all ? "all processes" : "this shell");
  const std::map<std::string, uint32_t> counts(report.fallback_counts().begin(),
                                               report.fallback_counts().end());
  for (const auto& [reason, count] : counts) {
    printf("  %s %u\n", reason.c_str(), count);
  }
  for (const ExplainFallback& one : report.fallbacks()) {
    printf("  %s  %-18s  %s%s%s, %s, process %u of %u, by the %s\n",
           one.time().c_str(), one.reason().c_str(), one.service().c_str(),
           one.version().empty() ? "" : " ", one.version().c_str(),
           one.program().c_str(), one.pid(), one.parent(),
           one.origin().c_str());
  }
}

}  // namespace

int Explain(Format format, const Target& target, bool all) {
  const ExplainReport report = Explanation(target).Walk(all);
  if (format == Format::kJson) {
    PrintJson(report);
  } else {
    PrintExplanation(report, all);
  }
  return kExitOk;
}

}  // namespace zcbroker::cli
