// Durations and points in time, between protobuf's form and Abseil's.
#ifndef ZCBROKER_PROTO_ZCBROKER_V1_TIMES_H_
#define ZCBROKER_PROTO_ZCBROKER_V1_TIMES_H_

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace zcbroker {

absl::Duration FromProto(const google::protobuf::Duration& duration);
absl::Time FromProto(const google::protobuf::Timestamp& time);
// Not negative, and not infinite.
google::protobuf::Duration ToProto(absl::Duration duration);
// From 1970 on.
google::protobuf::Timestamp ToProto(absl::Time time);

}  // namespace zcbroker

#endif  // ZCBROKER_PROTO_ZCBROKER_V1_TIMES_H_
