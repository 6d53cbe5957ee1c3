#include "ipc/wire/lane_choice.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/wire_lane.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {

using zccache::v1::Request;

bool IsControlRequest(const Request& request) {
  switch (request.body_case()) {
    case Request::kPing:
    case Request::kStatus:
    case Request::kShutdown:
    case Request::kClear:
      return true;
    default:
      return false;
  }
}

absl::StatusOr<LaneChoice> ChooseLane(const Request& request,
                                      absl::string_view daemon_wire) {
  const bool control = IsControlRequest(request);
  const std::string value =
      absl::AsciiStrToLower(absl::StripAsciiWhitespace(daemon_wire));
  if (value.empty() || value == "auto") {
    return control ? LaneChoice{WireLane::kProstV16, true}
                   : LaneChoice{WireLane::kBincodeV15};
  }
  if (value == "bincode" || value == "bincode-v15" || value == "v15") {
    return LaneChoice{WireLane::kBincodeV15};
  }
  if (value == "prost" || value == "prost-v16" || value == "v16") {
    return LaneChoice{WireLane::kProstV16};
  }
  if (value == "frame" || value == "frame-v1") {
    return LaneChoice{WireLane::kFrameV1};
  }
  if (!control) return LaneChoice{WireLane::kBincodeV15};
  return absl::InvalidArgumentError(
      absl::StrCat("invalid ZCCACHE_DAEMON_WIRE=", daemon_wire,
                   "; expected auto, bincode, prost, or frame"));
}

absl::string_view CanonicalRequestId(const Request& request) {
  switch (request.body_case()) {
    case Request::kPing:
      return "control-ping";
    case Request::kShutdown:
      return "control-shutdown";
    case Request::kStatus:
      return "control-status";
    case Request::kLookup:
      return "lookup";
    case Request::kStore:
      return "store";
    case Request::kSessionStart:
      return "session-start";
    case Request::kCompile:
      return "compile";
    case Request::kSessionEnd:
      return "session-end";
    case Request::kClear:
      return "control-clear";
    case Request::kCompileEphemeral:
      return "compile-ephemeral";
    case Request::kLinkEphemeral:
      return "link-ephemeral";
    case Request::kSessionStats:
      return "session-stats";
    case Request::kFingerprintCheck:
      return "fingerprint-check";
    case Request::kFingerprintMarkSuccess:
      return "fingerprint-mark-success";
    case Request::kFingerprintMarkFailure:
      return "fingerprint-mark-failure";
    case Request::kFingerprintInvalidate:
      return "fingerprint-invalidate";
    case Request::kListRustArtifacts:
      return "list-rust-artifacts";
    case Request::kGenericToolExec:
      return "generic-tool-exec";
    case Request::kReleaseWorktreeHandles:
      return "control-release-worktree-handles";
    case Request::BODY_NOT_SET:
      return "";
  }
  return "";
}

}  // namespace zcbroker::ipc
