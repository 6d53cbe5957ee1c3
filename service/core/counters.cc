#include "service/core/counters.h"

#include <utility>

namespace zcbroker::service {

void Counters::Add(absl::string_view name, uint64_t count) {
  AddTo(name, count);
}

void Counters::Reached(absl::string_view name) {
  const uint64_t total = AddTo(name, 1);
  if (reached_) reached_(std::string(name), total);
}

void Counters::OnReached(
    std::function<void(const std::string&, uint64_t)> reached) {
  reached_ = std::move(reached);
}

uint64_t Counters::AddTo(absl::string_view name, uint64_t count) {
  std::lock_guard<std::mutex> lock(mutex_);
  return counts_[std::string(name)] += count;
}

std::map<std::string, uint64_t> Counters::Snapshot() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {counts_.begin(), counts_.end()};
}

}  // namespace zcbroker::service
