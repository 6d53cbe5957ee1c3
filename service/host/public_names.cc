#include "service/host/public_names.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "asio/posix/stream_descriptor.hpp"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/peer_identity.h"
#include "ipc/private_dir.h"
#include "ipc/process.h"
#include "ipc/route_info.h"
#include "ipc/socket.h"
#include "ipc/socket_link.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "service/host/acceptor.h"
#include "service/host/directory_watch.h"
#include "service/host/log.h"
#include "service/host/process_group.h"
#include "service/host/readiness.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kProbePatience(1000);
// An occupant that cannot be watched, or does not answer, is looked at again.
constexpr milliseconds kLookAgain(1000);
constexpr milliseconds kAfterRemoval(300);
// A daemon too many may have been given work before its name was taken back.
constexpr milliseconds kDismissFirst(50);
constexpr milliseconds kDismissAgain(1000);
constexpr int kDismissLooks = 600;

std::string DirectoryOf(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

// Nobody else may put another socket there.
absl::Status CheckPlace(const std::string& directory) {
  struct stat status;
  if (stat(directory.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("stat ", directory));
  }
  const bool ours = status.st_uid == geteuid() || status.st_uid == 0;
  const bool shared = (status.st_mode & S_IWOTH) != 0 ||
                      ((status.st_mode & S_IWGRP) != 0 &&
                       status.st_gid != getegid() && status.st_gid != 0);
  if (ours && !shared) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      directory, ours ? " is writable by others" : " belongs to another user",
      "; not claimed"));
}

// One name: had by us, occupied by somebody else, hidden for a while, or not
// to be had.
class HeldName : public std::enable_shared_from_this<HeldName> {
 public:
  HeldName(asio::io_context& loop, const ipc::RuntimeDir& runtime,
           uint32_t served_uid, KeeperLine& keeper, Counters& counters,
           const PublicNameEvents& events, PublicName name)
      : loop_(loop),
        runtime_(runtime),
        served_uid_(served_uid),
        keeper_(keeper),
        counters_(counters),
        events_(events),
        name_(std::move(name)),
        timer_(loop),
        occupant_(loop) {}

  const PublicName& name() const { return name_; }
  const std::string& problem() const { return problem_; }
  // Whether or not its name leads there.
  bool serves() const { return acceptor_ != nullptr; }
  // The version behind a name may change; the socket stays.
  void Rename(PublicName name) { name_ = std::move(name); }

  bool Holds() const {
    return acceptor_ != nullptr && (hidden_ || Listener().HasItsName());
  }

  // Takes over what an earlier broker left with the keeper.
  void Resume(ipc::UniqueFd fd) {
    was_ours_ = true;
    const absl::StatusOr<ipc::Endpoint> endpoint =
        ipc::Endpoint::Parse(name_.path);
    if (!endpoint.ok()) return;
    absl::StatusOr<ipc::Listener> listener =
        ipc::Listener::Resume(*endpoint, std::move(fd));
    if (!listener.ok()) {
      LogWarning(std::string(listener.status().message()));
      // Who waits there is let go rather than left waiting.
      keeper_.Drop(name_.path);
      return;
    }
    Serve(*std::move(listener));
  }

  // Something happened to the name. Whoever removes a whole directory is not
  // in the way of a name that comes back while he is at it.
  void Changed() {
    if (acceptor_ != nullptr && !hidden_ && !ended_ &&
        absl::IsNotFound(ipc::IdentifyFile(name_.path).status())) {
      AcquireLater(kAfterRemoval);
    } else {
      Acquire();
    }
  }

  // Has the name, or knows why not.
  void Acquire() {
    if (ended_ || hidden_ || probe_ != nullptr || occupant_.is_open()) return;
    if (Holds()) return;
    const absl::StatusOr<ipc::Endpoint> endpoint = MakePlace();
    if (!endpoint.ok()) {
      NotHad(endpoint.status());
      return;
    }
    const absl::Status answer =
        ipc::Connect(*endpoint, ipc::Deadline::After(absl::ZeroDuration()))
            .status();
    if (acceptor_ != nullptr) {
      LogWarning(absl::StrCat(name_.path, " was taken from us"));
      Release();
    }
    if (absl::IsNotFound(answer) || absl::IsUnavailable(answer)) {
      Bind(*endpoint);
    } else if (answer.ok() || absl::IsDeadlineExceeded(answer)) {
      LookAtOccupant(*endpoint);
    } else {
      NotHad(answer);
    }
  }

