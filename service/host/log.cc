#include "service/host/log.h"

#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace zcbroker::service {
namespace {

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>(
        "zcbrokerd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

void Write(LogLevel level, absl::string_view line) {
  Logger().log(ToSpdlog(level), "{}",
               fmt::string_view(line.data(), line.size()));
}

}  // namespace

void InitLog(LogLevel level) { Logger().set_level(ToSpdlog(level)); }
void LogDebug(absl::string_view line) { Write(LogLevel::kDebug, line); }
void LogInfo(absl::string_view line) { Write(LogLevel::kInfo, line); }
void LogWarning(absl::string_view line) { Write(LogLevel::kWarning, line); }
void LogError(absl::string_view line) { Write(LogLevel::kError, line); }

}  // namespace zcbroker::service
