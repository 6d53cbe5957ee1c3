// What a monitoring system is told of the broker: OpenMetrics text
// (docs/operations.md, "Metrics"). No I/O.
#ifndef ZCBROKER_SERVICE_CORE_METRICS_H_
#define ZCBROKER_SERVICE_CORE_METRICS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::service {

// How often something took how long. Bounds are the same everywhere, from 0.1
// ms (a probe) to 10 s (the longest answer).
class Histogram {
 public:
  static constexpr std::array<double, 11> kBounds = {
      0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10};

  void Observe(absl::Duration duration);
  // Samples of the metric `name`, whose labels are `labels` ("step=\"bind\"",
  // or nothing).
  std::string Samples(const std::string& name, const std::string& labels) const;

 private:
  // Each with those below it; the last counts all.
  std::array<uint64_t, kBounds.size() + 1> counts_ = {};
  double sum_ = 0;
};

// Owned by one thread.
class Metrics {
 public:
  // Every step of a start that succeeded.
  void Observe(const v1::NegotiationStep& step);
  // From a question that the ready routes could not answer to its answer.
  void ObserveAnswer(absl::Duration took) { answers_.Observe(took); }

  // The whole text, "# EOF" included.
  std::string Render(const v1::GetStatusResponse& status,
                     const v1::ListBackendsResponse& backends) const;

 private:
  std::map<std::string, Histogram> steps_;
  Histogram answers_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_METRICS_H_
