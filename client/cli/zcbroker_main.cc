// zcbroker: the command line. Parses, and calls the verb.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"
#include "client/cli/completion.h"
#include "client/cli/exit_status.h"
#include "client/cli/verbs.h"
#include "google/protobuf/stubs/logging.h"
#include "proto/zcbroker/version.h"

namespace zcbroker::cli {
namespace {

constexpr char kExitStatuses[] =
    "Exit statuses: 0 done; 1 failure; 2 wrong usage or name; 3 no broker; 4 "
    "unknown\nservice; 5 version not installed; 6 blocked; 7 another world; 8 "
    "start failed;\n9 broken; 10 too many at once; 11 shutting down; 12 not "
    "your broker; 13 no common\nlane. `compile` and `exec` exit as their "
    "command did.";

constexpr char kVerbs[] = "Commands";
// What the parser is given for the words of a command that is run.
constexpr char kStandIn[] = "COMMAND";

// Everything a command line can say. Verbs read what concerns them.
struct CommandLine {
  Target target;
  RouteOptions route;
  int count = 1;
  int metrics_port = 0;
  Target compile_target{"zccache", ""};
  std::vector<std::string> command;
  std::string config_dir;
  ServiceChange change;
  RunOptions run;
  std::string shell = "sh";
  EventOptions events;
  LogOptions logs;
  ReportOptions report;
  TopOptions top;
  std::string completed_shell;
  bool json = false;
  bool effective = false;
  bool allow_root = false;
  bool no_claim = false;
  bool stop_backends = false;
  bool all = false;

