// Named routes: where a client finds the way to a backend by its service and
// version, with no broker in between.
//
//   <runtime dir>/zcbroker/routes/<service>/<version>.sock   public name
//   <runtime dir>/zcbroker/routes/<service>/<version>.info   RouteInfo
//
// A version over 40 bytes stands there as the 16 hexadecimal digits of its
// BLAKE3. `routes` and `routes/<service>` must be ours, of mode 0700 and no
// symbolic links; each is opened relative to the one above it, so what was
// checked is what is used. The broker writes, everybody of the user reads.
// All functions are thread-safe; two writers of one file end with one of both.
// Source: docs/protocol.md, "Public names".
#ifndef ZCBROKER_IPC_ROUTE_INFO_H_
#define ZCBROKER_IPC_ROUTE_INFO_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/endpoint.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::ipc {

inline constexpr std::size_t kMaxRouteStemBytes = 40;
inline constexpr std::size_t kMaxRouteInfoBytes = 64 * 1024;

// The name of `version` in its directory, without ".sock" or ".info".
std::string RouteStem(absl::string_view version);

// The public name of a version of a service. Errors: kInvalidArgument (a name
// or version outside its grammar, or a path longer than sockets may have).
absl::StatusOr<Endpoint> RouteSocket(const RuntimeDir& dir,
                                     absl::string_view service,
                                     absl::string_view version);

// Errors of all that follows, besides their own, each with its path:
// kInvalidArgument (a name or version outside its grammar), kNotFound,
// kFailedPrecondition (a directory of another mode, a symbolic link, something
// that is no directory or no regular file, a file others may write),
// kPermissionDenied (it belongs to somebody else).

// The open directory `routes/<service>`.
absl::StatusOr<UniqueFd> OpenRouteDir(const RuntimeDir& dir,
                                      absl::string_view service);
// The same, made where it is not there.
absl::StatusOr<UniqueFd> OpenOrCreateRouteDir(const RuntimeDir& dir,
                                              absl::string_view service);

// Replaces the info of `info.service()` at `info.version()` in one step, with
// mode 0600; makes the directories. kInvalidArgument also where it is longer
// than kMaxRouteInfoBytes or a string in it is not UTF-8.
absl::Status WriteRouteInfo(const RuntimeDir& dir,
                            const zcbroker::v1::RouteInfo& info);

// kDataLoss: it is no RouteInfo, or one of another service or version.
// kResourceExhausted: it is longer than kMaxRouteInfoBytes.
absl::StatusOr<zcbroker::v1::RouteInfo> ReadRouteInfo(
    const RuntimeDir& dir, absl::string_view service,
    absl::string_view version);

// The services that have a directory, in no order; none where there is no
// `routes`.
absl::StatusOr<std::vector<std::string>> ListRouteServices(
    const RuntimeDir& dir);

// The versions of a service that have an info, the newest first; what is no
// name of ours is passed over. None where the service has no directory. The
// files behind plain names are not read.
absl::StatusOr<std::vector<std::string>> ListRouteVersions(
    const RuntimeDir& dir, absl::string_view service);

// OK also where there is none.
absl::Status RemoveRouteInfo(const RuntimeDir& dir, absl::string_view service,
                             absl::string_view version);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_ROUTE_INFO_H_
