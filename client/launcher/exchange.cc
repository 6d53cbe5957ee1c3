#include "client/launcher/exchange.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"
#include "ipc/wire/lane_choice.h"
#include "ipc/wire/lane_codec.h"

namespace zcbroker::client {
namespace {

using zccache::v1::Request;
using zccache::v1::Response;

constexpr std::uint64_t kRequestId = 1;

// Whether the daemon says anything at all to a Ping.
bool AnswersPing(const ipc::Endpoint& endpoint, ipc::WireLane lane,
                 ipc::Deadline deadline) {
  Request ping;
  ping.mutable_ping();
  const absl::string_view id = ipc::CanonicalRequestId(ping);
  ping.set_request_id(id.data(), id.size());
  const absl::StatusOr<std::string> bytes = ipc::Encode(lane, ping, kRequestId);
  const absl::StatusOr<ipc::UniqueFd> fd = ipc::Connect(endpoint, deadline);
  if (!bytes.ok() || !fd.ok() || !ipc::WriteAll(*fd, *bytes, deadline).ok()) {
    return false;
  }
  char byte;
  const absl::StatusOr<std::size_t> n = ipc::ReadSome(*fd, &byte, 1, deadline);
  return n.ok() && *n == 1;
}

// Of the bytes so far: a reply, kNotFound where more is needed, or kDataLoss.
absl::StatusOr<Response> Understand(absl::string_view bytes,
                                    std::size_t* needed) {
  ipc::Decoded<Response> decoded = ipc::DecodeResponse(bytes);
  switch (decoded.result) {
    case ipc::DecodeResult::kMessage:
      return std::move(decoded.message);
    case ipc::DecodeResult::kNeedMore:
      *needed = decoded.needed_bytes;
      return absl::NotFoundError("more is needed");
    default:
      return absl::DataLossError(
          absl::StrCat("the daemon's reply: ", decoded.error.message()));
  }
}

// Nothing has come and the connection is open.
bool IsSilent(const ipc::UniqueFd& fd) {
  char byte;
  return absl::IsDeadlineExceeded(
      ipc::Peek(fd, &byte, 1, ipc::Deadline::After(absl::ZeroDuration()))
          .status());
}

}  // namespace

absl::StatusOr<Response> Exchange(const ipc::UniqueFd& fd,
                                  const ipc::Endpoint& endpoint,
                                  ipc::WireLane lane, const Request& request,
                                  const IsGone& is_gone,
                                  const Patience& patience) {
  ZCB_ASSIGN_OR_RETURN(const std::string bytes,
                       ipc::Encode(lane, request, kRequestId));
  // After a while without a byte taken or given. Its last word may come while
  // we ask.
  const auto is_wedged = [&] {
    return !AnswersPing(endpoint, lane, ipc::Deadline::After(patience.ping)) &&
           IsSilent(fd) && is_gone() && IsSilent(fd);
  };
  const absl::Status wedged = absl::UnavailableError("the daemon was wedged");

  // Part of a request that a daemon does not read is a request, too: no limit.
  for (absl::string_view rest = bytes; !rest.empty();) {
    const absl::StatusOr<std::size_t> n =
        ipc::WriteSome(fd, rest, ipc::Deadline::After(patience.silence));
    if (n.ok()) {
      rest.remove_prefix(*n);
      continue;
    }
    if (!absl::IsDeadlineExceeded(n.status())) {
      return absl::AbortedError(n.status().message());
    }
    // It need not have read all to answer.
    if (!IsSilent(fd)) break;
    if (is_wedged()) return wedged;
  }

  std::string buffer;
  std::size_t used = 0;
  std::size_t needed = 4096;
  for (;;) {
    buffer.resize(std::max(needed, used + 4096));
    const absl::StatusOr<std::size_t> n =
        ipc::ReadSome(fd, &buffer[used], buffer.size() - used,
                      ipc::Deadline::After(patience.silence));
    if (n.ok() && *n > 0) {
      used += *n;
      absl::StatusOr<Response> reply =
          Understand(absl::string_view(buffer.data(), used), &needed);
      if (!absl::IsNotFound(reply.status())) return reply;
      continue;
    }
    if (!absl::IsDeadlineExceeded(n.status())) {
      return absl::AbortedError("the daemon ended before it answered");
    }
    if (is_wedged()) return wedged;
  }
}

}  // namespace zcbroker::client
