// Serves a ReferenceBackend on one endpoint: the three wire lanes and, as the
// first message of a connection, the identity probe.
// Source: spec zccache-ipc 2.8, 3.3, 3.4 and 6.4.
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_SERVER_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_SERVER_H_

#include <atomic>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/backend_sdk/reference/backend.h"
#include "ipc/listener.h"
#include "ipc/unique_fd.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {

enum class StopReason { kShutdownRequest, kSignal, kIdle };

class Server {
 public:
  // Called at most once at a time, for each identity probe.
  using Identity = std::function<
      absl::StatusOr<running_process::broker::v1::DaemonProcess>()>;

  // `backend` and `listener` outlive the server. `signals` is a signalfd: a
  // readable one stops the server. Idle means no request for `idle_timeout`
  // and none being served; zero means never.
  Server(const ipc::Listener& listener, ReferenceBackend& backend,
         Identity identity, const ipc::UniqueFd& signals,
         absl::Duration idle_timeout);

  // Accepts, one thread per connection, until a Shutdown request was answered,
  // a signal came or idleness; then lets every request in progress finish,
  // closes all connections and joins all threads. Call once.
  // Error: kUnavailable and others by errno, when accepting is over.
  absl::StatusOr<StopReason> Run();

 private:
  struct Connection {
    std::thread thread;
    std::atomic<bool> done{false};
  };

  absl::StatusOr<StopReason> AcceptUntilStopped();
  absl::Status AcceptWaiting();
  void JoinFinished();
  void Serve(const ipc::UniqueFd& fd);
  // Appends what arrives to `buffer`; false when the peer is done or gone, or
  // the server stops.
  bool ReadMore(const ipc::UniqueFd& fd, std::string* buffer);
  // Handles the message at the front of `buffer`; false to close.
  bool ServeFirstMessage(const ipc::UniqueFd& fd, std::string* buffer);
  bool ServeRequest(const ipc::UniqueFd& fd, std::string* buffer);
  void TouchIdleClock();
  absl::Duration UntilIdle();

  const ipc::Listener& listener_;
  ReferenceBackend& backend_;
  const Identity identity_;
  const ipc::UniqueFd& signals_;
  const absl::Duration idle_timeout_;
  // Eventfds, readable for ever once written: a client asked for shutdown; all
  // connections are to end.
  ipc::UniqueFd shutdown_requested_;
  ipc::UniqueFd stopping_;

  std::list<Connection> connections_;  // of the accepting thread only
  std::mutex mutex_;
  absl::Time last_activity_ ABSL_GUARDED_BY(mutex_);
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  std::mutex identity_mutex_;
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_SERVER_H_
