#include "client/launcher/launcher.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/fallback.h"
#include "client/fallback_records.h"
#include "client/launcher/backend_group.h"
#include "client/launcher/broker_lane.h"
#include "client/launcher/compile_request.h"
#include "client/launcher/compiler_path.h"
#include "client/launcher/exchange.h"
#include "client/launcher/invocation.h"
#include "client/launcher/route_choice.h"
#include "client/launcher/surroundings.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/names.h"
#include "ipc/peer_identity.h"
#include "ipc/process.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket.h"
#include "ipc/unique_fd.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::client {
namespace {

using zcbroker::v1::LauncherReply;
using zcbroker::v1::RouteInfo;
using zccache::v1::CompileResult;
using zccache::v1::Response;

// How often a compile is sent to a daemon before the compiler is run.
constexpr int kMaxSends = 3;
// For all the daemon's requests to come back later together.
constexpr absl::Duration kMaxBackpressure = absl::Seconds(5);
// For a connection to be taken into the daemon's queue.
constexpr absl::Duration kConnectBudget = absl::Milliseconds(500);

void Say(absl::string_view text) {
  const std::string line = absl::StrCat("zcb: ", text, "\n");
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

bool WriteTo(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

absl::string_view Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? absl::string_view() : value;
}

// As upstream's wrappers have it.
bool IsDisabled() {
  const absl::string_view zccache = Variable("ZCCACHE_DISABLE");
  return Variable("RUNNING_PROCESS_DISABLE") == "1" || zccache == "1" ||
         absl::EqualsIgnoreCase(zccache, "true");
}

FileKind KindOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    // A link that leads nowhere is something.
    return lstat(path.c_str(), &info) == 0 ? FileKind::kOther
                                           : FileKind::kMissing;
  }
  if (S_ISDIR(info.st_mode)) return FileKind::kDirectory;
  return S_ISREG(info.st_mode) ? FileKind::kRegular : FileKind::kOther;
}

absl::optional<std::string> TextOf(const std::string& path) {
  constexpr std::size_t kMaxBytes = 16 << 20;
  const ipc::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) ||
      static_cast<std::size_t>(info.st_size) > kMaxBytes) {
    return absl::nullopt;
  }
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = read(fd.get(), &text[size], text.size() - size);
    if (n < 0) return absl::nullopt;
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  text.resize(size);
  return text;
}

// What changes whenever a file is written or replaced.
struct Stamp {
  bool exists = false;
  ino_t inode = 0;
  timespec changed = {};
};

Stamp StampOf(const std::string& path) {
  struct stat info;
  if (path.empty() || lstat(path.c_str(), &info) != 0) return Stamp();
  return Stamp{true, info.st_ino, info.st_ctim};
}

bool Differs(const Stamp& a, const Stamp& b) {
  return a.exists != b.exists || a.inode != b.inode ||
         a.changed.tv_sec != b.changed.tv_sec ||
         a.changed.tv_nsec != b.changed.tv_nsec;
}

// What changes whenever a compiler is replaced, written to, or its name leads
// to another one; empty where there is none.
std::string CompilerStampOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return std::string();
  return absl::StrCat(info.st_dev, " ", info.st_ino, " ", info.st_size, " ",
                      info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, " ",
                      info.st_ctim.tv_sec, ".", info.st_ctim.tv_nsec);
}

// Where distributions keep headers; packages change them, nobody else. A
// compile that includes <vector> has 200 of them.
bool IsSystemHeader(absl::string_view path) {
  return absl::StartsWith(path, "/usr/include/") ||
         absl::StartsWith(path, "/usr/lib/");
}

// A process that was started without one of them gets it opened by accident.
bool HasStandardStreams() {
  return fcntl(STDIN_FILENO, F_GETFD) != -1 &&
         fcntl(STDOUT_FILENO, F_GETFD) != -1 &&
         fcntl(STDERR_FILENO, F_GETFD) != -1;
}

