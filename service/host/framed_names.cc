#include "service/host/framed_names.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ipc/broker_endpoint.h"
#include "ipc/deadline.h"
#include "ipc/private_dir.h"
#include "ipc/socket.h"
#include "ipc/unique_fd.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::service {
namespace {

std::pair<std::string, std::string> Split(const std::string& path) {
  const size_t slash = path.rfind('/');
  return {path.substr(0, slash), path.substr(slash + 1)};
}

std::string LinkTarget(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t n = readlink(path.c_str(), target, sizeof(target));
  return n > 0 ? std::string(target, static_cast<size_t>(n)) : std::string();
}

// <base>/<running-process...>/broker, the last two made 0700 and checked: the
// name in it must be nobody else's to move.
absl::Status MakeParents(const std::string& directory) {
  const auto [parent, leaf] = Split(directory);
  const auto [base, parent_leaf] = Split(parent);
  const absl::StatusOr<ipc::UniqueFd> base_fd = ipc::OpenDirectory(base);
  if (!base_fd.ok()) return base_fd.status();
  const absl::StatusOr<ipc::UniqueFd> parent_fd = ipc::OpenOrCreatePrivateDirAt(
      base_fd->get(), base, parent_leaf, geteuid());
  if (!parent_fd.ok()) return parent_fd.status();
  return ipc::OpenOrCreatePrivateDirAt(parent_fd->get(), parent, leaf,
                                       geteuid())
      .status();
}

}  // namespace

FramedNames::FramedNames(const ipc::Endpoint& socket,
                         const std::string& xdg_runtime_dir)
    : socket_(socket.path()) {
  const auto problem = [this](absl::string_view what) {
    v1::Problem made;
    made.set_where("names for framed clients");
    made.set_what(std::string(what));
    problems_.push_back(std::move(made));
  };
  const absl::StatusOr<std::string> hash = ipc::HostUserSidHash();
  if (!hash.ok()) {
    problem(hash.status().message());
    return;
  }
  const absl::StatusOr<std::string> bare = ipc::SharedBrokerName(*hash);
  if (!bare.ok()) {
    problem(bare.status().message());
    return;
  }
  ipc::BrokerAddressInputs inputs;
  if (!xdg_runtime_dir.empty()) inputs.xdg_runtime_dir = xdg_runtime_dir;
  inputs.real_uid = getuid();
  for (ipc::Endpoint& name : ipc::LinuxBrokerAddresses(*bare, inputs)) {
    Publish(name);
    names_.push_back(std::move(name));
  }
}

void FramedNames::Restore() {
  // Those that no longer lead to us are not ours; a problem is news once.
  published_.clear();
  problems_.clear();
  for (const ipc::Endpoint& name : names_) Publish(name);
}

bool FramedNames::IsOne(const std::string& path) const {
  for (const ipc::Endpoint& name : names_) {
    if (name.path() == path) return true;
  }
  return false;
}

std::set<std::string> FramedNames::directories() const {
  std::set<std::string> directories;
  for (const ipc::Endpoint& name : names_) {
    directories.insert(Split(name.path()).first);
  }
  return directories;
}

void FramedNames::Publish(const ipc::Endpoint& name) {
  const auto problem = [&](absl::string_view what) {
    v1::Problem made;
    made.set_where(name.path());
    made.set_what(std::string(what));
    problems_.push_back(std::move(made));
  };
  if (const absl::Status made = MakeParents(Split(name.path()).first);
      !made.ok()) {
    problem(made.message());
    return;
  }
  if (LinkTarget(name.path()) != socket_) {
    const absl::Status answer =
        ipc::Connect(name, ipc::Deadline::After(absl::ZeroDuration())).status();
    if (answer.ok() || absl::IsDeadlineExceeded(answer)) {
      problem(
          "another broker answers there; framed clients that look there are "
          "served by it");
      return;
    }
    const std::string temporary = absl::StrCat(name.path(), ".", getpid());
    unlink(temporary.c_str());
    if (symlink(socket_.c_str(), temporary.c_str()) != 0 ||
        rename(temporary.c_str(), name.path().c_str()) != 0) {
      problem(absl::ErrnoToStatus(errno, "link").message());
      unlink(temporary.c_str());
      return;
    }
  }
  published_.push_back(name.path());
}

void FramedNames::Remove() const {
  for (const std::string& name : published_) {
    if (LinkTarget(name) == socket_) unlink(name.c_str());
  }
}

}  // namespace zcbroker::service
