// How connections that speak HTTP/2 reach the gRPC server, which exists only
// while it is needed. One implementation, service/rpc/on_demand_server.h.
#ifndef ZCBROKER_SERVICE_CORE_HTTP_SERVER_PORT_H_
#define ZCBROKER_SERVICE_CORE_HTTP_SERVER_PORT_H_

#include "ipc/unique_fd.h"

namespace zcbroker::service {

// Called on the loop's thread; returns at once.
class HttpServerPort {
 public:
  virtual ~HttpServerPort() = default;

  // Takes over a connection whose peer was checked and of which nothing has
  // been read. Builds the server where there is none.
  virtual void Adopt(ipc::UniqueFd connection) = 0;

  // Nobody is connected any more: the server may go. Connections adopted while
  // it goes wait for the next one.
  virtual void TearDown() = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_HTTP_SERVER_PORT_H_