  void TakeBack() {
    counters_.Add("names_taken_back");
    const absl::StatusOr<ipc::Endpoint> endpoint = MakePlace();
    if (!endpoint.ok()) return;
    absl::StatusOr<ipc::UniqueFd> intruder =
        ipc::Connect(*endpoint, ipc::Deadline::After(absl::ZeroDuration()));
    Bind(*endpoint);
    if (intruder.ok()) Dismiss(*std::move(intruder));
  }

  // A daemon that a client started beside the backend, reached before its name
  // was taken back: nobody comes to it any more, and when it has done what it
  // had begun it is asked to end, as `zccache stop` would.
  void Dismiss(ipc::UniqueFd intruder) {
    if (name_.probe != v1::PROBE_ZCCACHE_PING) return;
    const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(intruder);
    if (!peer.ok() || peer->uid != served_uid_) return;
    LogInfo(absl::StrCat(name_.path, ": process ", peer->pid,
                         " is one daemon too many; asking it to end"));
    DismissWhenIdle(std::make_shared<asio::steady_timer>(loop_),
                    std::make_shared<ipc::UniqueFd>(std::move(intruder)),
                    peer->pid, kDismissLooks, kDismissFirst);
  }

  void DismissWhenIdle(const std::shared_ptr<asio::steady_timer>& timer,
                       const std::shared_ptr<ipc::UniqueFd>& intruder, int pid,
                       int looks, milliseconds pause) {
    timer->expires_after(pause);
    timer->async_wait([self = shared_from_this(), timer, intruder, pid,
                       looks](const asio::error_code& error) {
      if (error) return;
      if (looks > 0 && HasRunningChildren(pid)) {
        self->DismissWhenIdle(timer, intruder, pid, looks - 1, kDismissAgain);
        return;
      }
      zccache::v1::Request request;
      request.mutable_shutdown();
      const absl::StatusOr<std::string> bytes =
          ipc::Encode(ipc::WireLane::kFrameV1, request, 1);
      if (bytes.ok()) {
        ipc::WriteAll(*intruder, *bytes,
                      ipc::Deadline::After(absl::ZeroDuration()))
            .IgnoreError();
      }
    });
  }

  void TakeOver() {
    if (ended_ || acceptor_ != nullptr) return;
    asio::error_code ignored;
    occupant_.close(ignored);
    const absl::StatusOr<ipc::Endpoint> endpoint = MakePlace();
    if (endpoint.ok()) Bind(*endpoint);
  }

