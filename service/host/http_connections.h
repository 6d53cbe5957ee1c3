// Counts the connections that were handed to the gRPC server. gRPC owns them
// then and tells nobody when one ends, so a duplicate of each descriptor is
// watched for its hang-up: no byte of the traffic wakes the watcher.
#ifndef ZCBROKER_SERVICE_HOST_HTTP_CONNECTIONS_H_
#define ZCBROKER_SERVICE_HOST_HTTP_CONNECTIONS_H_

#include <functional>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "asio/io_context.hpp"
#include "asio/posix/stream_descriptor.hpp"
#include "ipc/unique_fd.h"

namespace zcbroker::service {

// Lives on the loop's thread.
class HttpConnections {
 public:
  // `changed` is called on the loop whenever one has ended.
  HttpConnections(asio::io_context& loop, std::function<void()> changed);
  ~HttpConnections();

  // Counts `connection` until its peer or the server ends it.
  // kResourceExhausted for want of descriptors: it is not counted.
  absl::Status Add(const ipc::UniqueFd& connection);

  size_t size() const { return watched_.size(); }

 private:
  void Wait();
  void Collect();

  // An epoll instance of its own, itself watched by the loop.
  ipc::UniqueFd epoll_;
  asio::posix::stream_descriptor ready_;
  std::function<void()> changed_;
  std::map<int, ipc::UniqueFd> watched_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_HTTP_CONNECTIONS_H_
