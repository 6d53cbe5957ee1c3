#include "ipc/deadline.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "absl/time/time.h"

namespace zcbroker::ipc {

Deadline Deadline::After(absl::Duration duration) {
  if (duration > absl::Hours(24 * 365 * 100)) return Infinite();
  const MonotonicTime now = MonotonicClock::now();
  if (duration <= absl::ZeroDuration()) return Deadline(now);
  return Deadline(now + absl::ToChronoNanoseconds(duration));
}

bool Deadline::Expired() const {
  return !IsInfinite() && MonotonicClock::now() >= time_;
}

absl::Duration Deadline::Remaining() const {
  if (IsInfinite()) return absl::InfiniteDuration();
  return std::max(absl::FromChrono(time_ - MonotonicClock::now()),
                  absl::ZeroDuration());
}

int Deadline::PollTimeoutMillis() const {
  if (IsInfinite()) return -1;
  const absl::Duration remaining = std::min(Remaining(), absl::Hours(24));
  return static_cast<int>(
      absl::ToInt64Milliseconds(absl::Ceil(remaining, absl::Milliseconds(1))));
}

}  // namespace zcbroker::ipc