// A compiler truncates its dependency file in place. What a daemon put there
// may share its bytes with the cache by a hard link, which must not learn of
// it: such a file gets bytes of its own first.
void Detach(const std::string& path) {
  struct stat info;
  if (path.empty() || lstat(path.c_str(), &info) != 0 ||
      !S_ISREG(info.st_mode) || info.st_nlink < 2) {
    return;
  }
  const absl::optional<std::string> text = TextOf(path);
  const std::string temporary = absl::StrCat(path, ".zcb-", getpid());
  const ipc::UniqueFd fd(open(temporary.c_str(),
                              O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                              info.st_mode & 0777));
  if (!text.has_value() || !fd || !WriteTo(fd.get(), *text) ||
      rename(temporary.c_str(), path.c_str()) != 0) {
    // It is written anew anyway.
    (void)unlink(temporary.c_str());
    (void)unlink(path.c_str());
  }
}

struct Approached {
  LauncherRoute route;
  ipc::UniqueFd fd;
};

absl::StatusOr<ipc::UniqueFd> Dial(const LauncherRoute& route) {
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(route.info.endpoint());
  if (!endpoint.ok()) return endpoint.status();
  return ipc::Connect(*endpoint, ipc::Deadline::After(kConnectBudget));
}

// One call of the launcher.
class Launcher {
 public:
  explicit Launcher(char** words) : words_(words) {}

  int Run();

 private:
  // Becomes the compiler.
  int RunCompiler();
  int RunCompiler(FallbackReason reason, absl::string_view version = {});
  // The same for a failure that carries its reason.
  int RunCompiler(const absl::Status& why, absl::string_view version = {});

  bool FindWorld();
  bool ReadTexts(std::vector<std::string>* texts);
  absl::StatusOr<LauncherRoute> ChooseRoute() const;
  absl::StatusOr<LauncherRoute> FindRoute();
  void Approach();
  absl::StatusOr<ipc::UniqueFd> ConnectTo(const LauncherRoute& route);
  absl::StatusOr<Response> Ask(const LauncherRoute& route,
                               const ipc::UniqueFd& fd,
                               const zccache::v1::Request& request);
  bool IsGone(const RouteInfo& info, BackendGroup& group);
  // True where the request may be sent anew.
  bool Settle(const RouteInfo& info);
  // The exit status, or nothing where the compiler must be run.
  absl::optional<int> Deliver(const CompileResult& result);
  int Compile(const zccache::v1::Request& request);
  void SayOnce(absl::string_view what, const absl::Status& why);

  char** const words_;
  std::string compiler_;
  Invocation invocation_;
  absl::optional<ipc::RuntimeDir> dir_;
  std::string cwd_;
  LauncherWorld world_;
  // A daemon that was connected to before there was a request for it.
  absl::optional<Approached> approached_;
  std::vector<ipc::ProcessIdentity> dead_;
  // Why a request that was sent had no answer.
  absl::optional<FallbackReason> lost_;
};

int Launcher::RunCompiler() {
  Detach(invocation_.depfile);
  execv(compiler_.c_str(), words_);
  const int error = errno;
  Say(absl::StrCat("cannot run ", compiler_, ": ", std::strerror(error)));
  return error == ENOENT ? 127 : 126;
}

int Launcher::RunCompiler(FallbackReason reason, absl::string_view version) {
  if (dir_.has_value()) {
    // A call that is not noted is still a call.
    (void)AppendFallbackRecord(*dir_, FallbackOrigin::kLauncher, reason,
                               kLauncherService, version);
  }
  return RunCompiler();
}

int Launcher::RunCompiler(const absl::Status& why, absl::string_view version) {
  return RunCompiler(FallbackReasonOf(why), version);
}

