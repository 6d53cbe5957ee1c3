#include "client/cli/bring_up.h"

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/cli/admin_client.h"
#include "client/cli/broker_program.h"
#include "client/cli/looks.h"
#include "client/cli/progress.h"
#include "client/fallback.h"
#include "ipc/deadline.h"
#include "ipc/environment.h"
#include "ipc/instance_lock.h"
#include "ipc/private_dir.h"
#include "ipc/process.h"
#include "ipc/runtime_dir.h"
#include "ipc/status_macros.h"

namespace zcbroker::cli {
namespace {

constexpr absl::Duration kUpPatience = absl::Seconds(10);
constexpr absl::Duration kLookAgain = absl::Milliseconds(100);

absl::StatusOr<std::string> MakeLogFile() {
  if (absl::StartsWith(LogDirectory(), ipc::kNoHome)) {
    return absl::FailedPreconditionError(
        "neither HOME nor XDG_STATE_HOME names a place for the "
        "broker's log; set one");
  }
  ZCB_RETURN_IF_ERROR(ipc::MakeDirectories(LogDirectory()));
  return absl::StrCat(LogDirectory(), "/zcbrokerd.log");
}

struct CommandWords {
  std::string program;
  std::vector<std::string> arguments;
};

// It may come; but maybe another was meant.
void TellOfNoDirectory(const std::string& config_dir) {
  const std::string services = absl::StrCat(config_dir, "/services");
  std::error_code error;
  if (std::filesystem::is_directory(services, error)) return;
  fprintf(stderr,
          "zcbroker: --config-dir: there is no directory %s; definitions that "
          "come there are read when somebody asks for one\n",
          services.c_str());
}

// zcbrokerd under its keeper; alone where there is no keeper to be found.
absl::StatusOr<CommandWords> BrokerCommand(const UpOptions& options) {
  ZCB_ASSIGN_OR_RETURN(std::string broker, FindBrokerProgram());
  CommandWords words;
  const absl::StatusOr<std::string> keeper = FindKeeperProgram();
  if (keeper.ok()) {
    words.program = *keeper;
    words.arguments = {"--broker", std::move(broker), "--"};
  } else {
    fprintf(stderr,
            "zcbroker: %s; the broker starts without one, and nobody starts "
            "it again should it die\n",
            std::string(keeper.status().message()).c_str());
    words.program = std::move(broker);
  }
  if (!options.config_dir.empty()) {
    ZCB_ASSIGN_OR_RETURN(const std::string directory,
                         WholeDirectory(options.config_dir));
    TellOfNoDirectory(directory);
    words.arguments.insert(words.arguments.end(), {"--config-dir", directory});
  }
  if (options.allow_root) words.arguments.emplace_back("--allow-root");
  if (options.no_claim) words.arguments.emplace_back("--no-claim");
  if (options.metrics_port != 0) {
    words.arguments.insert(
        words.arguments.end(),
        {"--metrics-port", absl::StrCat(options.metrics_port)});
  }
  return words;
}

// A broker keeps what it was started with.
void TellWhatIsLeft(const UpOptions& options, uint32_t pid) {
  std::vector<absl::string_view> left;
  if (!options.config_dir.empty()) left.emplace_back("--config-dir");
  if (options.no_claim) left.emplace_back("--no-claim");
  if (options.metrics_port != 0) left.emplace_back("--metrics-port");
  if (left.empty()) return;
  fprintf(stderr,
          "zcbroker: a broker runs already, process %u, and stays as it is: "
          "nothing is changed by %s; end it first (zcbroker down)\n",
          pid, absl::StrJoin(left, ", ").c_str());
}

UpReport ReportOf(const v1::GetStatusResponse& status) {
  UpReport report;
  report.set_pid(status.pid());
  report.set_endpoint(status.endpoint());
  report.set_keeper_pid(
      static_cast<uint32_t>(KeeperOf(static_cast<int>(status.pid()))));
  return report;
}

}  // namespace

absl::StatusOr<std::string> WholeDirectory(const std::string& config_dir) {
  std::error_code error;
  const std::filesystem::path whole =
      std::filesystem::absolute(config_dir, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("--config-dir ", config_dir,
                     " is relative, and the working directory is gone"));
  }
  const std::string path = whole.lexically_normal();
  return std::string(absl::StripSuffix(path, "/"));
}

