// zcbrokerd: builds the graph of objects, runs the loop, takes it down again.
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/breaker.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/instance_lock.h"
#include "ipc/keeper_channel.h"
#include "ipc/listener.h"
#include "ipc/private_dir.h"
#include "ipc/runtime_dir.h"
#include "ipc/service_manager.h"
#include "ipc/socket.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/version.h"
#include "service/framed/framed_adapter.h"
#include "service/hand_over.h"
#include "service/host/awake_loop.h"
#include "service/host/catalog_loader.h"
#include "service/host/descriptors.h"
#include "service/host/framed_names.h"
#include "service/host/front_door.h"
#include "service/host/host.h"
#include "service/host/keeper_line.h"
#include "service/host/log.h"
#include "service/host/metrics_listener.h"
#include "service/host/place.h"
#include "service/host/reaper.h"
#include "service/host/signal_watch.h"
#include "service/host/worlds.h"
#include "service/rpc/on_demand_server.h"

namespace zcbroker::service {
namespace {

// docs/operations.md, "Exit statuses".
enum ExitCode {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kAlreadyRunning = 14,
  kHandedOver = 15
};

// How long the last answers have to leave.
constexpr std::chrono::milliseconds kFlushPause(5);
constexpr std::chrono::milliseconds kFlushPatience(500);
constexpr absl::Duration kKeeperPatience = absl::Seconds(5);

struct Flags {
  std::string config_dir;
  std::string policy_file;
  std::string log_level = "info";
  std::string log_format = "auto";
  absl::optional<uint16_t> metrics_port;
  bool allow_root = false;
  bool check = false;
  bool no_claim = false;
};

std::string WorkingDirectory() {
  char path[PATH_MAX];
  return getcwd(path, sizeof(path)) != nullptr ? path : "/";
}

std::map<std::string, std::string> WholeEnvironment() {
  std::map<std::string, std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string::npos) {
      all[text.substr(0, equals)] = text.substr(equals + 1);
    }
  }
  return all;
}

int Fail(int code, absl::string_view why) {
  fprintf(stderr, "zcbrokerd: %s\n", std::string(why).c_str());
  return code;
}

DefinitionSources Sources(const Flags& flags,
                          const std::map<std::string, std::string>& env) {
  DefinitionSources sources;
  const std::string config =
      ipc::BaseDirectory(ipc::HostEnvironment(), "XDG_CONFIG_HOME", ".config");
  sources.services_dir =
      absl::StrCat(flags.config_dir.empty() ? absl::StrCat(config, "/zcbroker")
                                            : flags.config_dir,
                   "/services");
  const auto upstream = env.find("RUNNING_PROCESS_SERVICE_DEF_DIR");
  sources.upstream_dir =
      upstream != env.end() ? upstream->second
                            : absl::StrCat(config, "/running-process/services");
  const auto path = env.find("PATH");
  if (path != env.end()) sources.path = path->second;
  if (!flags.policy_file.empty()) {
    sources.policy_file = flags.policy_file;
    sources.policy_owner = geteuid();
  }
  for (const auto& [name, value] : env) {
    sources.environment.push_back(absl::StrCat(name, "=", value));
  }
  return sources;
}

HostOptions MakeOptions(const Flags& flags, const ipc::RuntimeDir& runtime) {
  HostOptions options;
  options.surroundings.environment = WholeEnvironment();
  options.surroundings.cwd = WorkingDirectory();
  options.surroundings.runtime = &runtime;
  options.surroundings.backends_dir = runtime.Entry("backends");
  options.served_uid = geteuid();
  options.claim = !flags.no_claim;
  options.surroundings.log_dir =
      absl::StrCat(ipc::BaseDirectory(ipc::HostEnvironment(), "XDG_STATE_HOME",
                                      ".local/state"),
                   "/zcbroker/log");
  options.world = OwnWorld(ipc::HostEnvironment(), options.surroundings.cwd);
  options.definitions = Sources(flags, options.surroundings.environment);
  return options;
}

