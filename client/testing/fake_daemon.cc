#include "client/testing/fake_daemon.h"

#include <array>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/wire/lane_codec.h"

namespace zcbroker::client {

using zccache::v1::Request;
using zccache::v1::Response;

FakeDaemon::FakeDaemon(const std::string& path, Handler handler)
    : handler_(std::move(handler)),
      server_(path,
              [this](ipc::UniqueFd& connection, int) { Serve(connection); }) {}

FakeDaemon::Handler FakeDaemon::Answering(const std::string& version) {
  return [version](const Request& request) {
    Response response;
    if (request.has_ping()) {
      response.mutable_pong();
    } else if (request.has_status()) {
      response.mutable_status()->set_version(version);
      response.mutable_status()->mutable_private_daemon();
      response.mutable_status()->mutable_cache_dir();
    } else {
      response.mutable_error()->set_message("not served here");
    }
    return response;
  };
}

std::vector<Request> FakeDaemon::requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

void FakeDaemon::Serve(ipc::UniqueFd& connection) {
  std::string buffer;
  std::array<char, 4096> chunk;
  for (;;) {
    const absl::StatusOr<std::size_t> n = ipc::ReadSome(
        connection, chunk.data(), chunk.size(), ipc::Deadline::Infinite());
    if (!n.ok() || *n == 0) return;
    buffer.append(chunk.data(), *n);
    for (;;) {
      const ipc::Decoded<Request> decoded = ipc::DecodeRequest(buffer);
      if (decoded.result == ipc::DecodeResult::kNeedMore) break;
      if (decoded.result != ipc::DecodeResult::kMessage) return;
      buffer.erase(0, decoded.consumed_bytes);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        requests_.push_back(decoded.message);
      }
      Response response = handler_(decoded.message);
      response.set_request_id(decoded.message.request_id());
      const absl::StatusOr<std::string> bytes =
          ipc::Encode(decoded.lane, response, decoded.frame_request_id);
      if (!bytes.ok() ||
          !ipc::WriteAll(connection, *bytes, ipc::Deadline::Infinite()).ok()) {
        return;
      }
    }
  }
}

}  // namespace zcbroker::client
