// The broker's metrics at http://127.0.0.1:PORT/metrics, for whoever asks for
// them there (docs/operations.md, "Metrics"). No HTTP server beyond that: one
// request a connection, answered and closed
// (docs/adr/0025-metrics-over-http.md).
#ifndef ZCBROKER_SERVICE_HOST_METRICS_LISTENER_H_
#define ZCBROKER_SERVICE_HOST_METRICS_LISTENER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "asio/io_context.hpp"
#include "service/core/counters.h"

namespace zcbroker::service {

// Lives on the loop's thread; `loop` and `counters` outlive it and those who
// are connected. Destroying it closes the port; who is connected has an answer,
// or is closed, within 5 s.
class MetricsListener {
 public:
  // docs/operations.md, "Limits". Everybody on the machine may connect, so what
  // they can take of the broker is little.
  static constexpr size_t kMaxConnections = 16;
  static constexpr size_t kMaxRequestBytes = 4096;

  // Gives OpenMetrics text, now or later, on the loop.
  using Render = std::function<void(std::function<void(std::string)> done)>;

  // Port 0: a free one. kUnavailable: the port is taken.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Listen(
      asio::io_context& loop, uint16_t port, Counters& counters, Render render);
  virtual ~MetricsListener() = default;

  virtual uint16_t port() const = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_METRICS_LISTENER_H_
