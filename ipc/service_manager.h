// What a service manager gives and is told: LISTEN_FDS and sd_notify, by their
// protocols (libsystemd exists only as a shared library).
#ifndef ZCBROKER_IPC_SERVICE_MANAGER_H_
#define ZCBROKER_IPC_SERVICE_MANAGER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/listener.h"

namespace zcbroker::ipc {

// The listening socket in LISTEN_FDS (LISTEN_PID must be ours); nothing where
// there is none. Takes the variables out of the environment, so that no child
// believes them. Call once, before other threads exist.
// Errors: kInvalidArgument (more than one socket, or not a listening Unix
// stream socket).
absl::StatusOr<absl::optional<Listener>> InheritedListener();

// Sends `state` ("READY=1") to NOTIFY_SOCKET; nothing where that is not set.
void NotifyServiceManager(absl::string_view state);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_SERVICE_MANAGER_H_
