// A daemon as a backend of the broker: the socket it listens on, its answer to
// the identity probe, and its end in order. What is said on a connection is its
// own: a handler. docs/backend-kit.md has the whole of it.
//
//   int main(int argc, char** argv) {
//     BackendOptions options;
//     if (argc > 1) options.endpoint = argv[1];  // --arg {endpoint}
//     const auto backend = ManagedBackend::Open(options);
//     if (!backend.ok()) return ExitStatusOf(backend.status());
//     return ExitStatusOf((*backend)->Serve(Answer).status());
//   }
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_MANAGED_BACKEND_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_MANAGED_BACKEND_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace zcbroker::client {

struct BackendOptions {
  // Where to listen: an absolute path. Empty: where the start contract
  // RUNNING_PROCESS says (RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE). A socket
  // that was inherited (LISTEN_FDS) comes before either.
  std::string endpoint;
  // What the identity probe reports. Empty: what the start contract says
  // (RUNNING_PROCESS_BROKER_V1_BACKEND_NAMESPACE), else "default".
  std::string namespace_id;
  // How long what is in flight may take once it is to stop. Keep it below the
  // definition's stop_grace (5 s), or the broker ends the process first.
  absl::Duration grace = absl::Seconds(4);
  // It stops by itself when nothing has been in flight for so long: a backstop
  // for when no broker is there to do so.
  absl::Duration idle_timeout = absl::InfiniteDuration();
};

enum class StopReason { kSignal, kStopCall, kIdle };

// One client's. An interface, so that a handler can be tested without sockets.
class BackendConnection {
 public:
  virtual ~BackendConnection() = default;
  // Waits for bytes and appends them to `buffer`. False: there will be none, so
  // return. The client has finished or is gone, or the backend is to stop and
  // `buffer` is empty. For an empty one means "between two requests", and
  // anything in it that a request is in flight: take out what is dealt with,
  // and not before.
  virtual bool Read(std::string* buffer) = 0;
  // Sends all of `bytes`. False: the client is gone, or has taken none for a
  // minute; return.
  virtual bool Write(absl::string_view bytes) = 0;
};

class ManagedBackend {
 public:
  // Called for each connection whose client has sent something (a protocol in
  // which the server speaks first is not for the kit), on a thread of its own,
  // several at a time: a handler may block, as one that runs a compiler does.
  // The connection ends with its return. Not called for the identity probe,
  // which is answered here, nor for clients of other users, which are turned
  // away. It must not throw.
  using Handler = std::function<void(BackendConnection& connection)>;

  // Listens: clients may connect, and are served once Serve is called. From
  // here on SIGTERM and SIGINT are blocked in this and every later thread, so
  // call it before there are others; programs you start inherit that and want
  // an empty signal mask (POSIX_SPAWN_SETSIGMASK).
  // Errors: kAlreadyExists (somebody serves that endpoint), kInvalidArgument
  // (no endpoint, or none that can be; or what was inherited is not one
  // listening Unix socket), those of ipc::Listener::Bind.
  static absl::StatusOr<std::unique_ptr<ManagedBackend>> Open(
      const BackendOptions& options);
  // Stops listening. Not while Serve runs.
  virtual ~ManagedBackend() = default;

  // Tells a service manager that it is ready (NOTIFY_SOCKET), and serves until
  // SIGTERM, SIGINT, Stop or idleness. Then it takes its name away and accepts
  // who has found it still (an inherited socket keeps its name, and who waits
  // there), lets each connection finish the request that it is about or that
  // has been sent, and ends it. What is not done
  // when the grace is over is cut off by the end of the process, with exit
  // status 0 and no destructor run: no thread can be ended otherwise. Call
  // once. Errors: by errno, where accepting fails or the name stays.
  virtual absl::StatusOr<StopReason> Serve(const Handler& handler) = 0;

  // Has Serve stop; at once where that is called later. Thread-safe.
  virtual void Stop() = 0;

  // Where it listens; what is registered, for one (client/lease.h).
  virtual const std::string& endpoint() const = 0;
};

// The exit status of a daemon that has served, or could not: 0, also for
// kAlreadyExists, upon which the broker looks who serves there; else 1. Says
// why on standard error.
int ExitStatusOf(const absl::Status& status);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_MANAGED_BACKEND_H_