struct BrokerSocket {
  ipc::Listener listener;
  // A service manager goes on holding it, and its name, when we are gone.
  bool inherited;
};

// The broker's socket: inherited, else bound where nobody answers.
absl::StatusOr<BrokerSocket> Listen(const ipc::RuntimeDir& runtime,
                                    std::vector<ipc::HeldSocket>& held) {
  for (ipc::HeldSocket& socket : held) {
    const bool ours = socket.name == runtime.broker_socket();
    if (!ours && !socket.from_service_manager) continue;
    absl::StatusOr<ipc::Endpoint> endpoint = ipc::Endpoint::Parse(socket.name);
    if (!endpoint.ok()) continue;
    absl::StatusOr<ipc::Listener> listener =
        socket.from_service_manager
            ? ipc::Listener::Adopt(std::move(socket.fd))
            : ipc::Listener::Resume(*endpoint, std::move(socket.fd));
    if (listener.ok()) {
      return BrokerSocket{*std::move(listener), socket.from_service_manager};
    }
    LogWarning(std::string(listener.status().message()));
  }
  absl::StatusOr<absl::optional<ipc::Listener>> inherited =
      ipc::InheritedListener();
  if (!inherited.ok()) return inherited.status();
  if (inherited->has_value()) {
    return BrokerSocket{*std::move(*inherited), /*inherited=*/true};
  }
  absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(runtime.broker_socket());
  if (!endpoint.ok()) return endpoint.status();
  const absl::Status answer =
      ipc::Connect(*endpoint, ipc::Deadline::After(absl::ZeroDuration()))
          .status();
  if (answer.ok() || absl::IsDeadlineExceeded(answer)) {
    return absl::AlreadyExistsError(
        absl::StrCat("a broker answers at ", endpoint->path(), " already"));
  }
  absl::StatusOr<ipc::Listener> listener = ipc::Listener::Bind(*endpoint);
  if (!listener.ok()) return listener.status();
  return BrokerSocket{*std::move(listener), /*inherited=*/false};
}

// Whatever must happen between the last decision and the end of the loop: the
// answers that carry it have to leave.
void StopWhenFlushed(asio::io_context& loop, asio::steady_timer& timer,
                     FrontDoor& door, std::chrono::milliseconds waited) {
  if (door.unanswered() == 0 || waited > kFlushPatience) {
    loop.stop();
    return;
  }
  timer.expires_after(kFlushPause);
  timer.async_wait([&loop, &timer, &door, waited](const asio::error_code& e) {
    if (!e) StopWhenFlushed(loop, timer, door, waited + kFlushPause);
  });
}

// nullptr where nobody wants them, or they cannot be served: a build needs
// none.
std::unique_ptr<MetricsListener> ServeMetrics(const Flags& flags,
                                              asio::io_context& loop,
                                              Host& host) {
  if (!flags.metrics_port.has_value()) return nullptr;
  auto listener = MetricsListener::Listen(
      loop, *flags.metrics_port, host.counters(),
      [&host](std::function<void(std::string)> done) {
        host.GetMetrics([done = std::move(done)](v1::GetMetricsResponse got) {
          done(std::move(*got.mutable_open_metrics()));
        });
      });
  if (!listener.ok()) {
    host.AddProblem("--metrics-port",
                    absl::StrCat("no metrics over HTTP: ",
                                 std::string(listener.status().message())));
    return nullptr;
  }
  LogInfo(absl::StrCat("metrics at http://127.0.0.1:", (*listener)->port(),
                       "/metrics"));
  return *std::move(listener);
}

