#include "service/host/log.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "service/host/journald.h"
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

// Set where entries go to the journal.
std::unique_ptr<JournalSocket>& Journal() {
  static std::unique_ptr<JournalSocket> journal;
  return journal;
}

bool json_lines = false;

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

// syslog(3)'s.
const char* PriorityOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "7";
    case LogLevel::kInfo:
      return "6";
    case LogLevel::kWarning:
      return "4";
    case LogLevel::kError:
      return "3";
  }
  return "6";
}

// Keys stay in alphabetical order. Paths need not be UTF-8, which JSON has to
// be.
std::string JsonLine(LogLevel level, absl::string_view line,
                     nlohmann::json fields) {
  const auto name = spdlog::level::to_string_view(ToSpdlog(level));
  fields["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(),
                                    absl::UTCTimeZone());
  fields["level"] = std::string(name.data(), name.size());
  fields["message"] = std::string(line);
  return fields.dump(-1, ' ', /*ensure_ascii=*/false,
                     nlohmann::json::error_handler_t::replace);
}

void WriteLine(LogLevel level, absl::string_view line) {
  Logger().log(ToSpdlog(level), "{}",
               fmt::string_view(line.data(), line.size()));
}

bool SendToJournal(LogLevel level, absl::string_view line,
                   JournalFields fields) {
  fields.emplace_back("MESSAGE", std::string(line));
  fields.emplace_back("PRIORITY", PriorityOf(level));
  fields.emplace_back("SYSLOG_IDENTIFIER", "zcbrokerd");
  return Journal()->Send(fields);
}

void Write(LogLevel level, absl::string_view line) {
  if (!Logger().should_log(ToSpdlog(level))) return;
  // While the journal itself is started anew, text reaches it all the same.
  if (Journal() != nullptr && SendToJournal(level, line, {})) return;
  WriteLine(level, json_lines ? JsonLine(level, line, nlohmann::json::object())
                              : std::string(line));
}

LogLevel LevelOf(v1::EventKind kind) {
  switch (kind) {
    case v1::EVENT_KIND_BACKEND_START_FAILED:
    case v1::EVENT_KIND_BACKEND_WEDGED:
    case v1::EVENT_KIND_REFUSED:
    case v1::EVENT_KIND_REQUEST_REPLAYED:
    case v1::EVENT_KIND_LIMIT_REACHED:
      return LogLevel::kWarning;
    default:
      return LogLevel::kInfo;
  }
}

// A line is written whole up to PIPE_BUF.
constexpr size_t kMaxEvidence = 2048;

// "EVENT_KIND_BACKEND_READY" is "BACKEND_READY".
std::string NameOf(v1::EventKind kind) {
  return v1::EventKind_Name(kind).substr(sizeof("EVENT_KIND_") - 1);
}

// What is set of an event, by the names it has in JSON.
std::vector<std::pair<std::string, std::string>> FieldsOf(
    const v1::Event& event) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"event", NameOf(event.kind())},
      {"sequence", absl::StrCat(event.sequence())}};
  const auto add = [&](const std::string& name, std::string value) {
    if (!value.empty()) fields.emplace_back(name, std::move(value));
  };
  add("service", event.service());
  add("version", event.version());
  add("process", event.pid() != 0 ? absl::StrCat(event.pid()) : "");
  add("refusal",
      event.refusal() != v1::REFUSAL_UNSPECIFIED
          ? v1::Refusal_Name(event.refusal()).substr(sizeof("REFUSAL_") - 1)
          : "");
  add("traceparent", event.traceparent());
  add("evidence",
      absl::StrJoin(event.evidence(), "\n").substr(0, kMaxEvidence));
  return fields;
}

}  // namespace

void InitLog(LogLevel level, LogFormat format) {
  Logger().set_level(ToSpdlog(level));
  const bool automatic = format == LogFormat::kAutomatic;
  if (automatic && StandardErrorIsJournal()) {
    Journal() = std::make_unique<JournalSocket>();
  } else if (format == LogFormat::kJson ||
             (automatic && isatty(STDERR_FILENO) != 1)) {
    json_lines = true;
    Logger().set_pattern("%v");
  }
}

void LogDebug(absl::string_view line) { Write(LogLevel::kDebug, line); }
void LogInfo(absl::string_view line) { Write(LogLevel::kInfo, line); }
void LogWarning(absl::string_view line) { Write(LogLevel::kWarning, line); }
void LogError(absl::string_view line) { Write(LogLevel::kError, line); }

void LogEvent(const v1::Event& event) {
  const LogLevel level = LevelOf(event.kind());
  if (!Logger().should_log(ToSpdlog(level))) return;
  if (Journal() != nullptr) {
    JournalFields entry;
    for (auto& [name, value] : FieldsOf(event)) {
      entry.emplace_back(absl::StrCat("ZCBROKER_", absl::AsciiStrToUpper(name)),
                         std::move(value));
    }
    SendToJournal(level, event.text(), std::move(entry));
  } else if (json_lines) {
    nlohmann::json fields;
    for (const auto& [name, value] : FieldsOf(event)) fields[name] = value;
    WriteLine(level, JsonLine(level, event.text(), std::move(fields)));
  }
}

}  // namespace zcbroker::service
