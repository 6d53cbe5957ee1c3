// What the clients of one user remember together about a mute broker, so that
// not each of them waits for it: the file `zcbroker/breaker`.
//
// Open: a client has had no sign of life from the broker, less than 5 s ago;
// nobody asks it. After that one client at a time, the prober, is let through
// and the others go on for another 5 s as before; what the prober finds closes
// the breaker or opens it again. A prober that dies is followed by another 5 s
// later. The file names the broker's socket (device and inode), so a breaker
// says nothing about another broker, and counts on the boot-time clock, so a
// suspended or set clock cannot hold it open. A broker removes it when it
// starts.
//
// Only silence opens it: a refused or missing socket costs microseconds.
// Whatever is wrong with the file, the answer is kAsk.
#ifndef ZCBROKER_IPC_BREAKER_H_
#define ZCBROKER_IPC_BREAKER_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ipc/listener.h"
#include "ipc/runtime_dir.h"

namespace zcbroker::ipc {

inline constexpr absl::Duration kBreakerTime = absl::Seconds(5);

enum class BreakerVerdict {
  kAsk,    // closed
  kProbe,  // it was open; the caller is the one to try
  kSkip,   // open
};

// One client's dealings with one broker. Keeps no state of its own but which
// socket it looked at: one object for each negotiation. Times are SinceBoot().
class Breaker {
 public:
  // `dir` must outlive it; `broker` is the path of the broker's socket.
  Breaker(const RuntimeDir& dir, std::string broker)
      : dir_(dir), broker_(std::move(broker)) {}

  // Whether to ask the broker. kProbe is given to one caller only, who tells
  // the outcome by Trip or Clear.
  BreakerVerdict Look(absl::Duration now);
  // The broker gave no sign of life: opens it for the socket that Look saw.
  void Trip(absl::Duration now);
  // The broker lives: closes it.
  void Clear();

 private:
  const RuntimeDir& dir_;
  const std::string broker_;
  absl::optional<FileIdentity> socket_;
};

// For people: what the file says, and how long ago.
struct BreakerState {
  FileIdentity socket;
  absl::Duration opened;  // since boot
};
absl::optional<BreakerState> ReadBreaker(const RuntimeDir& dir);

// For a broker that starts. OK also where there is none; else by errno.
absl::Status RemoveBreaker(const RuntimeDir& dir);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_BREAKER_H_
