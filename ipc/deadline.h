// One absolute deadline for an operation of several steps, on the monotonic
// clock. It is passed down by value: a retry or a trickle of bytes spends the
// caller's time, never new time.
#ifndef ZCBROKER_IPC_DEADLINE_H_
#define ZCBROKER_IPC_DEADLINE_H_

#include "absl/time/time.h"
#include "ipc/clock.h"

namespace zcbroker::ipc {

class Deadline {
 public:
  // `duration` from now; zero or less has expired already, an infinite or very
  // large one (over a century) never does.
  static Deadline After(absl::Duration duration);
  static Deadline At(MonotonicTime time) { return Deadline(time); }
  static Deadline Infinite() { return Deadline(MonotonicTime::max()); }

  bool IsInfinite() const { return time_ == MonotonicTime::max(); }
  bool Expired() const;
  // Zero once expired, absl::InfiniteDuration() where there is no end.
  absl::Duration Remaining() const;
  // For poll(2): milliseconds rounded up, so that a wait never ends early and
  // spins; 0 once expired, -1 for ever, at most a day.
  int PollTimeoutMillis() const;
  MonotonicTime time() const { return time_; }

  friend bool operator==(Deadline a, Deadline b) { return a.time_ == b.time_; }
  friend bool operator!=(Deadline a, Deadline b) { return a.time_ != b.time_; }

 private:
  explicit Deadline(MonotonicTime time) : time_(time) {}
  MonotonicTime time_;
};

// The one that expires first.
inline Deadline Sooner(Deadline a, Deadline b) {
  return b.time() < a.time() ? b : a;
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_DEADLINE_H_
