#include "ipc/testing/foreign_listener.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "ipc/unique_fd.h"

namespace zcbroker::ipc {
namespace {

// Runs between fork and exit of a process that may have had threads: system
// calls only.
[[noreturn]] void Listen(const sockaddr_un& address, int ready_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  umask(0);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (setuid(ForeignListener::kUid) != 0 ||
      bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
          0 ||
      listen(fd, 16) != 0 || write(ready_fd, "r", 1) != 1) {
    _exit(1);
  }
  for (;;) pause();
}

}  // namespace

bool ForeignListener::IsPossible() { return geteuid() == 0; }

ForeignListener::ForeignListener(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  pid_ = fork();
  if (pid_ == 0) Listen(address, write_end.get());
  write_end.reset();
  char byte;
  if (read(read_end.get(), &byte, 1) != 1) {
    std::fprintf(stderr, "foreign listener: cannot listen at %s\n",
                 path.c_str());
    std::abort();
  }
}

ForeignListener::~ForeignListener() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

}  // namespace zcbroker::ipc