  void HideFor(milliseconds duration) {
    if (acceptor_ == nullptr || hidden_) return;
    if (!Listener().Hide().ok()) return;
    hidden_ = true;
    timer_.expires_after(duration);
    timer_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (!e) self->Show();
    });
  }

  void Show() {
    if (!std::exchange(hidden_, false)) return;
    if (ended_) return;
    if (const absl::Status shown = Listener().Show(); !shown.ok()) {
      // A client started its own daemon meanwhile.
      Acquire();
    }
  }

  // Accepts no more, and is not ours any more.
  void End() {
    Show();
    ended_ = true;
    probe_.reset();
    timer_.cancel();
    asio::error_code ignored;
    occupant_.close(ignored);
    if (acceptor_ != nullptr) acceptor_->Close();
  }

  // Before the end: the name goes, or leads to `backend`.
  void Leave(const absl::optional<std::string>& backend) {
    End();
    if (acceptor_ == nullptr || !Listener().HasItsName()) return;
    if (backend.has_value() && *backend != name_.path) {
      // Over our own name in one step; nobody is refused in between.
      const absl::StatusOr<ipc::Endpoint> target =
          ipc::Endpoint::Parse(*backend);
      if (target.ok() && ipc::LinkOver(*target, Listener().endpoint()).ok()) {
        return;
      }
      // No hard links here: the backend's own name moves.
      if (rename(backend->c_str(), name_.path.c_str()) == 0) return;
    }
    Listener().UnlinkIfOurs().IgnoreError();
  }

 private:
  const ipc::Listener& Listener() const { return acceptor_->listener(); }

  void Problem(std::string text) {
    if (text != problem_) LogWarning(absl::StrCat(name_.path, ": ", text));
    problem_ = std::move(text);
  }

  void NotHad(const absl::Status& why) {
    Problem(std::string(why.message()));
    // Out of descriptors or room: that may pass, and nobody would tell us.
    if (absl::IsResourceExhausted(why)) AcquireLater(kLookAgain);
  }

  absl::StatusOr<ipc::Endpoint> MakePlace() {
    absl::Status made =
        name_.claimed
            ? ipc::MakeDirectories(DirectoryOf(name_.path))
            : ipc::OpenOrCreateRouteDir(runtime_, name_.service).status();
    if (made.ok() && name_.claimed) made = CheckPlace(DirectoryOf(name_.path));
    if (!made.ok()) return made;
    return ipc::Endpoint::Parse(name_.path);
  }

  void Bind(const ipc::Endpoint& endpoint) {
    absl::StatusOr<ipc::Listener> listener = ipc::Listener::Bind(endpoint);
    if (!listener.ok()) {
      NotHad(listener.status());
      return;
    }
    keeper_.Hold(name_.path, listener->fd());
    Serve(*std::move(listener));
  }

  void Serve(ipc::Listener listener) {
    problem_.clear();
    was_ours_ = true;
    acceptor_ = Acceptor::Create(
        loop_, std::move(listener), served_uid_,
        WhenShort{/*use_reserve=*/false, events_.make_room}, counters_,
        [this](ipc::UniqueFd fd, const ipc::PeerIdentity& p) {
          if (events_.accepted) {
            events_.accepted(std::move(fd), p, name_);
          }
        });
    acceptor_->Open();
  }

  void Release() {
    acceptor_.reset();
    keeper_.Drop(name_.path);
  }

  void LookAtOccupant(const ipc::Endpoint& endpoint) {
    probe_ = StartProbe(
        loop_, endpoint, name_.probe, kProbePatience,
        [self = shared_from_this()](const absl::StatusOr<Probed>& probed) {
          self->probe_.reset();
          if (!self->ended_) self->LookedAtOccupant(probed);
        });
  }

  void LookedAtOccupant(const absl::StatusOr<Probed>& probed) {
    if (absl::IsNotFound(probed.status()) ||
        absl::IsUnavailable(probed.status())) {
      Acquire();
      return;
    }
    if (!probed.ok()) {
      Problem(absl::StrCat("somebody else listens there: ",
                           std::string(probed.status().message())));
      AcquireLater(kLookAgain);
      return;
    }
    if (was_ours_ && events_.has_backend && events_.has_backend(name_)) {
      TakeBack();
      return;
    }
    Problem(absl::StrCat("process ", probed->process.pid,
                         " listens there; left alone until it ends"));
    absl::StatusOr<ipc::UniqueFd> handle = ipc::OpenPidfd(probed->process);
    if (!handle.ok()) {
      AcquireLater(kLookAgain);
      return;
    }
    asio::error_code ignored;
    occupant_.assign(handle->release(), ignored);
    WhenReady(occupant_, asio::posix::stream_descriptor::wait_read,
              [self = shared_from_this()](const asio::error_code& error) {
                if (error || self->ended_) return;
                asio::error_code closed;
                self->occupant_.close(closed);
                self->Acquire();
              });
    if (events_.occupied) events_.occupied(name_, *probed);
  }

  void AcquireLater(milliseconds pause) {
    timer_.expires_after(pause);
    timer_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (!e) self->Acquire();
    });
  }

  asio::io_context& loop_;
  const ipc::RuntimeDir& runtime_;
  const uint32_t served_uid_;
  KeeperLine& keeper_;
  Counters& counters_;
  // The owner's, which ends this before it goes.
  const PublicNameEvents& events_;
  PublicName name_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ProbeHandle> probe_;
  // How long a name stays hidden, or until an occupant is looked at again.
  asio::steady_timer timer_;
  // A pidfd.
  asio::posix::stream_descriptor occupant_;
  std::string problem_;
  // We, or the broker before us, had it at some time.
  bool was_ours_ = false;
  bool hidden_ = false;
  bool ended_ = false;
};

