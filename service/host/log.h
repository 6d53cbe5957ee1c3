// The broker's own log: lines on standard error, which a service manager or
// `zcbroker up` keeps. Text from peers and backends must be escaped by the
// caller (ipc::Printable).
#ifndef ZCBROKER_SERVICE_HOST_LOG_H_
#define ZCBROKER_SERVICE_HOST_LOG_H_

#include "absl/strings/string_view.h"

namespace zcbroker::service {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines below `level` are dropped. Call once, before other threads exist.
void InitLog(LogLevel level);

// Thread-safe; one line each.
void LogDebug(absl::string_view line);
void LogInfo(absl::string_view line);
void LogWarning(absl::string_view line);
void LogError(absl::string_view line);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_LOG_H_
