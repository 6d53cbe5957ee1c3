// The reference backend as a program: see --help, and requests.h for what it
// speaks.
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_PROGRAM_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_PROGRAM_H_

#include <functional>
#include <memory>
#include <string>

namespace zcbroker::client {

// Registers with the broker (client/lease.h) until what it returns is released.
// `say` gets a line about each change, on any thread.
using KeepLease = std::function<std::shared_ptr<void>(
    const std::string& service, const std::string& version,
    const std::string& endpoint, std::function<void(const std::string&)> say)>;

// Serves until it is stopped; returns the exit status. Without `keep_lease`
// there is no --register: that takes gRPC, which a backend needs for nothing
// else.
int RunReferenceBackend(int argc, char** argv, const KeepLease& keep_lease);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_PROGRAM_H_