class Names : public PublicNames {
 public:
  Names(asio::io_context& loop, const ipc::RuntimeDir& runtime,
        uint32_t served_uid, KeeperLine& keeper, Counters& counters,
        std::map<std::string, ipc::UniqueFd> held, PublicNameEvents events)
      : loop_(loop),
        runtime_(runtime),
        served_uid_(served_uid),
        keeper_(keeper),
        counters_(counters),
        held_(std::move(held)),
        events_(std::move(events)) {}

  ~Names() override {
    for (auto& [path, name] : names_) name->End();
  }

  void Serve(std::vector<PublicName> wanted) override {
    std::map<std::string, PublicName> by_path;
    for (PublicName& name : wanted) {
      by_path.emplace(name.path, std::move(name));
    }
    for (auto it = names_.begin(); it != names_.end();) {
      if (by_path.count(it->first) > 0) {
        ++it;
        continue;
      }
      it->second->Leave(absl::nullopt);
      keeper_.Drop(it->first);
      it = names_.erase(it);
    }
    std::set<std::string> directories;
    for (auto& [path, name] : by_path) {
      directories.insert(DirectoryOf(path));
      std::shared_ptr<HeldName>& held = names_[path];
      if (held == nullptr) {
        held = std::make_shared<HeldName>(loop_, runtime_, served_uid_, keeper_,
                                          counters_, events_, name);
        const auto kept = held_.find(path);
        if (kept != held_.end()) held->Resume(std::move(kept->second));
      } else {
        held->Rename(name);
      }
      held->Acquire();
    }
    for (auto& [path, fd] : std::exchange(held_, {})) {
      // Neither ours nor anybody's: what it was made for is not known any more.
      if (names_.count(path) == 0) keeper_.Drop(path);
    }
    Watch(directories);
  }

  void Restore() override {
    watches_.clear();
    for (auto& [path, held] : names_) held->Acquire();
    Watch(Directories());
  }

  bool Holds(const std::string& path) const override {
    const auto found = names_.find(path);
    return found != names_.end() && found->second->Holds();
  }

  std::vector<std::string> PathsOf(const std::string& service,
                                   const std::string& version) const override {
    std::vector<std::string> paths;
    for (const auto& [path, held] : names_) {
      if (held->name().service == service && held->name().version == version) {
        paths.push_back(path);
      }
    }
    return paths;
  }

  void Hide(const std::string& service, const std::string& version,
            milliseconds duration) override {
    for (auto& [path, held] : names_) {
      if (held->name().service == service && held->name().version == version) {
        held->HideFor(duration);
      }
    }
  }

  void TakeOver(const std::string& path) override {
    const auto found = names_.find(path);
    if (found != names_.end()) found->second->TakeOver();
  }

  void StopAccepting() override {
    watches_.clear();
    for (auto& [path, held] : names_) held->End();
  }

  void HandOver() override {
    StopAccepting();
    names_.clear();
  }

  void Leave(
      const std::function<absl::optional<std::string>(const PublicName&)>&
          backend_of) override {
    watches_.clear();
    for (auto& [path, held] : names_) held->Leave(backend_of(held->name()));
  }

  std::vector<v1::Problem> problems() const override {
    std::vector<v1::Problem> problems;
    for (const auto& [path, held] : names_) {
      if (held->problem().empty()) continue;
      v1::Problem problem;
      problem.set_where(path);
      problem.set_what(held->problem());
      problems.push_back(std::move(problem));
    }
    return problems;
  }

 private:
  // Removed, or moved away: its names are had again in the one that is made in
  // its place.
  void DirectoryGone(const std::string& directory) {
    auto timer = std::make_shared<asio::steady_timer>(loop_);
    timer->expires_after(kAfterRemoval);
    timer->async_wait(
        [this, timer, directory,
         alive = std::weak_ptr<int>(alive_)](const asio::error_code& error) {
          if (error || alive.expired()) return;
          watches_.erase(directory);
          for (auto& [path, held] : names_) {
            if (DirectoryOf(path) == directory) held->Acquire();
          }
          Watch(Directories());
        });
  }