// Printed by the first of all launchers of this user since the machine
// started.
void Launcher::SayOnce(absl::string_view what, const absl::Status& why) {
  const std::string leaf = absl::StrCat("said-", what);
  const ipc::UniqueFd marker(openat(
      dir_->fd(), leaf.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (marker) {
    Say(absl::StrCat(why.message(),
                     "; compilers are run directly (said once)"));
  }
}

bool Launcher::FindWorld() {
  std::array<char, PATH_MAX> cwd;
  if (getcwd(cwd.data(), cwd.size()) == nullptr || cwd[0] != '/') return false;
  cwd_ = cwd.data();
  const ipc::ZccacheWorld world =
      ipc::ResolveZccacheWorld({ipc::HostEnvironment(), cwd_});
  const absl::StatusOr<std::string> mounts = ipc::OwnMountNamespace();
  if (!mounts.ok()) return false;
  world_ = LauncherWorld{world.cache_root, world.daemon_namespace, *mounts};
  return true;
}

// The source and the headers of the last compile, as the compiler would find
// them: links and directories may lead elsewhere by now. False where the source
// depends on more than that, or where one cannot be read or is too long.
bool Launcher::ReadTexts(std::vector<std::string>* texts) {
  absl::optional<std::string> source = TextOf(invocation_.source);
  if (!source.has_value() || !ReadsWhatNoCacheSees(*source).empty()) {
    return false;
  }
  texts->push_back(*std::move(source));
  if (invocation_.depfile.empty()) return true;
  const absl::optional<std::string> depends = TextOf(invocation_.depfile);
  if (!depends.has_value()) return true;
  for (const absl::string_view word : absl::StrSplit(
           *depends, absl::ByAnyChar(" \t\n\\"), absl::SkipEmpty())) {
    if (absl::EndsWith(word, ":") || word == invocation_.source ||
        IsSystemHeader(word)) {
      continue;
    }
    const std::string path(word);
    absl::optional<std::string> header = TextOf(path);
    if (!header.has_value()) {
      if (KindOf(path) == FileKind::kRegular) return false;
      // That it is not there counts, too.
      header = path;
    }
    texts->push_back(*std::move(header));
  }
  return true;
}

absl::StatusOr<LauncherRoute> Launcher::ChooseRoute() const {
  const absl::string_view wanted = Variable("ZCBROKER_VERSION");
  if (!wanted.empty() && !ipc::CheckVersion(wanted).ok()) {
    return absl::InvalidArgumentError("ZCBROKER_VERSION is no version");
  }
  absl::StatusOr<LauncherRoute> route =
      client::ChooseRoute(*dir_, wanted, world_, dead_);
  if (route.ok()) return route;
  const absl::StatusOr<ipc::RuntimeDir> other = dir_->FindWorld(
      ipc::ZccacheWorldId({world_.cache_root, world_.daemon_namespace}));
  if (!other.ok()) return route;
  absl::StatusOr<LauncherRoute> theirs =
      client::ChooseRoute(*other, wanted, world_, dead_);
  return theirs.ok() ? std::move(theirs) : std::move(route);
}

// Errors carry a FallbackReason.
absl::StatusOr<LauncherRoute> Launcher::FindRoute() {
  const absl::string_view wanted = Variable("ZCBROKER_VERSION");
  absl::StatusOr<LauncherRoute> route = ChooseRoute();
  if (route.ok()) return route;
  // The broker may know, or start, one that fits.
  if (absl::IsNotFound(route.status()) ||
      absl::IsFailedPrecondition(route.status()) ||
      absl::IsUnimplemented(route.status())) {
    absl::StatusOr<RouteInfo> info = LookUp(*dir_, wanted, world_);
    if (info.ok()) {
      route = Fit(*std::move(info), world_);
      if (route.ok()) return route;
    } else if (absl::IsNotFound(route.status())) {
      if (FallbackReasonOf(info.status()) == FallbackReason::kBrokerRefusal) {
        SayOnce("refused", info.status());
      }
      return info.status();
    }
  }
  if (absl::IsUnimplemented(route.status())) {
    SayOnce("no-lane", route.status());
    return WithFallbackReason(route.status(), FallbackReason::kLaneUnsupported);
  }
  SayOnce("no-route", route.status());
  return WithFallbackReason(route.status(),
                            absl::IsPermissionDenied(route.status())
                                ? FallbackReason::kRouteForeign
                                : FallbackReason::kRouteDead);
}

// A daemon takes as long to accept as we take to find out what to ask for, so
// it is called first. Where that does not work nothing is said or asked: the
// call may not be one for a daemon at all.
void Launcher::Approach() {
  absl::StatusOr<LauncherRoute> route = ChooseRoute();
  if (!route.ok()) return;
  absl::StatusOr<ipc::UniqueFd> fd = Dial(*route);
  if (fd.ok()) approached_ = Approached{*std::move(route), *std::move(fd)};
}

absl::StatusOr<ipc::UniqueFd> Launcher::ConnectTo(const LauncherRoute& route) {
  absl::StatusOr<ipc::UniqueFd> fd =
      approached_.has_value()
          ? absl::StatusOr<ipc::UniqueFd>(std::move(approached_->fd))
          : Dial(route);
  approached_.reset();
  if (!fd.ok()) {
    return WithFallbackReason(fd.status(), FallbackReason::kRouteDead);
  }
  const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(*fd);
  if (!peer.ok() || peer->uid != geteuid()) {
    return WithFallbackReason(
        absl::PermissionDeniedError("the daemon belongs to another user"),
        FallbackReason::kRouteForeign);
  }
  if (peer->pid != static_cast<int>(route.info.pid())) {
    return WithFallbackReason(
        absl::UnavailableError("somebody else listens there by now"),
        FallbackReason::kRouteDead);
  }
  const absl::Status same = CheckSameSurroundings(peer->pid, peer->gid);
  if (!same.ok()) {
    return WithFallbackReason(same, FallbackReason::kNotReplayable);
  }
  return fd;
}

// Asked when the daemon does not answer a ping.
bool Launcher::IsGone(const RouteInfo& info, BackendGroup& group) {
  const absl::StatusOr<LauncherReply::Verdict> verdict =
      Report(*dir_, info, "no answer to a ping within a second");
  if (verdict.ok() && *verdict == LauncherReply::VERDICT_GONE) return true;
  if (verdict.ok() && *verdict == LauncherReply::VERDICT_BUSY) return false;
  return group.LooksWedged() && group.TryEnd();
}

absl::StatusOr<Response> Launcher::Ask(const LauncherRoute& route,
                                       const ipc::UniqueFd& fd,
                                       const zccache::v1::Request& request) {
  BackendGroup group(route.info);
  const ipc::Endpoint endpoint = *ipc::Endpoint::Parse(route.info.endpoint());
  const ipc::Deadline patience = ipc::Deadline::After(kMaxBackpressure);
  for (;;) {
    absl::StatusOr<Response> reply =
        Exchange(fd, endpoint, route.lane, request,
                 [&] { return IsGone(route.info, group); });
    if (!reply.ok() || !reply->has_backpressure()) return reply;
    const absl::Duration pause =
        absl::Milliseconds(reply->backpressure().retry_after_ms());
    if (patience.Remaining() <= pause) return reply;
    absl::SleepFor(pause);
  }
}

// After a connection that ended without a reply: nothing of the daemon's may
// still be writing when somebody compiles anew.
bool Launcher::Settle(const RouteInfo& info) {
  const absl::StatusOr<LauncherReply::Verdict> verdict =
      Report(*dir_, info, "it ended a connection without an answer");
  if (verdict.ok() && *verdict == LauncherReply::VERDICT_GONE) return true;
  BackendGroup group(info);
  group.AwaitQuiet();
  return !group.DaemonLives();
}

absl::optional<int> Launcher::Deliver(const CompileResult& result) {
  // The compiler's own way to fail is the only exact one: it takes away what
  // it had begun, dies by its signal, and speaks the user's language.
  if (result.exit_code() != 0) return absl::nullopt;
  // Where colours are for the compiler to choose.
  if (!result.stderr_data().empty() && isatty(STDERR_FILENO) == 1) {
    return absl::nullopt;
  }
  (void)WriteTo(STDOUT_FILENO, result.stdout_data());
  (void)WriteTo(STDERR_FILENO, result.stderr_data());
  return 0;
}

int Launcher::Compile(const zccache::v1::Request& request) {
  for (int sends = 0; sends < kMaxSends;) {
    const absl::StatusOr<LauncherRoute> route =
        approached_.has_value()
            ? absl::StatusOr<LauncherRoute>(approached_->route)
            : FindRoute();
    if (!route.ok()) {
      return RunCompiler(lost_.value_or(FallbackReasonOf(route.status())));
    }
    const std::string& version = route->info.version();
    const bool known_dead = std::find(dead_.begin(), dead_.end(),
                                      IdentityOf(route->info)) != dead_.end();
    if (known_dead) return RunCompiler(FallbackReason::kRouteDead, version);
    const absl::StatusOr<ipc::UniqueFd> fd = ConnectTo(*route);
    if (!fd.ok()) {
      if (FallbackReasonOf(fd.status()) != FallbackReason::kRouteDead) {
        return RunCompiler(fd.status(), version);
      }
      dead_.push_back(IdentityOf(route->info));
      continue;
    }

    const Stamp output = StampOf(invocation_.output);
    const Stamp depfile = StampOf(invocation_.depfile);
    ++sends;
    const absl::StatusOr<Response> reply = Ask(*route, *fd, request);
    if (absl::IsInvalidArgument(reply.status())) {
      return RunCompiler(FallbackReason::kNotReplayable, version);
    }
    if (absl::IsUnavailable(reply.status())) {
      lost_ = FallbackReason::kDaemonWedged;
      dead_.push_back(IdentityOf(route->info));
      continue;
    }
    if (!reply.ok()) {
      if (!Settle(route->info) || absl::IsDataLoss(reply.status())) {
        return RunCompiler(absl::IsDataLoss(reply.status())
                               ? FallbackReason::kDaemonWrongReply
                               : FallbackReason::kDaemonLost,
                           version);
      }
      lost_ = FallbackReason::kDaemonLost;
      dead_.push_back(IdentityOf(route->info));
      continue;
    }
    if (reply->has_backpressure()) {
      return RunCompiler(FallbackReason::kDaemonBusy, version);
    }
    if (!reply->has_compile_result()) {
      return RunCompiler(reply->has_error() ? FallbackReason::kDaemonRefused
                                            : FallbackReason::kDaemonWrongReply,
                         version);
    }
    const CompileResult& result = reply->compile_result();
    // It says that it compiled; the files must say so, too.
    if (result.exit_code() == 0 &&
        ((!invocation_.output.empty() &&
          !Differs(output, StampOf(invocation_.output))) ||
         (!invocation_.depfile.empty() &&
          !Differs(depfile, StampOf(invocation_.depfile))))) {
      return RunCompiler(FallbackReason::kDaemonWrongReply, version);
    }
    const absl::optional<int> status = Deliver(result);
    return status.has_value() ? *status : RunCompiler();
  }
  return RunCompiler(lost_.value_or(FallbackReason::kRouteDead));
}

int Launcher::Run() {
  // Asked before anything of ours can be in their place.
  const bool has_streams = HasStandardStreams();
  const absl::StatusOr<std::string> compiler =
      FindCompiler(words_[0], Variable("PATH"));
  if (!compiler.ok()) {
    Say(compiler.status().message());
    return 127;
  }
  compiler_ = *compiler;
  if (IsDisabled()) return RunCompiler();
  CompileCall call;
  for (char** word = words_ + 1; *word != nullptr; ++word) {
    call.args.emplace_back(*word);
  }
  invocation_ = Judge(compiler_, call.args, FileProbe{KindOf, TextOf});
  if (!invocation_.compiles) return RunCompiler();
  absl::StatusOr<ipc::RuntimeDir> dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
  if (!dir.ok()) return RunCompiler();
  dir_ = *std::move(dir);
  if (!invocation_.why_not.empty() || !has_streams || !FindWorld()) {
    return RunCompiler(FallbackReason::kNotReplayable);
  }
  Approach();
  call.compiler =
      compiler_[0] == '/' ? compiler_ : absl::StrCat(cwd_, "/", compiler_);
  call.cwd = cwd_;
  call.pid = static_cast<std::uint32_t>(getpid());
  for (char** entry = environ; *entry != nullptr; ++entry) {
    call.environment.emplace_back(*entry);
  }
  call.compiler_stamp = CompilerStampOf(compiler_);
  std::vector<std::string> texts;
  if (call.compiler_stamp.empty() || !ReadTexts(&texts)) {
    return RunCompiler(FallbackReason::kNotReplayable);
  }
  call.texts.assign(texts.begin(), texts.end());
  const absl::StatusOr<zccache::v1::Request> request =
      MakeCompileRequest(call, invocation_);
  if (!request.ok()) return RunCompiler(FallbackReason::kNotReplayable);
  return Compile(*request);
}

}  // namespace

int Launch(char** words) { return Launcher(words).Run(); }

}  // namespace zcbroker::client
