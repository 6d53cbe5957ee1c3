// Whether the broker still serves, judged by who waits for it. It costs nothing
// while nobody waits, and one look a second while many come. A value without a
// clock: times are arguments.
#ifndef ZCBROKER_SERVICE_KEEPER_SIGN_OF_LIFE_H_
#define ZCBROKER_SERVICE_KEEPER_SIGN_OF_LIFE_H_

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ipc/clock.h"

namespace zcbroker::service {

// quiet ──somebody waits──▶ looked away ──kAcceptsWithin later, somebody
// does──▶ asked ──silent for kAnswersWithin──▶ asked once more ──silent──▶ to
// be ended
//
// An answer, or nobody waiting any more, leads back to quiet from anywhere. A
// broker that is at a limit, or short of descriptors, answers while it leaves
// clients waiting. A look that comes late asks once more: the keeper was
// stopped itself, and the broker perhaps with it.
class SignOfLife {
 public:
  // A broker that is well accepts within microseconds; under load some client
  // or other waits whenever one looks.
  static constexpr absl::Duration kAcceptsWithin = absl::Seconds(1);
  static constexpr absl::Duration kAnswersWithin = absl::Seconds(4);
  static constexpr int kMaxAsked = 2;
  static constexpr absl::Duration kLate = absl::Seconds(1);

  enum class Next { kNothing, kAsk, kEnd };

  // Whether OnWaiting is to be called as soon as a client waits.
  bool quiet() const { return !next_look_.has_value(); }
  // When to call OnTime; nothing while quiet.
  const absl::optional<ipc::MonotonicTime>& next_look() const {
    return next_look_;
  }

  // A client waits; only while quiet.
  void OnWaiting(ipc::MonotonicTime now);
  // The next look is due, and somebody waits at that moment or nobody does.
  Next OnTime(ipc::MonotonicTime now, bool somebody_waits);
  // The broker has given a sign of life.
  void OnAnswer() { *this = SignOfLife(); }

 private:
  absl::optional<ipc::MonotonicTime> next_look_;
  int asked_ = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_SIGN_OF_LIFE_H_
