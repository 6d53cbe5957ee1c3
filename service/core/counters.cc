#include "service/core/counters.h"

namespace zcbroker::service {

void Counters::Add(absl::string_view name, uint64_t count) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = counts_.find(std::string(name));
  if (found != counts_.end()) {
    found->second += count;
  } else {
    counts_.emplace(std::string(name), count);
  }
}

std::map<std::string, uint64_t> Counters::Snapshot() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {counts_.begin(), counts_.end()};
}

}  // namespace zcbroker::service
