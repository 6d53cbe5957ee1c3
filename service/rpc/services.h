// The gRPC services in front of the rules: they turn calls into questions to
// the BrokerPort and decide nothing.
#ifndef ZCBROKER_SERVICE_RPC_SERVICES_H_
#define ZCBROKER_SERVICE_RPC_SERVICES_H_

#include "proto/zcbroker/v1/admin.grpc.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "service/core/broker_port.h"

namespace zcbroker::service {

// RPCs that are not overridden answer UNIMPLEMENTED. Thread-safe; `port`
// outlives every call.
class BrokerService final : public v1::Broker::CallbackService {
 public:
  explicit BrokerService(BrokerPort& port) : port_(port) {}

  grpc::ServerUnaryReactor* Negotiate(grpc::CallbackServerContext* context,
                                      const v1::NegotiateRequest* request,
                                      v1::NegotiateResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchRoutesResponse>* WatchRoutes(
      grpc::CallbackServerContext* context,
      const v1::WatchRoutesRequest* request) override;
  grpc::ServerUnaryReactor* ReportBackend(
      grpc::CallbackServerContext* context,
      const v1::ReportBackendRequest* request,
      v1::ReportBackendResponse* response) override;
  grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>* Register(
      grpc::CallbackServerContext* context) override;

 private:
  BrokerPort& port_;
};

class AdminService final : public v1::Admin::CallbackService {
 public:
  explicit AdminService(BrokerPort& port) : port_(port) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* ListBackends(
      grpc::CallbackServerContext* context,
      const v1::ListBackendsRequest* request,
      v1::ListBackendsResponse* response) override;
  grpc::ServerUnaryReactor* StartBackend(
      grpc::CallbackServerContext* context,
      const v1::StartBackendRequest* request,
      v1::StartBackendResponse* response) override;
  grpc::ServerUnaryReactor* StopBackend(
      grpc::CallbackServerContext* context,
      const v1::StopBackendRequest* request,
      v1::StopBackendResponse* response) override;
  grpc::ServerUnaryReactor* DrainBackend(
      grpc::CallbackServerContext* context,
      const v1::DrainBackendRequest* request,
      v1::DrainBackendResponse* response) override;
  grpc::ServerUnaryReactor* GetMetrics(
      grpc::CallbackServerContext* context,
      const v1::GetMetricsRequest* request,
      v1::GetMetricsResponse* response) override;
  grpc::ServerUnaryReactor* ReloadDefinitions(
      grpc::CallbackServerContext* context,
      const v1::ReloadDefinitionsRequest* request,
      v1::ReloadDefinitionsResponse* response) override;
  grpc::ServerWriteReactor<v1::StreamEventsResponse>* StreamEvents(
      grpc::CallbackServerContext* context,
      const v1::StreamEventsRequest* request) override;
  grpc::ServerUnaryReactor* Shutdown(grpc::CallbackServerContext* context,
                                     const v1::ShutdownRequest* request,
                                     v1::ShutdownResponse* response) override;

 private:
  BrokerPort& port_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_RPC_SERVICES_H_
