// What a process inherits and a daemon does not know of its client: a call in
// other surroundings than the daemon's is for the compiler itself.
#ifndef ZCBROKER_CLIENT_LAUNCHER_SURROUNDINGS_H_
#define ZCBROKER_CLIENT_LAUNCHER_SURROUNDINGS_H_

#include <cstdint>

#include "absl/status/status.h"

namespace zcbroker::client {

// OK where a compiler started by process `pid` (of group id `gid`) would make
// the same files as one started here: the same umask, group and root
// directory, and no limits here on memory, processor time or size of files.
// kFailedPrecondition with the reason. Reads two entries of
// /proc. Not while another thread makes files: the umask is set and restored.
absl::Status CheckSameSurroundings(int pid, std::uint32_t gid);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_SURROUNDINGS_H_
