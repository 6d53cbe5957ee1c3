// A refusal as gRPC carries it: google.rpc.Status with ErrorInfo, our
// RefusalDetail and, where a retry can help, RetryInfo.
#ifndef ZCBROKER_SERVICE_RPC_REFUSAL_STATUS_H_
#define ZCBROKER_SERVICE_RPC_REFUSAL_STATUS_H_

#include "grpcpp/support/status.h"
#include "service/core/outcome.h"

namespace zcbroker::service {

grpc::Status ToGrpcStatus(const Refused& refused);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_RPC_REFUSAL_STATUS_H_
