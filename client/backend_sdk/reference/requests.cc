#include "client/backend_sdk/reference/requests.h"

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/backend_sdk/managed_backend.h"
#include "client/backend_sdk/reference/backend.h"
#include "ipc/wire/lane_codec.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {
namespace {

using ipc::DecodeResult;
using zccache::v1::Request;
using zccache::v1::Response;

bool Send(BackendConnection& connection, const ipc::Decoded<Request>& request,
          Response& response) {
  absl::StatusOr<std::string> wire =
      ipc::Encode(request.lane, response, request.frame_request_id);
  if (!wire.ok()) {
    response.mutable_error()->set_message(
        absl::StrCat("cannot send the answer: ", wire.status().message()));
    wire = ipc::Encode(request.lane, response, request.frame_request_id);
  }
  return wire.ok() && connection.Write(*wire);
}

}  // namespace

void AnswerRequests(BackendConnection& connection, ReferenceBackend& backend,
                    const std::function<void()>& shut_down) {
  std::string buffer;
  for (;;) {
    const ipc::Decoded<Request> request = ipc::DecodeRequest(buffer);
    Response response;
    switch (request.result) {
      case DecodeResult::kNeedMore:
        if (!connection.Read(&buffer)) return;
        continue;
      case DecodeResult::kMessage:
        response = backend.Answer(request.message);
        break;
      case DecodeResult::kInvalidContent:
        response.set_request_id(request.message.request_id());
        response.mutable_error()->set_message(
            std::string(request.error.message()));
        break;
      case DecodeResult::kUnknownVersion:
        connection.Write(
            ipc::MismatchAnswer(backend.version(), request.version));
        return;
      default:
        return;
    }
    if (!Send(connection, request, response)) return;
    if (response.has_shutting_down()) {
      shut_down();
      return;
    }
    buffer.erase(0, request.consumed_bytes);
  }
}

}  // namespace zcbroker::client
