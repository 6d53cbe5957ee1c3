#ifndef ZCBROKER_SERVICE_HOST_READINESS_H_
#define ZCBROKER_SERVICE_HOST_READINESS_H_

#include <poll.h>

#include <utility>

#include "asio/error_code.hpp"

namespace zcbroker::service {

// As io.async_wait, for those who act on it at once and for good. asio's own
// wait may end for nothing: what the kernel said of a descriptor that was
// closed meanwhile reaches the next one to be given its place in the reactor. A
// read or write that finds nothing to do just waits again; who takes readiness
// of a pidfd for the end of its process must not take its word.
//
// `handler` is called with an error_code and keeps `io` alive.
template <typename Io, typename Handler>
void WhenReady(Io& io, typename Io::wait_type what, Handler handler) {
  io.async_wait(what, [&io, what, handler = std::move(handler)](
                          const asio::error_code& error) mutable {
    // Errors and hang-ups are told unasked; the third kind has urgent data too.
    pollfd look{io.native_handle(), 0, 0};
    if (what == Io::wait_read) look.events = POLLIN;
    if (what == Io::wait_write) look.events = POLLOUT;
    if (what == Io::wait_error) look.events = POLLPRI;
    if (!error && poll(&look, 1, 0) == 0) {
      WhenReady(io, what, std::move(handler));
    } else {
      handler(error);
    }
  });
}

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_READINESS_H_
