// The broker that came after this one, as seen by what is left of this one:
// relayed connections that it goes on serving. It has no backends any more; it
// reaches them as any client does, by their named routes.
#ifndef ZCBROKER_SERVICE_HOST_SUCCESSOR_H_
#define ZCBROKER_SERVICE_HOST_SUCCESSOR_H_

#include <functional>
#include <string>

#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/broker.pb.h"

namespace zcbroker::service {

// Lives on the loop's thread; `runtime` outlives it.
class Successor {
 public:
  Successor(asio::io_context& loop, const ipc::RuntimeDir& runtime,
            std::string broker_socket)
      : loop_(loop),
        runtime_(runtime),
        broker_socket_(std::move(broker_socket)) {}

  // The named route, where the successor starts, waits and repeats as need be.
  // Nothing where no socket can have that name. It names no process.
  absl::optional<v1::BackendRoute> Route(const std::string& service,
                                         const std::string& version) const;
  // Has the successor look at the backend, and answers by what is to be seen
  // from here: gone once its process has ended, within a second, else busy;
  // busy at once for a route of the successor's, which hangs up for a reason.
  // Calls `done` later, once.
  void Report(const v1::ReportBackendRequest& report,
              std::function<void(v1::BackendVerdict)> done);

 private:
  asio::io_context& loop_;
  const ipc::RuntimeDir& runtime_;
  const std::string broker_socket_;
  // The last report is on its way; nobody waits for the answer.
  ipc::UniqueFd reported_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_SUCCESSOR_H_
