#include "service/host/place.h"

#include <sys/stat.h>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "asio/steady_timer.hpp"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "service/host/directory_watch.h"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

constexpr std::chrono::milliseconds kAfterRemoval(300);
// Out of descriptors, watches or room: that may pass.
constexpr std::chrono::milliseconds kLookAgain(1000);
constexpr std::chrono::milliseconds kWatchAgain(10'000);
// A broker that has just been started holds the lock until it has seen that we
// answer.
constexpr int kLooksAtAHeldLock = 5;

bool SameDirectory(int a, int b) {
  struct stat first;
  struct stat second;
  return fstat(a, &first) == 0 && fstat(b, &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

class WatchedPlace : public Place {
 public:
  WatchedPlace(asio::io_context& loop, ipc::RuntimeDir& runtime,
               ipc::InstanceLock& lock, FramedNames& names, bool socket_is_ours,
               PlaceEvents events)
      : loop_(loop),
        runtime_(runtime),
        lock_(lock),
        names_(names),
        socket_is_ours_(socket_is_ours),
        events_(std::move(events)),
        timer_(loop) {
    RenewWatches();
  }

 private:
  void LookSoon() { LookAfter(kAfterRemoval); }

  void LookAfter(std::chrono::milliseconds pause) {
    // What goes on happening does not put it off.
    const auto at = std::chrono::steady_clock::now() + pause;
    if (pending_ && timer_.expiry() <= at) return;
    pending_ = true;
    timer_.expires_at(at);
    timer_.async_wait([this, alive = std::weak_ptr<int>(alive_)](
                          const asio::error_code& error) {
      if (error || alive.expired()) return;
      pending_ = false;
      Look();
    });
  }

  void Look() {
    absl::Status status = RestoreDirectory();
    if (status.ok()) status = RestoreLock();
    if (absl::IsAlreadyExists(status) && ++held_looks_ < kLooksAtAHeldLock) {
      LookSoon();
      return;
    }
    if (!status.ok() && MayPass(status)) {
      LogWarning(std::string(status.message()));
      LookAfter(kLookAgain);
      return;
    }
    if (!status.ok()) {
      watches_.clear();
      // The last thing done: the callee may destroy us.
      const auto lost = std::move(events_.lost);
      lost(status);
      return;
    }
    held_looks_ = 0;
    const absl::Status bound = RestoreSocket();
    if (!bound.ok()) LogError(std::string(bound.message()));
    names_.Restore();
    // What happened before the new watches were there, nobody told us.
    if (RenewWatches()) LookSoon();
    if (absl::IsResourceExhausted(bound)) LookAfter(kLookAgain);
    if (std::exchange(is_another_, false)) events_.directory_restored();
  }

  static bool MayPass(const absl::Status& status) {
    return !absl::IsAlreadyExists(status) && !absl::IsNotFound(status) &&
           !absl::IsFailedPrecondition(status) &&
           !absl::IsPermissionDenied(status);
  }

  absl::Status RestoreDirectory() {
    absl::StatusOr<ipc::RuntimeDir> now = runtime_.Reopen();
    if (!now.ok()) return now.status();
    if (SameDirectory(now->fd(), runtime_.fd())) return absl::OkStatus();
    LogWarning(absl::StrCat(runtime_.path(), " was removed; made again"));
    runtime_ = *std::move(now);
    stale_ = true;
    lock_is_elsewhere_ = true;
    is_another_ = true;
    return absl::OkStatus();
  }

  absl::Status RestoreLock() {
    // Of a directory that was moved away we hold the lock still, and nothing
    // with it.
    if (!lock_is_elsewhere_ && lock_.StillHeld()) return absl::OkStatus();
    absl::StatusOr<ipc::InstanceLock> again =
        ipc::InstanceLock::TryAcquire(runtime_);
    if (!again.ok()) return again.status();
    LogWarning(absl::StrCat("the lock in ", runtime_.path(),
                            " was removed; claimed again"));
    lock_ = *std::move(again);
    lock_is_elsewhere_ = false;
    return absl::OkStatus();
  }

  // An error may pass; somebody else's socket is none.
  absl::Status RestoreSocket() {
    if (events_.has_its_name()) return absl::OkStatus();
    ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint endpoint,
                         ipc::Endpoint::Parse(runtime_.broker_socket()));
    if (!socket_is_ours_) {
      LogWarning(absl::StrCat(endpoint.path(),
                              " was removed; the service manager that made it "
                              "has to make it again"));
      return absl::OkStatus();
    }
    const absl::Status answer =
        ipc::Connect(endpoint, ipc::Deadline::After(absl::ZeroDuration()))
            .status();
    if (answer.ok() || absl::IsDeadlineExceeded(answer)) {
      LogError(absl::StrCat("somebody else listens at ", endpoint.path(),
                            "; left to them"));
      return absl::OkStatus();
    }
    ZCB_ASSIGN_OR_RETURN(ipc::Listener listener, ipc::Listener::Bind(endpoint));
    LogWarning(absl::StrCat(endpoint.path(), " was removed; bound again"));
    events_.rebound(std::move(listener));
    return absl::OkStatus();
  }

  // Whether there was one to make.
  bool RenewWatches() {
    if (std::exchange(stale_, false)) watches_.clear();
    std::set<std::string> directories = names_.directories();
    directories.insert(runtime_.path());
    bool made = false;
    for (const std::string& directory : directories) {
      if (watches_.count(directory) > 0) continue;
      auto watch = DirectoryWatch::Create(
          loop_, directory, /*writes=*/false,
          [this, directory](const std::string& leaf) {
            if (leaf.empty()) stale_ = true;
            if (leaf.empty() || IsOurs(absl::StrCat(directory, "/", leaf))) {
              LookSoon();
            }
          });
      if (!watch.ok()) {
        if (!std::exchange(unwatched_, true)) {
          LogWarning(absl::StrCat("what is deleted there goes unnoticed: ",
                                  std::string(watch.status().message())));
        }
        if (absl::IsResourceExhausted(watch.status())) LookAfter(kWatchAgain);
        continue;
      }
      watches_[directory] = *std::move(watch);
      made = true;
    }
    return made;
  }

  bool IsOurs(const std::string& path) const {
    return path == runtime_.broker_socket() ||
           path == runtime_.Entry(ipc::kInstanceLockLeaf) || names_.IsOne(path);
  }

  asio::io_context& loop_;
  ipc::RuntimeDir& runtime_;
  ipc::InstanceLock& lock_;
  FramedNames& names_;
  const bool socket_is_ours_;
  PlaceEvents events_;
  asio::steady_timer timer_;
  bool pending_ = false;
  std::map<std::string, std::unique_ptr<DirectoryWatch>> watches_;
  // A watched directory is not what it was.
  bool stale_ = false;
  bool lock_is_elsewhere_ = false;
  // The runtime directory is, and what belongs into it is not there yet.
  bool is_another_ = false;
  // A directory could not be watched; said once.
  bool unwatched_ = false;
  int held_looks_ = 0;
  const std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace

std::unique_ptr<Place> Place::Watch(asio::io_context& loop,
                                    ipc::RuntimeDir& runtime,
                                    ipc::InstanceLock& lock, FramedNames& names,
                                    bool socket_is_ours, PlaceEvents events) {
  return std::make_unique<WatchedPlace>(loop, runtime, lock, names,
                                        socket_is_ours, std::move(events));
}

}  // namespace zcbroker::service
