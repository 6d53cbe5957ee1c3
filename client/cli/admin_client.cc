#include "client/cli/admin_client.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/broker_socket.h"
#include "client/cli/looks.h"
#include "client/cli/output.h"
#include "client/cli/own_world.h"
#include "client/fallback.h"
#include "client/framed_negotiator.h"
#include "client/grpc_negotiator.h"
#include "grpcpp/create_channel_posix.h"
#include "grpcpp/grpcpp.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/instance_lock.h"
#include "ipc/peer_identity.h"
#include "ipc/runtime_dir.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/admin.grpc.pb.h"

namespace zcbroker::cli {
namespace {

using client::FallbackReason;
using client::WithFallbackReason;

constexpr absl::Duration kContact = absl::Milliseconds(500);
// Under 128 compilers a healthy broker takes half a second.
constexpr absl::Duration kHealth = absl::Seconds(2);
constexpr std::chrono::seconds kPatience(12);

absl::Status ToStatus(const grpc::Status& status) {
  const absl::optional<absl::Status> refusal = client::RefusalFrom(
      status.error_code(), status.error_message(), status.error_details());
  if (refusal.has_value()) return *refusal;
  const std::string text =
      absl::StrCat("the broker failed the call: ", status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return WithFallbackReason(absl::DeadlineExceededError(text),
                                FallbackReason::kBrokerSlow);
    case grpc::StatusCode::UNAVAILABLE:
    // A call that reaches a server in its last moment.
    case grpc::StatusCode::CANCELLED:
      return WithFallbackReason(absl::AbortedError(text),
                                FallbackReason::kBrokerClosed);
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::UnimplementedError(
          absl::StrCat("this broker cannot do that: ", status.error_message()));
    default:
      return WithFallbackReason(absl::DataLossError(text),
                                FallbackReason::kBrokerGarbage);
  }
}

class GrpcAdminClient : public AdminClient {
 public:
  GrpcAdminClient(std::string endpoint, ipc::UniqueFd fd)
      : endpoint_(std::move(endpoint)) {
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
    stub_ = v1::Admin::NewStub(grpc::CreateCustomInsecureChannelFromFd(
        "zcbroker", fd.release(), arguments));
  }

  const std::string& endpoint() const override { return endpoint_; }

  absl::StatusOr<v1::GetStatusResponse> GetStatus() override {
    return Call<v1::GetStatusResponse>(&v1::Admin::Stub::GetStatus,
                                       v1::GetStatusRequest());
  }
  absl::StatusOr<v1::ListBackendsResponse> ListBackends() override {
    return Call<v1::ListBackendsResponse>(&v1::Admin::Stub::ListBackends,
                                          v1::ListBackendsRequest());
  }
  absl::StatusOr<v1::GetMetricsResponse> GetMetrics() override {
    return Call<v1::GetMetricsResponse>(&v1::Admin::Stub::GetMetrics,
                                        v1::GetMetricsRequest());
  }
  absl::StatusOr<v1::Backend> StartBackend(
      const std::string& service, const std::string& version) override {
    return CallAbout<v1::StartBackendRequest, v1::StartBackendResponse>(
        &v1::Admin::Stub::StartBackend, service, version);
  }
  absl::StatusOr<v1::Backend> StopBackend(const std::string& service,
                                          const std::string& version) override {
    return CallAbout<v1::StopBackendRequest, v1::StopBackendResponse>(
        &v1::Admin::Stub::StopBackend, service, version);
  }
  absl::StatusOr<v1::Backend> DrainBackend(
      const std::string& service, const std::string& version) override {
    return CallAbout<v1::DrainBackendRequest, v1::DrainBackendResponse>(
        &v1::Admin::Stub::DrainBackend, service, version);
  }
  absl::StatusOr<v1::ReloadDefinitionsResponse> ReloadDefinitions() override {
    return Call<v1::ReloadDefinitionsResponse>(
        &v1::Admin::Stub::ReloadDefinitions, v1::ReloadDefinitionsRequest());
  }
  absl::Status StreamEvents(
      uint64_t after, bool follow,
      const std::function<bool(const v1::Event&)>& tell) override {
    grpc::ClientContext context;
    if (!follow) {
      context.set_deadline(std::chrono::system_clock::now() + kPatience);
    }
    v1::StreamEventsRequest request;
    request.set_after(after);
    request.set_follow(follow);
    const auto reader = stub_->StreamEvents(&context, request);
    bool more = true;
    v1::StreamEventsResponse response;
    while (more && reader->Read(&response)) {
      for (const v1::Event& event : response.events()) {
        more = more && tell(event);
      }
    }
    if (!more) context.TryCancel();
    const grpc::Status status = reader->Finish();
    return status.ok() || !more ? absl::OkStatus() : ToStatus(status);
  }
  absl::StatusOr<v1::ShutdownResponse> Shutdown(
      v1::ShutdownRequest::Backends backends) override {
    v1::ShutdownRequest request;
    request.set_backends(backends);
    return Call<v1::ShutdownResponse>(&v1::Admin::Stub::Shutdown, request);
  }

 private:
  template <typename Request, typename Response, typename Method>
  absl::StatusOr<v1::Backend> CallAbout(Method method,
                                        const std::string& service,
                                        const std::string& version) {
    Request request;
    request.set_service(service);
    request.set_version(version);
    *request.mutable_world() = client::ToProto(OwnWorld());
    ZCB_ASSIGN_OR_RETURN(const Response response,
                         Call<Response>(method, request));
    return response.backend();
  }

  template <typename Response, typename Method, typename Request>
  absl::StatusOr<Response> Call(Method method, const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    Response response;
    const grpc::Status status =
        ((*stub_).*method)(&context, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }

  const std::string endpoint_;
  std::unique_ptr<v1::Admin::Stub> stub_;
};

// A socket that a keeper has held names the broker that was first.
int WhoIsMute(const ipc::EnvironmentLookup& environment,
              const ipc::UniqueFd& connection) {
  const auto dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(environment));
  if (dir.ok()) {
    const absl::StatusOr<int> holder = ipc::InstanceLock::LastHolder(*dir);
    if (holder.ok()) return *holder;
  }
  const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(connection);
  return peer.ok() ? static_cast<int>(peer->pid) : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Connect(
    const ipc::EnvironmentLookup& environment) {
  ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint endpoint,
                       client::FindBroker(environment));
  ZCB_ASSIGN_OR_RETURN(
      ipc::UniqueFd fd,
      client::ConnectBroker(endpoint, ipc::Deadline::After(kContact)));
  // A stopped broker would keep gRPC waiting for as long as it may.
  const absl::Status health =
      client::CheckBrokerHealth(endpoint, ipc::Deadline::After(kHealth));
  if (!health.ok() &&
      client::FallbackReasonOf(health) == FallbackReason::kBrokerMute) {
    const int pid = WhoIsMute(environment, fd);
    return WithFallbackReason(
        absl::DeadlineExceededError(absl::StrCat(
            "the broker at ", endpoint.path(), " gives no sign of life",
            pid > 0
                ? absl::StrCat(
                      "; look at process ", pid,
                      KeeperOf(pid) != 0
                          ? ", or end it: its keeper starts another"
                          : absl::StrCat(", or end it, then: ", UpCommand()))
                : "")),
        FallbackReason::kBrokerMute);
  }
  return std::unique_ptr<AdminClient>(
      new GrpcAdminClient(endpoint.path(), std::move(fd)));
}

}  // namespace zcbroker::cli