int Serve(const Flags& flags) {
  // The keeper does not tell a broker that a signal ended on its way from one
  // that cannot start.
  BlockSignals({SIGTERM, SIGINT, SIGHUP, SIGUSR2});
  RaiseDescriptorLimit();
  signal(SIGPIPE, SIG_IGN);
  absl::StatusOr<ipc::RuntimeDir> runtime = ipc::RuntimeDir::OpenOrCreate(
      ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
  if (!runtime.ok()) return Fail(kFailure, runtime.status().message());
  absl::StatusOr<ipc::InstanceLock> lock =
      ipc::InstanceLock::TryAcquire(*runtime);
  if (!lock.ok()) {
    return Fail(
        absl::IsAlreadyExists(lock.status()) ? kAlreadyRunning : kFailure,
        lock.status().message());
  }
  absl::StatusOr<absl::optional<ipc::KeeperChannel>> channel =
      ipc::KeeperChannel::FromEnvironment();
  if (!channel.ok()) return Fail(kFailure, channel.status().message());
  std::vector<ipc::HeldSocket> held;
  if (channel->has_value()) {
    absl::StatusOr<std::vector<ipc::HeldSocket>> taken =
        (*channel)->TakeHeld(ipc::Deadline::After(kKeeperPatience));
    if (!taken.ok()) return Fail(kFailure, taken.status().message());
    held = *std::move(taken);
  }
  absl::StatusOr<BrokerSocket> bound = Listen(*runtime, held);
  if (!bound.ok()) {
    return Fail(
        absl::IsAlreadyExists(bound.status()) ? kAlreadyRunning : kFailure,
        bound.status().message());
  }
  const bool inherited = bound->inherited;
  const bool kept = channel->has_value();
  const pid_t keeper_pid = getppid();
  const absl::Status backends =
      ipc::OpenOrCreatePrivateDirAt(runtime->fd(), runtime->path(), "backends",
                                    geteuid())
          .status();
  if (!backends.ok()) return Fail(kFailure, backends.message());

  if (const absl::Status forgotten = ipc::RemoveBreaker(*runtime);
      !forgotten.ok()) {
    LogWarning(std::string(forgotten.message()));
  }
  HostOptions options = MakeOptions(flags, *runtime);
  if (options.claim && !channel->has_value()) {
    // If we were killed, our sockets there would lead nowhere while the daemon
    // behind them keeps its clients from starting another.
    options.claim = false;
    LogInfo(
        "no keeper: services' own endpoints lead to their daemons, not "
        "through the relay; start zcbroker-keeper for that");
  }
  const auto xdg = options.surroundings.environment.find("XDG_RUNTIME_DIR");
  FramedNames names(
      bound->listener.endpoint(),
      xdg != options.surroundings.environment.end() ? xdg->second : "");
  options.endpoint = bound->listener.endpoint().path();
  if (!names.published().empty()) {
    options.framed_endpoint = names.published().front();
  }

  // One thread runs it; others only post.
  asio::io_context loop(1);
  Reaper reaper(loop);
  const std::unique_ptr<KeeperLine> keeper =
      KeeperLine::Create(loop, *std::move(channel));
  if (!inherited) {
    keeper->Hold(bound->listener.endpoint().path(), bound->listener.fd());
  }
  std::map<std::string, ipc::UniqueFd> held_by_path;
  for (ipc::HeldSocket& socket : held) {
    if (socket.fd) held_by_path[socket.name] = std::move(socket.fd);
  }
  ServiceDefDir upstream_dir{
      options.definitions.upstream_dir,
      std::getenv("RUNNING_PROCESS_SERVICE_DEF_DIR") != nullptr};
  Host host(loop, reaper, *keeper, std::move(options), std::move(held_by_path));
  for (const std::string& passed_over : runtime->passed_over()) {
    host.AddProblem("runtime directory", passed_over);
  }
  for (const v1::Problem& problem : names.problems()) {
    host.AddProblem(problem.where(), problem.what());
  }
  FramedAdapter framed(host, WorldOfProcess, std::move(upstream_dir));
  OnDemandServer rpc(host,
                     [] { return RoomForDescriptors(kDescriptorsOfStart); });
  const std::string endpoint = bound->listener.endpoint().path();
  const std::unique_ptr<FrontDoor> door =
      FrontDoor::Create(loop, std::move(bound->listener), geteuid(),
                        FrontDoorLimits(), framed, rpc, host.counters());
  std::unique_ptr<MetricsListener> metrics = ServeMetrics(flags, loop, host);
  asio::steady_timer flush(loop);
  host.SetConnectionCounter([&] { return door->connections(); });
  host.SetConnectedCheck([&](int pid) { return door->SpeaksGrpc(pid); });
  host.OnLimits(
      [&](const ConnectionLimits& limits) { door->SetLimits(limits); });
  int status = kOk;
  PlaceEvents place_events;
  place_events.has_its_name = [&] { return door->HasItsName(); };
  place_events.rebound = [&](ipc::Listener listener) {
    keeper->Hold(listener.endpoint().path(), listener.fd());
    door->MoveTo(std::move(listener));
  };
  place_events.directory_restored = [&] { host.RestoreFiles(); };
  place_events.lost = [&](const absl::Status& why) {
    LogError(absl::StrCat("withdrawing: ", std::string(why.message())));
    const bool taken = absl::IsAlreadyExists(why);
    status = taken ? kAlreadyRunning : kFailure;
    // The other broker goes on with our backends, or nobody can find them.
    host.Stop(/*stop_backends=*/!taken);
  };
  std::unique_ptr<Place> place = Place::Watch(
      loop, *runtime, *lock, names, !inherited, std::move(place_events));
  HandOver hand_over(
      loop, host, *door, rpc, *keeper,
      kept ? absl::make_optional(keeper_pid) : absl::nullopt,
      /*release_place=*/[&] { place.reset(); },
      /*release_lock=*/[&] { lock = absl::CancelledError("handed over"); });
  host.OnStopping([&] {
    place.reset();
    ipc::NotifyServiceManager("STOPPING=1");
    metrics.reset();
    door->Close();
    // The successor has the socket from the keeper, and its name.
    if (inherited || hand_over.given()) return;
    door->RemoveName();
    // Where the lock is lost, another broker has the place and the names.
    if (lock->StillHeld()) names.Remove();
  });
  host.OnStopped([&] {
    // The loop answers gRPC's calls to the last.
    rpc.End([&] {
      asio::post(loop, [&] {
        StopWhenFlushed(loop, flush, *door, std::chrono::milliseconds(0));
      });
    });
  });

  const SignalWatch signals(
      loop, {SIGTERM, SIGINT, SIGHUP, SIGUSR2}, [&](int received) {
        if (received == SIGHUP) {
          if (hand_over.given()) return;
          host.ReloadDefinitions([](const v1::ReloadDefinitionsResponse&) {});
        } else if (received == SIGUSR2) {
          hand_over.Begin();
        } else {
          host.Stop(/*stop_backends=*/false);
        }
      });

  host.Start();
  door->Open();
  LogInfo(absl::StrCat("zcbrokerd ", kVersion, " serves ", endpoint));
  ipc::NotifyServiceManager("READY=1");
  keeper->Ready();
  RunAwake(loop);
  LogInfo("stopped");
  return hand_over.given() ? kHandedOver : status;
}

// Reads definitions and binaries as the broker would, and prints what came of
// it: a zcbroker.v1.ReloadDefinitionsResponse as JSON.
int Check(const Flags& flags) {
  asio::io_context loop;
  Reaper reaper(loop);
  CatalogLoader loader(loop, reaper, Sources(flags, WholeEnvironment()));
  v1::ReloadDefinitionsResponse response;
  loader.Load([&](const Catalog& catalog) {
    for (const auto& [name, service] : catalog.services) {
      v1::ServiceSummary* summary = response.add_services();
      summary->set_name(name);
      summary->set_source(service.source);
      for (const InstalledVersion& version : service.versions) {
        summary->add_versions(version.version);
      }
    }
    for (const v1::Problem& problem : catalog.problems) {
      *response.add_problems() = problem;
    }
    for (const v1::Setting& setting : catalog.settings) {
      *response.add_settings() = setting;
    }
    loop.stop();
  });
  loop.run();
  std::string json;
  const auto printed =
      google::protobuf::util::MessageToJsonString(response, &json);
  if (!printed.ok()) return Fail(kFailure, "a definition is not UTF-8");
  printf("%s\n", json.c_str());
  return response.problems().empty() ? kOk : kFailure;
}

int Main(int argc, char** argv) {
  CLI::App app(
      "The broker: one per user, in the foreground. It finds and starts "
      "background\ndaemons (zccache and others) for their clients. Start it "
      "with `zcbroker up`,\na service manager, or by hand; SIGTERM ends it and "
      "leaves its backends running.",
      "zcbrokerd");
  app.set_version_flag("--version", absl::StrCat("zcbrokerd ", kVersion));
  Flags flags;
  app.add_option("--config-dir", flags.config_dir,
                 "where services/<name>.textproto are read from "
                 "(default: $XDG_CONFIG_HOME/zcbroker)")
      ->type_name("DIR");
  app.add_option("--policy-file", flags.policy_file,
                 "the managed policy, which may then be yours instead of "
                 "root's (default: /etc/zcbroker/policy.textproto)")
      ->type_name("FILE");
  app.add_option("--log-level", flags.log_level, "the least that is logged")
      ->type_name("")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  app.add_option("--log-format", flags.log_format,
                 "text, json, or auto: entries with fields for systemd's "
                 "journal, text on a terminal, else json")
      ->type_name("")
      ->check(CLI::IsMember({"auto", "text", "json"}))
      ->capture_default_str();
  app.add_option("--metrics-port", flags.metrics_port,
                 "serve http://127.0.0.1:PORT/metrics, which every user of "
                 "this machine can read (default: not)")
      ->type_name("PORT")
      ->check(CLI::Range(1, 65535).description(""));
  app.add_flag("--allow-root", flags.allow_root,
               "serve root too; a broker runs programs its user named, and "
               "root has no need of one");
  app.add_flag("--check", flags.check,
               "print what the definitions come to as JSON, and end; status 1 "
               "if any has a mistake");
  app.add_flag("--no-claim", flags.no_claim,
               "do not listen where services' own clients look for their "
               "daemons, whatever the definitions say");
  app.footer(
      "Exit statuses: 0 ended in order; 1 failure; 2 wrong usage; 14 a broker "
      "runs already,\nor has taken the place; 15 handed over to a successor.\n"
      "SIGHUP reads policy and definitions again; SIGUSR2, under a keeper, "
      "hands "
      "over. "
      "Inherits\nLISTEN_FDS, reports to NOTIFY_SOCKET.");
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return absl::StrCat("zcbrokerd: ", error.what(),
                        "; see zcbrokerd --help\n");
  });
  // What peers send is answered and counted, not logged by a library.
  google::protobuf::SetLogHandler(nullptr);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
  if (flags.check) return Check(flags);
  if (geteuid() == 0 && !flags.allow_root) {
    return Fail(kFailure,
                "refuses to run as root; run it as the user who compiles, or "
                "pass --allow-root");
  }
  static const std::map<std::string, LogLevel> kLevels = {
      {"debug", LogLevel::kDebug},
      {"info", LogLevel::kInfo},
      {"warning", LogLevel::kWarning},
      {"error", LogLevel::kError}};
  static const std::map<std::string, LogFormat> kFormats = {
      {"auto", LogFormat::kAutomatic},
      {"text", LogFormat::kText},
      {"json", LogFormat::kJson}};
  InitLog(kLevels.at(flags.log_level), kFormats.at(flags.log_format));
  return Serve(flags);
}

}  // namespace
}  // namespace zcbroker::service

int main(int argc, char** argv) { return zcbroker::service::Main(argc, argv); }
