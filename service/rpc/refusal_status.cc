#include "service/rpc/refusal_status.h"

#include <string>

#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/zcbroker/v1/refusals.h"
#include "proto/zcbroker/v1/times.h"

namespace zcbroker::service {

grpc::Status ToGrpcStatus(const Refused& refused) {
  const RefusalTraits& traits = TraitsOf(refused.refusal());
  const v1::RefusalDetail& detail = refused.detail;

  google::rpc::ErrorInfo info;
  info.set_reason(std::string(traits.name));
  info.set_domain(kErrorDomain);
  auto& metadata = *info.mutable_metadata();
  metadata["service"] = detail.service();
  metadata["version"] = detail.version();
  if (!detail.installed_versions().empty()) {
    metadata["installed_versions"] =
        absl::StrJoin(detail.installed_versions(), ",");
  }

  google::rpc::Status status;
  status.set_code(static_cast<int>(traits.code));
  status.set_message(refused.text);
  status.add_details()->PackFrom(info);
  status.add_details()->PackFrom(detail);
  if (traits.retry == Retry::kAfterDelay) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() =
        ToProto(absl::Milliseconds(detail.retry_after_ms()));
    status.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(traits.code), refused.text,
                      status.SerializeAsString());
}

}  // namespace zcbroker::service
