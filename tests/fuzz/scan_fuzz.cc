// What the relay makes of zccache's messages without decoding them.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire/message_scan.h"
#include "proto/zccache/v1/zccache.pb.h"
#include "tests/fuzz/property.h"

namespace zcbroker::ipc {
namespace {

// Where the decoder understands a message, the scan says the same of it, and
// an answer in the daemon's place is a message of its own.
void Check(absl::string_view bytes) {
  const MessageExtent extent = MeasureMessage(bytes);
  const auto decoded = DecodeRequest(bytes);
  if (decoded.result == DecodeResult::kMessage) {
    ZCB_PROPERTY(extent.kind == MessageExtent::Kind::kMessage);
    ZCB_PROPERTY(extent.bytes == decoded.consumed_bytes);
  }
  if (extent.kind != MessageExtent::Kind::kMessage ||
      extent.bytes > bytes.size()) {
    return;
  }
  const absl::string_view message = bytes.substr(0, extent.bytes);
  const RequestSummary summary = SummarizeRequest(message);
  IsInterimReply(message);
  if (decoded.result == DecodeResult::kMessage) {
    if (summary.kind == RequestKind::kStatus) {
      ZCB_PROPERTY(decoded.message.has_status());
    }
    if (summary.kind == RequestKind::kShutdown) {
      ZCB_PROPERTY(decoded.message.has_shutdown());
    }
    if (summary.repeatable()) {
      ZCB_PROPERTY(!decoded.message.has_store() &&
                   !decoded.message.has_clear() &&
                   !decoded.message.has_generic_tool_exec());
    }
  }
  for (const std::string& reply :
       {ShuttingDownReply(summary),
        FreshStatusReply(summary, "1.0.0", "default", "/s", "/c")}) {
    if (reply.empty()) continue;
    const MessageExtent answer = MeasureMessage(reply);
    ZCB_PROPERTY(answer.kind == MessageExtent::Kind::kMessage);
    ZCB_PROPERTY(answer.bytes == reply.size());
  }
}

}  // namespace
}  // namespace zcbroker::ipc

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);
  zcbroker::ipc::Check(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
