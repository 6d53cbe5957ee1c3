// The one owner of a file descriptor: closed when the object ends. A
// descriptor lives in one of these from the line it is born.
#ifndef ZCBROKER_IPC_UNIQUE_FD_H_
#define ZCBROKER_IPC_UNIQUE_FD_H_

#include <utility>

namespace zcbroker::ipc {

// Move-only. Not thread-safe, like any value.
class UniqueFd {
 public:
  UniqueFd() = default;
  // Takes ownership of `fd`; a negative value means none.
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  // -1 where there is none.
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  // Gives the descriptor away: the caller closes it.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  // Closes what it holds, then owns `fd`. errno is left as it was.
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_UNIQUE_FD_H_
