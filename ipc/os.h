// The operating system as data. Decisions that differ by system take it as an
// argument, so that every system's answer is tested on each of them.
#ifndef ZCBROKER_IPC_OS_H_
#define ZCBROKER_IPC_OS_H_

namespace zcbroker::ipc {

enum class Os { kLinux, kMacOs, kWindows };

// The system this program was built for.
constexpr Os HostOs() {
#if defined(_WIN32)
  return Os::kWindows;
#elif defined(__APPLE__)
  return Os::kMacOs;
#else
  return Os::kLinux;
#endif
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_OS_H_