  Format format() const { return json ? Format::kJson : Format::kText; }
};

// A whole number from `least` to `most`; the option's description says which.
CLI::Validator Within(int least, int most) {
  return CLI::Range(least, most).description("");
}

// Declares a verb; `run` is what it does.
CLI::App* AddVerb(CLI::App& app, const char* name, const char* description,
                  std::function<int()>& chosen, std::function<int()> run) {
  CLI::App* verb = app.add_subcommand(name, description)->group(kVerbs);
  verb->callback([&chosen, run = std::move(run)] { chosen = run; });
  return verb;
}

void AddTarget(CLI::App* verb, Target& target) {
  verb->add_option("SERVICE", target.service, "for example zccache")
      ->type_name("")
      ->required();
  verb->add_option("VERSION", target.version, "exactly, for example 1.11.22")
      ->type_name("")
      ->required();
}

// Where a command line is about one service, which mostly is zccache.
void AddWanted(CLI::App* verb, Target& target, const char* whose,
               const std::string& by_default) {
  verb->add_option("--service", target.service, whose)
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--wanted", target.version,
                   "its version (default: " + by_default + ")")
      ->type_name("VERSION");
}

void AddJson(CLI::App* verb, bool& json) {
  verb->add_flag("--json", json, "print one JSON object (docs/cli.md)");
}

void AddJsonLines(CLI::App* verb, bool& json) {
  verb->add_flag("--json", json, "print one JSON object a line (docs/cli.md)");
}

void AddConfigDir(CLI::App* verb, std::string& config_dir) {
  verb->add_option("--config-dir", config_dir,
                   "holds services/ (default: $XDG_CONFIG_HOME/zcbroker)")
      ->type_name("DIR");
}

void AddClientVerbs(CLI::App& app, CommandLine& line,
                    std::function<int()>& chosen) {
  CLI::App* route = AddVerb(
      app, "route", "Where does a backend listen? Starts it if needed.", chosen,
      [&line] { return Route(line.format(), line.target, line.route); });
  AddTarget(route, line.target);
  route->add_flag("--only-if-running", line.route.only_if_running,
                  "start nothing");
  AddJson(route, line.json);

  CLI::App* ping =
      AddVerb(app, "ping", "Ask for a route, then ping the backend through it.",
              chosen, [&line] {
                return Ping(line.format(), line.target, line.route, line.count);
              });
  AddTarget(ping, line.target);
  ping->add_option("-n,--count", line.count, "how often, up to 100000")
      ->type_name("N")
      ->check(Within(1, 100000))
      ->capture_default_str();
  ping->add_option("--lane", line.route.lane,
                   "bincode-v15, prost-v16 or frame-v1 (default: the best)")
      ->type_name("LANE");
  ping->add_flag("--only-if-running", line.route.only_if_running,
                 "start nothing");
  AddJson(ping, line.json);

  CLI::App* compile = AddVerb(
      app, "compile",
      "Run one compiler command through the daemon:\n"
      "zcbroker compile -- gcc -c x.c -o x.o",
      chosen, [&line] { return Compile(line.compile_target, line.command); });
  AddWanted(compile, line.compile_target, "whose daemon",
            "the newest installed");
  compile->add_option("COMMAND", line.command, "after --")
      ->type_name("")
      ->required();
}

void AddRunOptions(CLI::App* verb, RunOptions& run) {
  AddWanted(verb, run.target, "whose daemon", "the newest installed");
  AddConfigDir(verb, run.up.config_dir);
  verb->add_flag("--allow-root", run.up.allow_root,
                 "start a broker also as root");
}

void AddRunVerbs(CLI::App& app, CommandLine& line,
                 std::function<int()>& chosen) {
  CLI::App* exec = AddVerb(
      app, "exec",
      "Run a command whose compiler caches reach their daemon through the "
      "broker:\nzcbroker exec -- make -j16",
      chosen, [&line] { return Exec(line.run, line.command); });
  AddRunOptions(exec, line.run);
  exec->add_option("COMMAND", line.command, "after --")
      ->type_name("")
      ->required();

  CLI::App* env =
      AddVerb(app, "env",
              "Print what `exec` sets, for a shell: eval \"$(zcbroker env)\"",
              chosen, [&line] {
                return Env(line.format(),
                           line.shell == "fish" ? Shell::kFish : Shell::kPosix,
                           line.run);
              });
  AddRunOptions(env, line.run);
  env->add_option("--shell", line.shell, "whose language to print")
      ->type_name("")
      ->check(CLI::IsMember({"sh", "fish"}))
      ->capture_default_str();
  AddJson(env, line.json);

  CLI::App* explain = AddVerb(
      app, "explain",
      "Why is a client here connected through the broker, or not?", chosen,
      [&line] { return Explain(line.format(), line.run.target, line.all); });
  AddWanted(explain, line.run.target, "whose client",
            "the newest that has a route");
  explain->add_flag("--all", line.all,
                    "fallbacks of all processes, not only of this shell");
  AddJson(explain, line.json);
}

void AddDoctor(CLI::App& app, CommandLine& line, std::function<int()>& chosen) {
  CLI::App* doctor = AddVerb(
      app, "doctor", "Look for what could be wrong, and say what to do.",
      chosen, [&line] {
        return Doctor(line.format(), line.config_dir, line.run.target);
      });
  AddWanted(doctor, line.run.target, "whose backend",
            "$ZCBROKER_VERSION, else the newest installed");
  AddConfigDir(doctor, line.config_dir);
  AddJson(doctor, line.json);
}

void AddBackendVerbs(CLI::App& app, CommandLine& line,
                     std::function<int()>& chosen) {
  CLI::App* start =
      AddVerb(app, "start", "Start a backend, also one that is broken.", chosen,
              [&line] { return Start(line.format(), line.target); });
  CLI::App* stop =
      AddVerb(app, "stop", "End a backend, whatever it is doing.", chosen,
              [&line] { return Stop(line.format(), line.target); });
  CLI::App* drain =
      AddVerb(app, "drain", "End a backend when nothing is in flight.", chosen,
              [&line] { return Drain(line.format(), line.target); });
  CLI::App* restart =
      AddVerb(app, "restart", "End a backend at once, and start the next.",
              chosen, [&line] { return Restart(line.format(), line.target); });
  for (CLI::App* verb : {start, stop, drain, restart}) {
    AddTarget(verb, line.target);
    AddJson(verb, line.json);
  }

  CLI::App* logs =
      AddVerb(app, "logs", "What a service's backends have printed.", chosen,
              [&line] { return Logs(line.format(), line.target, line.logs); });
  logs->add_option("SERVICE", line.target.service, "for example zccache")
      ->type_name("")
      ->required();
  logs->add_option("VERSION", line.target.version,
                   "exactly (default: all versions)")
      ->type_name("");
  logs->add_option("-n,--lines", line.logs.lines,
                   "the last so many, up to 1000000")
      ->type_name("N")
      ->check(Within(0, 1000000))
      ->capture_default_str();
  logs->add_flag("-f,--follow", line.logs.follow, "go on as they are written");
  AddJsonLines(logs, line.json);
}

void AddServiceVerbs(CLI::App& app, CommandLine& line,
                     std::function<int()>& chosen) {
  CLI::App* service =
      app.add_subcommand("service", "Say which programs the broker may start.")
          ->group(kVerbs);
  service->require_subcommand(1);
  CLI::App* add =
      AddVerb(*service, "add",
              "Add a binary to a service, making the service if it is new.",
              chosen, [&line] {
                return ServiceAdd(line.format(), line.config_dir, line.change);
              });
  add->add_option("NAME", line.change.name, "1 to 64 of a-z, 0-9 and -")
      ->type_name("")
      ->required();
  add->add_option("--binary", line.change.binary, "the daemon's program")
      ->type_name("PATH")
      ->required();
  add->add_option("--version", line.change.version,
                  "its version (default: what `<binary> --version` says)")
      ->type_name("VERSION");
  add->add_option("--arg", line.change.args,
                  "an argument; {endpoint}, {version} and {log_file} are "
                  "filled in; repeat for each")
      ->type_name("WORD")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  add->add_option("--env", line.change.env, "a variable; repeat for each")
      ->type_name("NAME=VALUE")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  add->add_option("--probe", line.change.probe,
                  "connect, zccache-ping or identity")
      ->type_name("PROBE");
  add->add_option("--lane", line.change.lanes,
                  "what it speaks, the best first; repeat for each")
      ->type_name("LANE")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  AddConfigDir(add, line.config_dir);
  AddJson(add, line.json);

  CLI::App* remove = AddVerb(
      *service, "remove", "Delete a service's definition.", chosen, [&line] {
        return ServiceRemove(line.format(), line.config_dir, line.change.name);
      });
  remove->add_option("NAME", line.change.name, "as in service list")
      ->type_name("")
      ->required();
  AddConfigDir(remove, line.config_dir);
  AddJson(remove, line.json);

  CLI::App* list =
      AddVerb(*service, "list", "The services and their versions.", chosen,
              [&line] { return ServiceList(line.format(), line.config_dir); });
  AddConfigDir(list, line.config_dir);
  AddJson(list, line.json);

  CLI::App* check = AddVerb(
      *service, "check",
      "Mistakes in definitions and the policy, with file and line.", chosen,
      [&line] { return ServiceCheck(line.format(), line.config_dir); });
  AddConfigDir(check, line.config_dir);
  AddJson(check, line.json);
}

// A length of time: "90s", "1h30m".
CLI::Option* AddDuration(CLI::App* verb, const char* name,
                         absl::Duration& duration, const char* description) {
  return verb
      ->add_option_function<std::string>(
          name,
          [&duration](const std::string& text) {
            absl::ParseDuration(text, &duration);
          },
          description)
      ->check([](const std::string& text) {
        absl::Duration parsed;
        return absl::ParseDuration(text, &parsed) &&
                       parsed > absl::ZeroDuration() &&
                       parsed < absl::InfiniteDuration()
                   ? ""
                   : "write a length of time, such as 90s or 1h30m";
      })
      ->type_name("DURATION");
}

void AddReport(CLI::App& app, CommandLine& line, std::function<int()>& chosen) {
  CLI::App* report =
      AddVerb(app, "report",
              "Write a page of what has happened, with pictures, for others.",
              chosen, [&line] { return Report(line.format(), line.report); });
  report
      ->add_option("FILE", line.report.file,
                   "an HTML file; a report that is "
                   "there is replaced")
      ->type_name("")
      ->required();
  AddDuration(report, "--since", line.report.since,
              "how far back (default: all that the broker remembers)");
  AddDuration(report, "--for", line.report.watch,
              "watch the broker for so long first, which shows rates");
  AddJson(report, line.json);
}

void AddBrokerVerbs(CLI::App& app, CommandLine& line,
                    std::function<int()>& chosen) {
  CLI::App* status =
      AddVerb(app, "status", "What the broker knows and has counted.", chosen,
              [&line] { return Status(line.format()); });
  AddJson(status, line.json);

  CLI::App* events =
      AddVerb(app, "events", "What has happened: starts, ends, refusals.",
              chosen, [&line] { return Events(line.format(), line.events); });
  events->add_flag("-f,--follow", line.events.follow,
                   "go on with each event as it happens");
  events
      ->add_option("--after", line.events.after,
                   "only those after the event of this number")
      ->type_name("N")
      ->check(CLI::Validator(CLI::NonNegativeNumber).description(""));
  AddJsonLines(events, line.json);

  CLI::App* top =
      AddVerb(app, "top", "Rates and backends, as they are.", chosen,
              [&line] { return Top(line.format(), line.top); });
  top->add_option("--interval", line.top.interval,
                  "seconds between two looks, up to 3600")
      ->type_name("SECONDS")
      ->check(Within(1, 3600))
      ->capture_default_str();
  top->add_option("--rounds", line.top.rounds,
                  "end after so many, up to 1000000 (default: never)")
      ->type_name("N")
      ->check(Within(1, 1000000));
  AddJsonLines(top, line.json);

  CLI::App* metrics =
      AddVerb(app, "metrics", "Counts and durations, as OpenMetrics text.",
              chosen, [&line] { return Metrics(line.format()); });
  AddJson(metrics, line.json);

  AddReport(app, line, chosen);

  CLI::App* config = AddVerb(
      app, "config", "What the broker goes by, and who set it.", chosen,
      [&line] { return ConfigEffective(line.format(), line.config_dir); });
  config
      ->add_flag("--effective", line.effective,
                 "policy, definitions and defaults put together")
      ->required();
  AddConfigDir(config, line.config_dir);
  AddJson(config, line.json);

  CLI::App* up = AddVerb(
      app, "up", "Start a broker in the background unless one answers.", chosen,
      [&line] {
        return Up(line.format(), UpOptions{line.config_dir, line.allow_root,
                                           line.no_claim, line.metrics_port});
      });
  AddConfigDir(up, line.config_dir);
  up->add_flag("--allow-root", line.allow_root, "start it also as root");
  up->add_flag("--no-claim", line.no_claim,
               "do not listen where services' own clients look");
  up->add_option("--metrics-port", line.metrics_port,
                 "serve http://127.0.0.1:PORT/metrics")
      ->type_name("PORT")
      ->check(Within(1, 65535));
  AddJson(up, line.json);

  CLI::App* down = AddVerb(
      app, "down", "Stop the broker; its backends go on running.", chosen,
      [&line] { return Down(line.format(), line.stop_backends); });
  down->add_flag("--stop-backends", line.stop_backends,
                 "end the backends, too");
  AddJson(down, line.json);
}

void AddCompletion(CLI::App& app, CommandLine& line,
                   std::function<int()>& chosen) {
  CLI::App* completion = AddVerb(
      app, "completion",
      "Print a script that completes this command line in a shell.", chosen,
      [&app, &line] {
        fputs(CompletionScript(app, line.completed_shell).c_str(), stdout);
        return kExitOk;
      });
  completion->add_option("SHELL", line.completed_shell, "bash, zsh or fish")
      ->type_name("")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  // For packages, not for daily use.
  completion->group("");
}

// The verb that a command line got as far as; the program where none.
const CLI::App* Deepest(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().back();
  return app;
}

std::string NoCommand(const std::string& word) {
  return "there is no command '" + word + "'";
}

std::string MistakeText(const CLI::App& verb, const std::string& what) {
  std::string words;
  for (const CLI::App* app = &verb; app != nullptr; app = app->get_parent()) {
    words.insert(0, app->get_name() + (words.empty() ? "" : " "));
  }
  return "zcbroker: " + what + "; see " + words + " --help\n";
}

// `status`, or a failure where not all was printed. A reader that has left, as
// head(1) does, has what it wanted.
int InFull(int status) {
  errno = 0;
  if (fflush(stdout) == 0 && ferror(stdout) == 0) return status;
  const int error = errno;
  pollfd reader{STDOUT_FILENO, POLLOUT, 0};
  if (poll(&reader, 1, 0) > 0 && (reader.revents & (POLLERR | POLLHUP)) != 0) {
    return status;
  }
  fprintf(stderr, "zcbroker: not all could be printed%s%s\n",
          error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
  return status == kExitOk ? kExitFailure : status;
}

// Does what follows "--" belong to somebody else?
bool RunsACommand(int argc, char** argv) {
  if (argc < 2) return false;
  const std::string verb = argv[1];
  return verb == "exec" || verb == "compile";
}

int Main(int argc, char** argv) {
  auto* const sigpipe = signal(SIGPIPE, SIG_IGN);
  // Mistakes are reported in our own words.
  google::protobuf::SetLogHandler(nullptr);
  CLI::App app(
      "Finds and starts background daemons, one for all who ask.\n\n"
      "  zcbroker up                         start the broker\n"
      "  zcbroker route zccache 1.11.22      where does that daemon listen?\n"
      "  zcbroker exec -- make -j16          build through it\n"
      "  zcbroker status                     what is going on?\n"
      "  zcbroker explain                    why is this shell not served?\n"
      "  zcbroker doctor                     what is wrong, and what to do?\n"
      "  zcbroker report page.html           all of it, to show others",
      "zcbroker");
  app.set_version_flag("--version", std::string("zcbroker ") + kVersion);
  // One word for one thing, as in messages and the manual.
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->label("SUBCOMMANDS", "COMMANDS");
  app.require_subcommand(0, 1);
  app.allow_extras();
  app.footer(kExitStatuses);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const CLI::App* verb = Deepest(failed);
    const std::vector<std::string> left = verb->remaining();
    const bool no_command =
        verb->get_require_subcommand_min() > 0 && !left.empty();
    return MistakeText(*verb, no_command ? NoCommand(left[0]) : error.what());
  });
  CommandLine line;
  line.run.sigpipe = sigpipe;
  std::function<int()> chosen;
  AddClientVerbs(app, line, chosen);
  AddRunVerbs(app, line, chosen);
  AddDoctor(app, line, chosen);
  AddBackendVerbs(app, line, chosen);
  AddServiceVerbs(app, line, chosen);
  AddBrokerVerbs(app, line, chosen);
  AddCompletion(app, line, chosen);
  // The parser would split a word of theirs like [a,b] in two.
  char** const end = argv + argc;
  char** const mark = std::find_if(
      argv, end, [](const char* word) { return std::string(word) == "--"; });
  const bool has_command = RunsACommand(argc, argv) && end - mark > 1;
  std::vector<const char*> words(argv, has_command ? mark + 1 : end);
  if (has_command) words.push_back(kStandIn);
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  // Else it has words before the mark, and the stand-in is one too many.
  const bool marked = line.command == std::vector<std::string>{kStandIn};
  if (has_command && marked) line.command.assign(mark + 1, end);
  std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  // The mark before a command's own words is no word of ours.
  unknown.erase(std::remove(unknown.begin(), unknown.end(), "--"),
                unknown.end());
  if (has_command && !marked) {
    std::replace(unknown.begin(), unknown.end(), std::string(kStandIn),
                 std::string("--"));
  }
  if (!chosen || !unknown.empty()) {
    std::string what = unknown.empty() ? std::string("say a command")
                       : chosen ? "unexpected argument '" + unknown[0] + "'"
                                : NoCommand(unknown[0]);
    if (chosen && !line.command.empty()) {
      what += "; write -- before the command: -- " + line.command[0] + " ...";
    }
    fputs(MistakeText(*Deepest(&app), what).c_str(), stderr);
    return kExitUsage;
  }
  return InFull(chosen());
}

}  // namespace
}  // namespace zcbroker::cli

int main(int argc, char** argv) { return zcbroker::cli::Main(argc, argv); }
