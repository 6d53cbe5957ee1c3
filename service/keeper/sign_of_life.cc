#include "service/keeper/sign_of_life.h"

namespace zcbroker::service {
namespace {

ipc::MonotonicTime After(ipc::MonotonicTime now, absl::Duration pause) {
  return now + absl::ToChronoMilliseconds(pause);
}

}  // namespace

void SignOfLife::OnWaiting(ipc::MonotonicTime now) {
  next_look_ = After(now, kAcceptsWithin);
}

SignOfLife::Next SignOfLife::OnTime(ipc::MonotonicTime now,
                                    bool somebody_waits) {
  const bool late = now > After(*next_look_, kLate);
  const int asked = asked_;
  *this = SignOfLife();
  if (!somebody_waits) return Next::kNothing;
  if (asked == kMaxAsked && !late) return Next::kEnd;
  asked_ = late ? asked : asked + 1;
  next_look_ = After(now, kAnswersWithin);
  return Next::kAsk;
}

}  // namespace zcbroker::service
