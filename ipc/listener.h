// A listening Unix stream socket: made at its name in one step, or inherited.
#ifndef ZCBROKER_IPC_LISTENER_H_
#define ZCBROKER_IPC_LISTENER_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ipc/endpoint.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

// Which file a name stands for. Two names of one file have one identity.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  friend bool operator==(const FileIdentity& a, const FileIdentity& b) {
    return a.device == b.device && a.inode == b.inode;
  }
  friend bool operator!=(const FileIdentity& a, const FileIdentity& b) {
    return !(a == b);
  }
};

// Of the file at `path`, links not followed. Errors: by errno, kNotFound where
// nothing is there.
absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path);

// Move-only; Accept may be called by several threads, the rest not. Destroying
// it stops listening and leaves the name, so that a successor may have it.
class Listener {
 public:
  // Binds to a temporary name in the same directory (".zcb-" and eight hex
  // digits), with mode 0600 and the system's longest backlog, and renames it
  // into place: whoever finds the name can connect. A socket that had the name
  // is replaced; only who holds the place (InstanceLock) and has found nobody
  // answering there may call this.
  // Errors: kNotFound (no such directory), kPermissionDenied, kAlreadyExists
  // (the name is taken by something that is no socket), kInvalidArgument (the
  // temporary name would be too long for a socket).
  static absl::StatusOr<Listener> Bind(const Endpoint& endpoint);

  // Takes over a socket from a service manager (LISTEN_FDS) and makes it
  // nonblocking and close-on-exec. kInvalidArgument unless it is a listening
  // Unix stream socket that is bound to an absolute path.
  static absl::StatusOr<Listener> Adopt(UniqueFd fd);

  // Takes over a socket that an earlier process of ours made with Bind and that
  // somebody held meanwhile, if `endpoint` still leads to it: it tells by
  // connecting once and comparing the names both ends were bound to, so that
  // one connection that says nothing waits to be accepted. Errors: of Adopt;
  // kNotFound (nothing has that name), kAborted (it leads elsewhere).
  static absl::StatusOr<Listener> Resume(const Endpoint& endpoint, UniqueFd fd);

  // The next connection, nonblocking and close-on-exec, or nothing if none
  // waits; call it until then. Connections that were given up while waiting
  // are skipped. Errors: kResourceExhausted (no descriptor or memory: the
  // connection still waits), others mean that listening is over.
  absl::StatusOr<absl::optional<UniqueFd>> Accept() const;

  // For polling: readable while connections wait.
  int fd() const { return fd_.get(); }
  const Endpoint& endpoint() const { return endpoint_; }

  // Removes the name if it still leads to this very socket; no error where it
  // is gone or leads elsewhere by now.
  absl::Status UnlinkIfOurs() const;

  // Does the name lead to this very socket?
  bool HasItsName() const;

  // Takes the name away: nobody can connect until Show. kAborted where it
  // leads elsewhere by now, others by errno.
  absl::Status Hide() const;
  // Gives it back. kAlreadyExists where another has it now.
  absl::Status Show() const;

 private:
  Listener(Endpoint endpoint, absl::optional<FileIdentity> identity,
           UniqueFd fd)
      : endpoint_(std::move(endpoint)),
        identity_(identity),
        fd_(std::move(fd)) {}

  Endpoint endpoint_;
  absl::optional<FileIdentity> identity_;  // none: adopted, its name was gone
  UniqueFd fd_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_LISTENER_H_
