// What happened how often since the broker started, by name
// (docs/operations.md, "Counters").
#ifndef ZCBROKER_SERVICE_CORE_COUNTERS_H_
#define ZCBROKER_SERVICE_CORE_COUNTERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"

namespace zcbroker::service {

// Thread-safe. A mutex, not atomics: names are open-ended, and an uncontended
// lock is small beside the system calls around every count.
class Counters {
 public:
  void Add(absl::string_view name, uint64_t count = 1);
  // Counts that a limit was reached, which is to be told, too.
  void Reached(absl::string_view name);
  // `reached` is called with the name and the count so far, on the thread that
  // reached it. Set before other threads use this.
  void OnReached(std::function<void(const std::string&, uint64_t)> reached);
  std::map<std::string, uint64_t> Snapshot() const;

 private:
  uint64_t AddTo(absl::string_view name, uint64_t count);

  std::function<void(const std::string&, uint64_t)> reached_;
  mutable std::mutex mutex_;
  std::map<std::string, uint64_t, std::less<>> counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_COUNTERS_H_