std::string LogDirectory() {
  return absl::StrCat(ipc::BaseDirectory(ipc::HostEnvironment(),
                                         "XDG_STATE_HOME", ".local/state"),
                      "/zcbroker/log");
}

bool NoBrokerRuns(const absl::Status& status) {
  const client::FallbackReason reason = client::FallbackReasonOf(status);
  return reason == client::FallbackReason::kBrokerMissing ||
         reason == client::FallbackReason::kBrokerRefused;
}

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

absl::StatusOr<int> AwaitEndingBroker() {
  const auto dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
  if (!dir.ok()) return 0;
  const absl::StatusOr<int> holder = ipc::InstanceLock::LastHolder(*dir);
  if (!holder.ok()) return 0;
  // Its number may be another's by now.
  if (!ipc::RunsProgram(*holder, "zcbrokerd")) return 0;
  const int keeper = KeeperOf(*holder);
  const Progress progress(absl::StrCat(
      "waiting for the broker before, process ", *holder, ", to end"));
  // One that goes on, or is replaced in its place, has its socket.
  const std::string socket = dir->broker_socket();
  const ipc::Deadline deadline = ipc::Deadline::After(kEndPatience);
  while (access(socket.c_str(), F_OK) != 0) {
    const absl::Status ended = AwaitEnd(*holder, kLookAgain);
    if (ended.ok()) {
      // Its keeper ends too, or starts another.
      if (keeper != 0) AwaitEnd(keeper, kKeeperPatience).IgnoreError();
      return *holder;
    }
    if (deadline.Expired()) return ended;
  }
  return 0;
}

absl::StatusOr<UpReport> BringUp(const UpOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto running = RunningBroker();
  // One that closes the connection is about to end.
  if (!running.ok() && client::FallbackReasonOf(running.status()) !=
                           client::FallbackReason::kBrokerClosed) {
    return running.status();
  }
  if (running.ok() && running->has_value()) {
    TellWhatIsLeft(options, (*running)->pid());
    return ReportOf(**running);
  }
  ZCB_RETURN_IF_ERROR(AwaitEndingBroker().status());
  ZCB_ASSIGN_OR_RETURN(const CommandWords words, BrokerCommand(options));
  ZCB_ASSIGN_OR_RETURN(const std::string log_file, MakeLogFile());
  absl::optional<Progress> progress;
  progress.emplace("waiting for the broker to be ready");
  const absl::StatusOr<StartedBroker> started =
      StartBroker(words.program, words.arguments, log_file, kUpPatience);
  const auto now_running = RunningBroker();
  progress.reset();
  if (!started.ok()) {
    // Somebody else's `up` may have been quicker.
    if (!now_running.ok() || !now_running->has_value()) return started.status();
    TellWhatIsLeft(options, (*now_running)->pid());
    return ReportOf(**now_running);
  }
  ZCB_RETURN_IF_ERROR(now_running.status());
  if (!now_running->has_value()) {
    return absl::UnavailableError(absl::StrCat(
        "the broker became ready and is gone; its log: ", log_file));
  }
  UpReport report = ReportOf(**now_running);
  // What a person should know at once: it is not where they think it is, or a
  // definition has a mistake.
  for (const v1::Problem& problem : (*now_running)->problems()) {
    fprintf(stderr, "%s: %s\n", problem.where().c_str(),
            problem.what().c_str());
  }
  report.set_started(true);
  report.set_log_file(log_file);
  report.set_milliseconds(absl::ToDoubleMilliseconds(
      absl::FromChrono(std::chrono::steady_clock::now() - start)));
  return report;
}

}  // namespace zcbroker::cli
