// What the reference backend answers to each request of the zccache protocol.
// It has no cache: a compile runs the compiler, every time.
// Source: spec zccache-ipc 4.7 and 5.
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_BACKEND_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_BACKEND_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "client/backend_sdk/reference/tool_run.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {

// Thread-safe; a compile blocks only its caller.
class ReferenceBackend {
 public:
  // `version` and `endpoint` are what Status reports.
  ReferenceBackend(std::string version, std::string endpoint);

  // Echoes request_id. Answers Ping, Status, Shutdown (with ShuttingDown; the
  // server stops), Clear, SessionStart, SessionEnd, SessionStats, Compile,
  // CompileEphemeral and LinkEphemeral; Error to everything else, to a session
  // id that is no UUID, and where the tool could not be run.
  zccache::v1::Response Answer(const zccache::v1::Request& request);

  const std::string& version() const { return version_; }

 private:
  struct Session {
    bool track_stats = false;
    absl::Time started;
    zccache::v1::SessionStats stats;
  };

  void AnswerStatus(zccache::v1::DaemonStatus* status);
  void StartSession(const zccache::v1::SessionStart& request,
                    zccache::v1::Response* response);
  void EndSession(const std::string& id, zccache::v1::Response* response);
  void ReportSession(const std::string& id, zccache::v1::Response* response);
  void Compile(const zccache::v1::Compile& request,
               zccache::v1::Response* response);
  void CompileEphemeral(const zccache::v1::CompileEphemeral& request,
                        zccache::v1::Response* response);
  void Link(const zccache::v1::LinkEphemeral& request,
            zccache::v1::Response* response);
  // Runs the compiler and counts it, for the session where there is one.
  void RunCompiler(const ToolCommand& command, const std::string& session_id,
                   zccache::v1::Response* response);

  const std::string version_;
  const std::string endpoint_;
  const absl::Time started_;

  std::mutex mutex_;
  zccache::v1::DaemonStatus counters_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Session> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_BACKEND_H_
