// The broker's own log, on standard error, which a service manager or `zcbroker
// up` keeps; docs/operations.md, "Logs". Text from peers and backends must be
// escaped by the caller (ipc::Printable).
#ifndef ZCBROKER_SERVICE_HOST_LOG_H_
#define ZCBROKER_SERVICE_HOST_LOG_H_

#include "absl/strings/string_view.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::service {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

enum class LogFormat {
  // As entries where standard error leads to systemd's journal, as text on a
  // terminal, else as JSON.
  kAutomatic,
  // A line for people. Of events only refusals and limits that were reached: of
  // the others a line of its own tells.
  kText,
  // A line is an object.
  kJson,
};

// What is below `level` is dropped. Call once, before other threads exist.
void InitLog(LogLevel level, LogFormat format);

// Thread-safe; one line each.
void LogDebug(absl::string_view line);
void LogInfo(absl::string_view line);
void LogWarning(absl::string_view line);
void LogError(absl::string_view line);
// With what it says as fields of their own. Refusals and failures are warnings,
// the rest is kInfo.
void LogEvent(const v1::Event& event);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_LOG_H_