  std::set<std::string> Directories() const {
    std::set<std::string> directories;
    for (const auto& [path, held] : names_) {
      directories.insert(DirectoryOf(path));
    }
    return directories;
  }

  bool Serves(const std::string& directory) const {
    return std::any_of(names_.begin(), names_.end(), [&](const auto& entry) {
      return DirectoryOf(entry.first) == directory && entry.second->serves();
    });
  }

  // Tells when somebody takes a name of ours, as a daemon does that binds
  // without looking.
  void Watch(const std::set<std::string>& directories) {
    for (auto it = watches_.begin(); it != watches_.end();) {
      it =
          directories.count(it->first) > 0 ? std::next(it) : watches_.erase(it);
    }
    for (const std::string& directory : directories) {
      if (watches_.count(directory) > 0) continue;
      auto watch = DirectoryWatch::Create(
          loop_, directory, /*writes=*/false,
          [this, directory](const std::string& leaf) {
            const auto found = names_.find(absl::StrCat(directory, "/", leaf));
            if (found != names_.end()) found->second->Changed();
            if (leaf.empty() || absl::EndsWith(leaf, ".info")) {
              events_.removed();
            }
            if (leaf.empty()) DirectoryGone(directory);
          });
      if (!watch.ok()) {
        // Removed since we bound a name in it.
        if (absl::IsNotFound(watch.status()) && Serves(directory)) {
          DirectoryGone(directory);
        }
        continue;
      }
      watches_[directory] = *std::move(watch);
      // What happened since it was made, nobody told us.
      for (auto& [path, held] : names_) {
        if (DirectoryOf(path) == directory) held->Changed();
      }
      events_.removed();
    }
  }

  asio::io_context& loop_;
  const ipc::RuntimeDir& runtime_;
  const uint32_t served_uid_;
  KeeperLine& keeper_;
  Counters& counters_;
  std::map<std::string, ipc::UniqueFd> held_;
  const PublicNameEvents events_;
  std::map<std::string, std::shared_ptr<HeldName>> names_;
  std::map<std::string, std::unique_ptr<DirectoryWatch>> watches_;
  const std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace

std::vector<PublicName> NamesOf(const Catalog& catalog,
                                const Surroundings& surroundings, bool claim) {
  std::vector<PublicName> names;
  std::set<std::string> claimed;
  for (const auto& [service, known] : catalog.services) {
    for (const InstalledVersion& version : known.versions) {
      // Its clients are not ours to serve.
      if (!WhyBlocked(catalog.versions, service, version.version).empty()) {
        continue;
      }
      PublicName name;
      name.service = service;
      name.version = version.version;
      name.probe = known.definition.probe();
      const absl::StatusOr<ipc::Endpoint> route =
          ipc::RouteSocket(*surroundings.runtime, service, version.version);
      if (route.ok()) {
        name.path = route->path();
        names.push_back(name);
      }
      if (!claim || known.definition.claim() != v1::CLAIM_ON) continue;
      const absl::optional<ipc::Endpoint> direct =
          DirectEndpoint(known.definition, version.version, surroundings);
      // Newest first: an endpoint without a version in it is the newest's, as
      // for a direct start.
      if (!direct.has_value() || !claimed.insert(direct->path()).second) {
        continue;
      }
      name.path = direct->path();
      name.claimed = true;
      names.push_back(std::move(name));
    }
  }
  return names;
}

std::unique_ptr<PublicNames> PublicNames::Create(
    asio::io_context& loop, const ipc::RuntimeDir& runtime, uint32_t served_uid,
    KeeperLine& keeper, Counters& counters,
    std::map<std::string, ipc::UniqueFd> held, PublicNameEvents events) {
  return std::make_unique<Names>(loop, runtime, served_uid, keeper, counters,
                                 std::move(held), std::move(events));
}

}  // namespace zcbroker::service
