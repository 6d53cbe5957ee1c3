// Which world a process lives in (docs/protocol.md, "Worlds").
#ifndef ZCBROKER_SERVICE_HOST_WORLDS_H_
#define ZCBROKER_SERVICE_HOST_WORLDS_H_

#include <string>

#include "ipc/environment.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "service/host/backend_files.h"

namespace zcbroker::service {

// Of this process, with `environment` and in `cwd`.
v1::World OwnWorld(const ipc::EnvironmentLookup& environment,
                   const std::string& cwd);

// The surroundings of backends of `world`, another one than that of `own`: the
// environment that leads there, and logs apart. Without a runtime directory.
Surroundings SurroundingsOf(const v1::World& world, const Surroundings& own);

// Of process `pid`, from the environment it was started with. What cannot be
// read becomes "unreadable", which is nobody's world. Takes a descriptor, of
// the reserve where there is no other; not within a DescriptorLoan.
v1::World WorldOfProcess(int pid);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_WORLDS_H_
