#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ipc/breaker.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {
namespace {

constexpr char kLeaf[] = "breaker";
constexpr char kMark[8] = {'z', 'c', 'b', 'b', 'r', 'k', '0', '1'};

// In the byte order of the machine, which the file never leaves.
struct Layout {
  char mark[8];
  std::uint64_t device;
  std::uint64_t inode;
  std::int64_t opened_micros;
};
static_assert(sizeof(Layout) == 32);

UniqueFd OpenBreaker(const RuntimeDir& dir, int flags) {
  UniqueFd fd(openat(dir.fd(), kLeaf,
                     flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  struct stat info;
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) ||
      info.st_uid != geteuid()) {
    return UniqueFd();
  }
  return fd;
}

absl::optional<BreakerState> ReadFrom(const UniqueFd& fd) {
  Layout layout;
  if (!fd ||
      pread(fd.get(), &layout, sizeof(layout), 0) !=
          static_cast<ssize_t>(sizeof(layout)) ||
      std::memcmp(layout.mark, kMark, sizeof(kMark)) != 0) {
    return absl::nullopt;
  }
  BreakerState state;
  state.socket = {layout.device, layout.inode};
  state.opened = absl::Microseconds(layout.opened_micros);
  return state;
}

void WriteTo(const UniqueFd& fd, const BreakerState& state) {
  Layout layout = {};
  std::memcpy(layout.mark, kMark, sizeof(kMark));
  layout.device = state.socket.device;
  layout.inode = state.socket.inode;
  layout.opened_micros = absl::ToInt64Microseconds(state.opened);
  // In one piece or, on a full disk, none that is read again.
  if (pwrite(fd.get(), &layout, sizeof(layout), 0) < 0) return;
}

// Opened less than kBreakerTime before `now`; one from after `now` is left
// from before a boot.
bool IsFresh(const BreakerState& state, absl::Duration now) {
  return state.opened <= now && now - state.opened < kBreakerTime;
}

}  // namespace

BreakerVerdict Breaker::Look(absl::Duration now) {
  const absl::StatusOr<FileIdentity> socket = IdentifyFile(broker_);
  if (!socket.ok()) return BreakerVerdict::kAsk;
  socket_ = *socket;
  const UniqueFd fd = OpenBreaker(dir_, O_RDWR);
  absl::optional<BreakerState> state = ReadFrom(fd);
  if (!state.has_value() || state->socket != *socket_) {
    return BreakerVerdict::kAsk;
  }
  if (IsFresh(*state, now)) return BreakerVerdict::kSkip;
  // Who has the lock first becomes the prober and says so in the file; the
  // lock goes with the descriptor.
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return BreakerVerdict::kSkip;
  state = ReadFrom(fd);
  if (!state.has_value() || state->socket != *socket_) {
    return BreakerVerdict::kAsk;
  }
  if (IsFresh(*state, now)) return BreakerVerdict::kSkip;
  WriteTo(fd, BreakerState{*socket_, now});
  return BreakerVerdict::kProbe;
}

void Breaker::Trip(absl::Duration now) {
  if (!socket_.has_value()) return;
  const UniqueFd fd = OpenBreaker(dir_, O_RDWR | O_CREAT);
  // Somebody else is just writing the same.
  if (!fd || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return;
  WriteTo(fd, BreakerState{*socket_, now});
}

void Breaker::Clear() { RemoveBreaker(dir_).IgnoreError(); }

absl::optional<BreakerState> ReadBreaker(const RuntimeDir& dir) {
  return ReadFrom(OpenBreaker(dir, O_RDONLY));
}

absl::Status RemoveBreaker(const RuntimeDir& dir) {
  if (unlinkat(dir.fd(), kLeaf, 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, absl::StrCat("remove ", dir.Entry(kLeaf)));
}

}  // namespace zcbroker::ipc
