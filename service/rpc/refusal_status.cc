#include "service/rpc/refusal_status.h"

#include <string>

#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/zcbroker/v1/refusals.h"

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
    const auto millis = static_cast<int64_t>(detail.retry_after_ms());
    retry.mutable_retry_delay()->set_seconds(millis / 1000);
    retry.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(millis % 1000 * 1'000'000));
    status.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(traits.code), refused.text,
                      status.SerializeAsString());
}

}  // namespace zcbroker::service
