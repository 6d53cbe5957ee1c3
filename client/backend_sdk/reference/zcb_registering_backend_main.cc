// zcb-registering-backend: the reference backend that can register itself. A
// program of its own, since gRPC makes one ten times larger.
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "client/backend_sdk/reference/program.h"
#include "client/lease.h"

namespace zcbroker::client {
namespace {

std::shared_ptr<void> Register(const std::string& service,
                               const std::string& version,
                               const std::string& endpoint,
                               std::function<void(const std::string&)> say) {
  return Lease::Keep(
      {service, version, endpoint},
      [say = std::move(say)](const absl::Status& status) {
        say(status.ok() ? "registered"
                        : "not registered: " + std::string(status.message()));
      });
}

}  // namespace
}  // namespace zcbroker::client

int main(int argc, char** argv) {
  return zcbroker::client::RunReferenceBackend(argc, argv,
                                               zcbroker::client::Register);
}
