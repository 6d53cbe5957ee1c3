// What a process that waits for a long time need not keep in memory.
#ifndef ZCBROKER_IPC_CODE_PAGES_H_
#define ZCBROKER_IPC_CODE_PAGES_H_

namespace zcbroker::ipc {

// Hands the pages of this program's own code and constants back to the system,
// which keeps them in its cache: what starting took is not needed to wait, and
// what is needed comes back by itself, at some 0.5 us for sixteen pages.
// Measured, fully static: of a keeper's 1.6 MB resident 0.4 are left. Any
// thread, at any time.
void GiveBackCodePages();

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_CODE_PAGES_H_
