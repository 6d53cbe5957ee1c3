// A socket that another user listens on, for tests of who may be trusted.
#ifndef ZCBROKER_IPC_TESTING_FOREIGN_LISTENER_H_
#define ZCBROKER_IPC_TESTING_FOREIGN_LISTENER_H_

#include <cstdint>
#include <string>

namespace zcbroker::ipc {

// A child process that became uid 65534, listens at a path and accepts
// nothing. Ends with the object. REQUIRES: running as root; the directory lets
// that user create entries and us search it.
class ForeignListener {
 public:
  static constexpr std::uint32_t kUid = 65534;

  // Whether this process may become another user at all.
  static bool IsPossible();

  // Listens when it returns. Aborts where it cannot.
  explicit ForeignListener(const std::string& path);
  ~ForeignListener();
  ForeignListener(const ForeignListener&) = delete;
  ForeignListener& operator=(const ForeignListener&) = delete;

 private:
  int pid_;
};

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_TESTING_FOREIGN_LISTENER_H_
