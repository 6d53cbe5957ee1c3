// The broker's socket: accepts, checks who is there, looks at the first bytes
// and hands the connection to the protocol they belong to. A bad peer is
// counted and closed; none can stop the accept loop or hold up another. Without
// descriptors who comes is served with the reserve (descriptors.h): whatever
// can be answered at once.
#ifndef ZCBROKER_SERVICE_HOST_FRONT_DOOR_H_
#define ZCBROKER_SERVICE_HOST_FRONT_DOOR_H_

#include <cstdint>
#include <memory>

#include "asio/io_context.hpp"
#include "ipc/listener.h"
#include "service/core/connection_limits.h"
#include "service/core/counters.h"
#include "service/core/http_server_port.h"
#include "service/framed/framed_adapter.h"

namespace zcbroker::service {

// docs/operations.md, "Limits".
struct FrontDoorLimits {
  ConnectionLimits connections;
  std::chrono::milliseconds identify_within{2000};
  std::chrono::milliseconds request_within{5000};
  std::chrono::milliseconds http_idle{10 * 60 * 1000};
  // Both of the above, where the connection has a descriptor of the reserve.
  std::chrono::milliseconds reserved_within{250};
  // How long a gRPC connection has a descriptor of the reserve.
  std::chrono::milliseconds reserved_for{1000};
};

// Lives on the loop's thread; everything passed in outlives it.
class FrontDoor {
 public:
  static std::unique_ptr<FrontDoor> Create(
      asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
      FrontDoorLimits limits, FramedAdapter& framed, HttpServerPort& http,
      Counters& counters);
  virtual ~FrontDoor() = default;

  virtual void Open() = 0;
  // Who is connected already stays.
  virtual void SetLimits(const ConnectionLimits& limits) = 0;
  // Accepts no more; who was accepted is served.
  virtual void StopAccepting() = 0;
  // Accepts no more, and hands nobody to gRPC any more. Framed requests that
  // were read are answered.
  virtual void Close() = 0;
  // After Close(): the socket is somebody else's, and not held any more. Only
  // the numbers below may be asked for after that.
  virtual void LetGoOfSocket() = 0;
  // Removes the socket's name if it still leads to this socket.
  virtual void RemoveName() = 0;
  virtual bool HasItsName() const = 0;
  // Accepts at `listener` instead, if it accepts still.
  virtual void MoveTo(ipc::Listener listener) = 0;
  // Open now, both protocols.
  virtual size_t connections() const = 0;
  // Has process `pid` a connection that was handed to gRPC?
  virtual bool SpeaksGrpc(int pid) const = 0;
  // Framed requests that wait for their answer or have it on its way.
  virtual size_t unanswered() const = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_FRONT_DOOR_H_
