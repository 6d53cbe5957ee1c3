// The Admin service of this user's broker, as functions.
#ifndef ZCBROKER_CLIENT_CLI_ADMIN_CLIENT_H_
#define ZCBROKER_CLIENT_CLI_ADMIN_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ipc/environment.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

// One connection, made by ourselves and its owner checked before gRPC has it.
// Errors of all: those of client::FindBroker and client::ConnectBroker with
// their reasons; kBrokerSlow (no answer within 12 s), kBrokerClosed,
// kBrokerGarbage. Of those about one backend also the broker's refusals, as
// client::RefusalFrom gives them.
class AdminClient {
 public:
  static absl::StatusOr<std::unique_ptr<AdminClient>> Connect(
      const ipc::EnvironmentLookup& environment);
  virtual ~AdminClient() = default;

  virtual const std::string& endpoint() const = 0;
  virtual absl::StatusOr<v1::GetStatusResponse> GetStatus() = 0;
  virtual absl::StatusOr<v1::ListBackendsResponse> ListBackends() = 0;
  virtual absl::StatusOr<v1::GetMetricsResponse> GetMetrics() = 0;
  // The backend as it is when the broker answers: within 10 s.
  virtual absl::StatusOr<v1::Backend> StartBackend(
      const std::string& service, const std::string& version) = 0;
  virtual absl::StatusOr<v1::Backend> StopBackend(
      const std::string& service, const std::string& version) = 0;
  virtual absl::StatusOr<v1::Backend> DrainBackend(
      const std::string& service, const std::string& version) = 0;
  virtual absl::StatusOr<v1::ReloadDefinitionsResponse> ReloadDefinitions() = 0;
  // Calls `tell` with what has happened after the event of that number, in
  // order; with `follow` also with what happens from now on, for as long as
  // `tell` wants more and the broker lives: then SHUTTING_DOWN.
  virtual absl::Status StreamEvents(
      uint64_t after, bool follow,
      const std::function<bool(const v1::Event&)>& tell) = 0;
  virtual absl::StatusOr<v1::ShutdownResponse> Shutdown(
      v1::ShutdownRequest::Backends backends) = 0;
};

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_ADMIN_CLIENT_H_
