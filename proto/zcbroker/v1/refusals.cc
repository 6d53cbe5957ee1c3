#include "proto/zcbroker/v1/refusals.h"

#include <cstdlib>

namespace zcbroker {
namespace {

using absl::StatusCode;

constexpr RefusalTraits kRefusals[] = {
    {v1::REFUSAL_SERVICE_NAME_INVALID, "SERVICE_NAME_INVALID",
     StatusCode::kInvalidArgument, 6, Retry::kNo, 2},
    {v1::REFUSAL_VERSION_INVALID, "VERSION_INVALID",
     StatusCode::kInvalidArgument, 6, Retry::kNo, 2},
    {v1::REFUSAL_SERVICE_UNKNOWN, "SERVICE_UNKNOWN", StatusCode::kNotFound, 2,
     Retry::kNo, 4},
    {v1::REFUSAL_VERSION_NOT_INSTALLED, "VERSION_NOT_INSTALLED",
     StatusCode::kNotFound, 1, Retry::kNo, 5},
    {v1::REFUSAL_VERSION_BLOCKED, "VERSION_BLOCKED",
     StatusCode::kFailedPrecondition, 8, Retry::kNo, 6},
    {v1::REFUSAL_WORLD_MISMATCH, "WORLD_MISMATCH",
     StatusCode::kFailedPrecondition, 6, Retry::kNo, 7},
    {v1::REFUSAL_BACKEND_START_FAILED, "BACKEND_START_FAILED",
     StatusCode::kUnavailable, 3, Retry::kAfterDelay, 8},
    {v1::REFUSAL_BACKEND_BROKEN, "BACKEND_BROKEN",
     StatusCode::kFailedPrecondition, 3, Retry::kNo, 9},
    {v1::REFUSAL_RATE_LIMITED, "RATE_LIMITED", StatusCode::kResourceExhausted,
     4, Retry::kAfterDelay, 10},
    {v1::REFUSAL_FD_PRESSURE, "FD_PRESSURE", StatusCode::kResourceExhausted, 9,
     Retry::kAfterDelay, 10},
    {v1::REFUSAL_SHUTTING_DOWN, "SHUTTING_DOWN", StatusCode::kUnavailable, 5,
     Retry::kAfterDelay, 11},
    {v1::REFUSAL_PEER_REJECTED, "PEER_REJECTED", StatusCode::kPermissionDenied,
     0, Retry::kNo, 12},
    {v1::REFUSAL_LANE_UNSUPPORTED, "LANE_UNSUPPORTED",
     StatusCode::kFailedPrecondition, 1, Retry::kNo, 13},
    {v1::REFUSAL_BACKEND_EXISTS, "BACKEND_EXISTS", StatusCode::kAlreadyExists,
     0, Retry::kNo, 14},
    {v1::REFUSAL_REGISTRATION_INVALID, "REGISTRATION_INVALID",
     StatusCode::kFailedPrecondition, 0, Retry::kNo, 15},
};

}  // namespace

absl::Span<const RefusalTraits> Refusals() { return kRefusals; }

const RefusalTraits& TraitsOf(v1::Refusal refusal) {
  for (const RefusalTraits& row : kRefusals) {
    if (row.refusal == refusal) return row;
  }
  std::abort();
}

const RefusalTraits* FindRefusal(absl::string_view name) {
  for (const RefusalTraits& row : kRefusals) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace zcbroker
