#include "client/backend_sdk/reference/backend.h"

#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/backend_sdk/reference/tool_run.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {
namespace {

namespace v1 = zccache::v1;

void SetError(absl::string_view message, v1::Response* response) {
  response->mutable_error()->set_message(message.data(), message.size());
}

std::string NewUuid() {
  std::random_device random;
  const uint32_t a = random(), b = random(), c = random(), d = random();
  return absl::StrFormat("%08x-%04x-4%03x-%04x-%04x%08x", a, b >> 16, b & 0xfff,
                         0x8000 | (c & 0x3fff), c >> 16, d);
}

// 32 hex digits, in groups of 8-4-4-4-12 or in one.
bool IsUuid(absl::string_view id) {
  std::string digits;
  for (size_t i = 0; i < id.size(); ++i) {
    const bool dash_place = i == 8 || i == 13 || i == 18 || i == 23;
    if (id.size() == 36 && dash_place) {
      if (id[i] != '-') return false;
    } else if (absl::ascii_isxdigit(id[i])) {
      digits.push_back(id[i]);
    } else {
      return false;
    }
  }
  return digits.size() == 32;
}

// What Compile, CompileEphemeral and LinkEphemeral have in common.
template <class Message>
ToolCommand CommandOf(const Message& request, const v1::Path& tool) {
  ToolCommand command;
  command.tool = tool.value();
  command.args.assign(request.args().begin(), request.args().end());
  command.cwd = request.cwd().value();
  if (request.env_is_set()) {
    command.env.emplace();
    for (const v1::EnvVar& variable : request.env()) {
      command.env->emplace_back(variable.name(), variable.value());
    }
  }
  return command;
}

}  // namespace

ReferenceBackend::ReferenceBackend(std::string version, std::string endpoint)
    : version_(std::move(version)),
      endpoint_(std::move(endpoint)),
      started_(absl::Now()) {}

v1::Response ReferenceBackend::Answer(const v1::Request& request) {
  v1::Response response;
  response.set_request_id(request.request_id());
  switch (request.body_case()) {
    case v1::Request::kPing:
      response.mutable_pong();
      break;
    case v1::Request::kStatus:
      AnswerStatus(response.mutable_status());
      break;
    case v1::Request::kShutdown:
      response.mutable_shutting_down();
      break;
    case v1::Request::kClear:
      response.mutable_cleared();
      break;
    case v1::Request::kSessionStart:
      StartSession(request.session_start(), &response);
      break;
    case v1::Request::kSessionEnd:
      EndSession(request.session_end().session_id(), &response);
      break;
    case v1::Request::kSessionStats:
      ReportSession(request.session_stats().session_id(), &response);
      break;
    case v1::Request::kCompile:
      Compile(request.compile(), &response);
      break;
    case v1::Request::kCompileEphemeral:
      CompileEphemeral(request.compile_ephemeral(), &response);
      break;
    case v1::Request::kLinkEphemeral:
      Link(request.link_ephemeral(), &response);
      break;
    default:
      SetError("the reference backend does not serve this request", &response);
  }
  return response;
}

void ReferenceBackend::AnswerStatus(v1::DaemonStatus* status) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    *status = counters_;
    status->set_sessions_active(sessions_.size());
  }
  status->set_version(version_);
  status->set_daemon_namespace("default");
  status->set_endpoint(endpoint_);
  status->mutable_private_daemon();
  status->mutable_cache_dir();
  status->set_uptime_secs(absl::ToInt64Seconds(absl::Now() - started_));
}

void ReferenceBackend::StartSession(const v1::SessionStart& request,
                                    v1::Response* response) {
  if (request.has_private_daemon()) {
    SetError("the reference backend is no private daemon", response);
    return;
  }
  const std::string id = NewUuid();
  std::lock_guard<std::mutex> lock(mutex_);
  Session& session = sessions_[id];
  session.track_stats = request.track_stats();
  session.started = absl::Now();
  counters_.set_sessions_total(counters_.sessions_total() + 1);
  response->mutable_session_started()->set_session_id(id);
}

void ReferenceBackend::EndSession(const std::string& id,
                                  v1::Response* response) {
  if (!IsUuid(id)) {
    SetError(absl::StrCat("invalid session ID: ", id), response);
    return;
  }
  v1::SessionEnded* ended = response->mutable_session_ended();
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  const Session& session = found->second;
  if (session.track_stats) {
    *ended->mutable_stats() = session.stats;
    ended->mutable_stats()->set_duration_ms(
        absl::ToInt64Milliseconds(absl::Now() - session.started));
  }
  sessions_.erase(found);
}

void ReferenceBackend::ReportSession(const std::string& id,
                                     v1::Response* response) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) {
    SetError(absl::StrCat("unknown session: ", id), response);
    return;
  }
  v1::SessionStatsResult* result = response->mutable_session_stats_result();
  if (!found->second.track_stats) return;
  *result->mutable_stats() = found->second.stats;
  result->mutable_stats()->set_duration_ms(
      absl::ToInt64Milliseconds(absl::Now() - found->second.started));
}

void ReferenceBackend::Compile(const v1::Compile& request,
                               v1::Response* response) {
  if (!IsUuid(request.session_id())) {
    SetError(absl::StrCat("invalid session ID: ", request.session_id()),
             response);
    return;
  }
  ToolCommand command = CommandOf(request, request.compiler());
  command.stdin_data = request.stdin_data();
  RunCompiler(command, request.session_id(), response);
}

void ReferenceBackend::CompileEphemeral(const v1::CompileEphemeral& request,
                                        v1::Response* response) {
  ToolCommand command = CommandOf(request, request.compiler());
  command.stdin_data = request.stdin_data();
  RunCompiler(command, "", response);
}

void ReferenceBackend::RunCompiler(const ToolCommand& command,
                                   const std::string& session_id,
                                   v1::Response* response) {
  absl::StatusOr<ToolResult> result = RunTool(command);
  const bool failed = !result.ok() || result->exit_code != 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    counters_.set_total_compilations(counters_.total_compilations() + 1);
    counters_.set_non_cacheable(counters_.non_cacheable() + 1);
    counters_.set_compile_errors(counters_.compile_errors() + failed);
    const auto session = sessions_.find(session_id);
    if (session != sessions_.end()) {
      v1::SessionStats& stats = session->second.stats;
      stats.set_compilations(stats.compilations() + 1);
      stats.set_non_cacheable(stats.non_cacheable() + 1);
      stats.set_errors(stats.errors() + failed);
    }
  }
  if (!result.ok()) {
    SetError(
        absl::StrCat("failed to run compiler: ", result.status().message()),
        response);
    return;
  }
  v1::CompileResult* answer = response->mutable_compile_result();
  answer->set_exit_code(result->exit_code);
  answer->set_stdout_data(std::move(result->stdout_data));
  answer->set_stderr_data(std::move(result->stderr_data));
}

void ReferenceBackend::Link(const v1::LinkEphemeral& request,
                            v1::Response* response) {
  absl::StatusOr<ToolResult> result =
      RunTool(CommandOf(request, request.tool()));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    counters_.set_total_links(counters_.total_links() + 1);
    counters_.set_link_non_cacheable(counters_.link_non_cacheable() + 1);
  }
  if (!result.ok()) {
    SetError(absl::StrCat("failed to run linker: ", result.status().message()),
             response);
    return;
  }
  v1::LinkResult* answer = response->mutable_link_result();
  answer->set_exit_code(result->exit_code);
  answer->set_stdout_data(std::move(result->stdout_data));
  answer->set_stderr_data(std::move(result->stderr_data));
}

}  // namespace zcbroker::client
