// The same, started by somebody else than the broker: it registers itself.
#include <string>

#include "client/backend_sdk/managed_backend.h"
#include "client/lease.h"

using zcbroker::client::ExitStatusOf;
using zcbroker::client::ManagedBackend;

void Echo(zcbroker::client::BackendConnection& connection) {
  std::string buffer;
  while (connection.Read(&buffer)) {
    const size_t end = buffer.rfind('\n') + 1;
    if (!connection.Write(buffer.substr(0, end))) return;
    buffer.erase(0, end);
  }
}

int main(int argc, char** argv) {
  zcbroker::client::BackendOptions options;
  if (argc > 1) options.endpoint = argv[1];
  const auto backend = ManagedBackend::Open(options);
  if (!backend.ok()) return ExitStatusOf(backend.status());
  const auto lease =
      zcbroker::client::Lease::Keep({"echo", "1.0.0", (*backend)->endpoint()});
  return ExitStatusOf((*backend)->Serve(Echo).status());
}
