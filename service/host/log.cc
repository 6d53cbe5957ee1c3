#include "service/host/log.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <utility>

#include "spdlog/sinks/base_sink.h"
#include "spdlog/spdlog.h"

namespace zcbroker::service {
namespace {

// Standard error, as long as somebody reads it: a pipe that is full must not
// stop the broker. Lines that find no room are counted and told of later.
class PatientSink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    pollfd ready{STDERR_FILENO, POLLOUT, 0};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) {
      ++dropped_;
      return;
    }
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (dropped_ > 0) {
      fmt::format_to(std::back_inserter(line), "({} lines were lost)\n",
                     std::exchange(dropped_, 0));
    }
    // A pipe with room has room for 4 KiB.
    const size_t size = std::min<size_t>(line.size(), PIPE_BUF);
    if (write(STDERR_FILENO, line.data(), size) < 0) ++dropped_;
  }
  void flush_() override {}

 private:
  int dropped_ = 0;
};

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>(
        "zcbrokerd", std::make_shared<PatientSink>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
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
