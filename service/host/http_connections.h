// Counts the connections that were handed to the gRPC server. gRPC owns them
// then and tells nobody when one ends, so a duplicate of each descriptor is
// watched for its hang-up: no byte of the traffic wakes the watcher.
#ifndef ZCBROKER_SERVICE_HOST_HTTP_CONNECTIONS_H_
#define ZCBROKER_SERVICE_HOST_HTTP_CONNECTIONS_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "asio/posix/stream_descriptor.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/unique_fd.h"

namespace zcbroker::service {

// Lives on the loop's thread.
class HttpConnections {
 public:
  // `changed` is called on the loop whenever one has ended.
  HttpConnections(asio::io_context& loop,
                  std::chrono::milliseconds reserved_for,
                  std::function<void()> changed);
  ~HttpConnections();

  // Counts `connection` of process `peer_pid` until its peer or the server ends
  // it, or, where it or our duplicate is of the reserve of descriptors, until
  // `reserved_for` is over: then it is ended. kResourceExhausted for want of
  // descriptors, also of the reserve: it is not counted.
  absl::Status Add(const ipc::UniqueFd& connection, int peer_pid);

  size_t size() const { return watched_.size(); }
  // Those of one process.
  size_t of(int peer_pid) const;

 private:
  void Wait();
  void Collect();
  void EndReserved();

  const std::chrono::milliseconds reserved_for_;
  // An epoll instance of its own, itself watched by the loop.
  ipc::UniqueFd epoll_;
  asio::posix::stream_descriptor ready_;
  std::function<void()> changed_;
  struct Watched {
    ipc::UniqueFd fd;
    int peer_pid = 0;
    // Where it is of the reserve: when it is ended.
    absl::optional<std::chrono::steady_clock::time_point> end_at;
  };
  std::map<int, Watched> watched_;
  std::map<int, size_t> by_process_;
  asio::steady_timer end_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_HTTP_CONNECTIONS_H_
