// How the broker and its keeper speak: the keeper, the broker's parent, holds
// every listening socket, so that the sockets outlive a broker that dies and
// clients wait in their backlogs for the next one.
//
// One pair of packet sockets (ipc/fd_passing.h); the broker finds the number of
// its end in ZCBROKER_KEEPER_FD. A packet is
//   byte 0   kKeeperProtocol
//   byte 1   what it says, KeeperMessage::Kind
//   byte 2   flags; 1: the socket came from a service manager
//   the rest the name of a socket: its path, as clients find it
// and the socket itself is attached to kHold and kHeld. Keeper to broker, at
// its start: kHeld for each, then kEndOfHeld; after that only kAsk, and only to
// a broker that has said kHere. Broker to keeper: kHold, kDrop, kHere, kReady,
// and last kHandedOver. A kind that the reader does not know is passed over, so
// that keeper and broker may be of different versions.
#ifndef ZCBROKER_IPC_KEEPER_CHANNEL_H_
#define ZCBROKER_IPC_KEEPER_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/deadline.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

inline constexpr char kKeeperFdVariable[] = "ZCBROKER_KEEPER_FD";
inline constexpr std::uint8_t kKeeperProtocol = 1;
// More are refused, by the broker's end and by the keeper.
inline constexpr std::size_t kMaxHeldSockets = 1024;

struct KeeperMessage {
  enum class Kind : std::uint8_t {
    kHold = 1,        // keep this socket under this name, instead of another
    kDrop = 2,        // close the socket of that name
    kReady = 3,       // the broker serves
    kHeld = 4,        // this socket is kept under this name
    kEndOfHeld = 5,   // that was all
    kHandedOver = 6,  // start the next one; this one ends what it has begun
    kAsk = 7,         // does the broker still serve?
    kHere = 8,        // it does; said unasked first: it may be asked
  };
  Kind kind = Kind::kReady;
  std::string name;
  bool from_service_manager = false;

  friend bool operator==(const KeeperMessage& a, const KeeperMessage& b) {
    return a.kind == b.kind && a.name == b.name &&
           a.from_service_manager == b.from_service_manager;
  }
};

std::string EncodeKeeperMessage(const KeeperMessage& message);
// Nothing for a kind that is not known. kInvalidArgument where it is no such
// message: too short, another protocol, a name that is missing, not allowed,
// not an absolute path or over 107 bytes.
absl::StatusOr<absl::optional<KeeperMessage>> DecodeKeeperMessage(
    absl::string_view bytes);

struct HeldSocket {
  std::string name;
  UniqueFd fd;
  // It is the service manager's: its name in the file system stays when the
  // broker ends.
  bool from_service_manager = false;
};

// One end, with a queue of what did not fit yet. Move-only, not thread-safe.
class KeeperLink {
 public:
  explicit KeeperLink(UniqueFd fd) : fd_(std::move(fd)) {}

  // Sends it now if it fits and nothing waits before it, else queues it with a
  // duplicate of `attached` (negative: none), which stays the caller's. Never
  // waits. Errors: kAborted (the peer is gone), kResourceExhausted.
  absl::Status Send(const KeeperMessage& message, int attached = -1);
  // Sends of the queue what fits. Errors as above.
  absl::Status Flush();
  // Whether something is queued: poll for writing, then Flush.
  bool wants_write() const { return !queue_.empty(); }

  struct Received {
    KeeperMessage message;
    UniqueFd attached;
  };
  // The next message, or nothing if none waits. Packets that are no message,
  // or are of an unknown kind, are dropped. kAborted once the peer is gone.
  absl::StatusOr<absl::optional<Received>> Receive();

  const UniqueFd& fd() const { return fd_; }

 private:
  struct Queued {
    std::string bytes;
    UniqueFd attached;
  };
  UniqueFd fd_;
  std::deque<Queued> queue_;
};

// The broker's end. Move-only, not thread-safe; never waits but in TakeHeld.
class KeeperChannel {
 public:
  // The end named in ZCBROKER_KEEPER_FD, which is then taken out of the
  // environment; nothing where it is not set. Call once, before other threads
  // exist. kInvalidArgument where it names no such socket.
  static absl::StatusOr<absl::optional<KeeperChannel>> FromEnvironment();
  // Over an end given otherwise.
  explicit KeeperChannel(UniqueFd fd) : link_(std::move(fd)) {}

  // What the keeper holds, first; waits for the end of the list. Names are
  // unique; whether each is a listening socket is for the caller to see
  // (Listener::Adopt). Errors: kAborted (the keeper is gone),
  // kDeadlineExceeded.
  absl::StatusOr<std::vector<HeldSocket>> TakeHeld(Deadline deadline);

  // Hands over a duplicate of `fd`, a listening socket found at the path
  // `name`; one held under that name before is let go. Errors:
  // kInvalidArgument (no absolute path of at most 107 bytes),
  // kResourceExhausted (kMaxHeldSockets are held, or out of memory or
  // descriptors), kAborted (the keeper is gone).
  absl::Status Hold(const std::string& name, const UniqueFd& fd) {
    return Hold(name, fd.get());
  }
  absl::Status Hold(const std::string& name, int fd);
  // Has the socket closed. One that is not held is no error. kAborted.
  absl::Status Drop(const std::string& name);
  // The broker serves: from now on its death is mended by a restart. kAborted.
  absl::Status Ready();

  // The keeper may ask from now on whether the broker still serves. It ends one
  // that is silent while clients wait (service/keeper/sign_of_life.h): whenever
  // fd() is readable, call AnswerWhatIsAsked from the thread that serves.
  // kAborted.
  absl::Status Here();
  // Reads what the keeper says, and answers it. kAborted once it is gone.
  absl::Status AnswerWhatIsAsked();

  // Another broker is to be started now: it has the place. Nothing after it.
  // kAborted.
  absl::Status HandedOver();

  // For polling. Readable after TakeHeld means that it asks, after Here, or
  // that it is gone: go on without. While wants_write(), poll for writing too
  // and call Flush.
  int fd() const { return link_.fd().get(); }
  bool wants_write() const { return link_.wants_write(); }
  absl::Status Flush() { return link_.Flush(); }

 private:
  absl::Status Say(KeeperMessage::Kind kind);

  KeeperLink link_;
  std::set<std::string> held_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_KEEPER_CHANNEL_H_
