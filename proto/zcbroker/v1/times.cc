#include "proto/zcbroker/v1/times.h"

#include <cstdint>

namespace zcbroker {
namespace {

template <typename Proto>
Proto FromNanos(int64_t nanos) {
  Proto proto;
  proto.set_seconds(nanos / 1'000'000'000);
  proto.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return proto;
}

}  // namespace

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  return FromNanos<google::protobuf::Duration>(
      absl::ToInt64Nanoseconds(duration));
}

google::protobuf::Timestamp ToProto(absl::Time time) {
  return FromNanos<google::protobuf::Timestamp>(absl::ToUnixNanos(time));
}

}  // namespace zcbroker
