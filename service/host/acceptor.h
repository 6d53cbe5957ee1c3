// Accepting at one listening socket: everybody who waits, only processes of
// one user, and never stopped by a bad peer or by a want of descriptors.
#ifndef ZCBROKER_SERVICE_HOST_ACCEPTOR_H_
#define ZCBROKER_SERVICE_HOST_ACCEPTOR_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "asio/io_context.hpp"
#include "ipc/listener.h"
#include "ipc/peer_identity.h"
#include "ipc/unique_fd.h"
#include "service/core/counters.h"

namespace zcbroker::service {

// When there are no descriptors: with one of the reserve (descriptors.h), while
// that has any; or not, and `make_room` is called, if there is one. Either way
// who cannot be accepted stays in the backlog and is tried again after 50 ms.
struct WhenShort {
  bool use_reserve = false;
  std::function<void()> make_room;
};

// Lives on the loop's thread. Destroying it stops listening and leaves the
// name.
class Acceptor {
 public:
  // `accepted` is called on the loop for each connection of `served_uid`,
  // which is nonblocking and close-on-exec; others are closed unread and
  // counted. `counters` outlives it.
  //
  // Counted, too: `accept_failures`, `connections.of_reserve`.
  static std::unique_ptr<Acceptor> Create(
      asio::io_context& loop, ipc::Listener listener, uint32_t served_uid,
      WhenShort when_short, Counters& counters,
      std::function<void(ipc::UniqueFd, const ipc::PeerIdentity&)> accepted);
  virtual ~Acceptor() = default;

  virtual void Open() = 0;
  // Accepts no more. Who waits goes on waiting.
  virtual void Close() = 0;
  virtual const ipc::Listener& listener() const = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_ACCEPTOR_H_
