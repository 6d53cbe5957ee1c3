#include "service/host/log.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <functional>
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
#include "proto/zcbroker/v1/refusals.h"
#include "service/host/journald.h"
#include "spdlog/sinks/base_sink.h"
#include "spdlog/spdlog.h"

namespace zcbroker::service {
namespace {

// Standard error, as long as somebody reads it: a pipe that is full must not
// stop the broker. Lines that find no room are counted and told of later.
class PatientSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // `tell` makes the line that says how many were lost.
  explicit PatientSink(std::function<std::string(int lost)> tell)
      : tell_(std::move(tell)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (lost_ > 0 && Write(tell_(lost_))) lost_ = 0;
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (lost_ > 0 || !Write(absl::string_view(line.data(), line.size()))) {
      ++lost_;
    }
  }
  void flush_() override {}

 private:
  // A pipe with room has room for PIPE_BUF; what is longer is cut.
  static bool Write(absl::string_view line) {
    pollfd ready{STDERR_FILENO, POLLOUT, 0};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return false;
    std::string cut;
    if (line.size() > PIPE_BUF) {
      cut = absl::StrCat(line.substr(0, PIPE_BUF - 1), "\n");
      line = cut;
    }
    return write(STDERR_FILENO, line.data(), line.size()) >= 0;
  }

  const std::function<std::string(int lost)> tell_;
  int lost_ = 0;
};

bool json_lines = false;

std::string JsonLine(absl::string_view level, absl::string_view line,
                     nlohmann::json fields);

std::string LinesWereLost(int lost) {
  const std::string what = absl::StrCat(lost, " lines were lost");
  return json_lines
             ? absl::StrCat(JsonLine("warning", what, nlohmann::json::object()),
                            "\n")
             : absl::StrCat("(", what, ")\n");
}

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>(
        "zcbrokerd", std::make_shared<PatientSink>(LinesWereLost));
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
// be. A line is written whole up to PIPE_BUF, so what is long gives way.
std::string JsonLine(absl::string_view level, absl::string_view line,
                     nlohmann::json fields) {
  fields["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(),
                                    absl::UTCTimeZone());
  fields["level"] = std::string(level);
  fields["message"] = std::string(line);
  while (true) {
    std::string text = fields.dump(-1, ' ', /*ensure_ascii=*/false,
                                   nlohmann::json::error_handler_t::replace);
    if (text.size() < PIPE_BUF) return text;
    // The message is there in any case.
    auto& longest =
        fields.contains("evidence") &&
                fields["evidence"].get_ref<std::string&>().size() > 80
            ? fields["evidence"]
            : fields["message"];
    auto& value = longest.get_ref<std::string&>();
    value.resize(value.size() / 2);
  }
}

absl::string_view NameOf(LogLevel level) {
  const auto name = spdlog::level::to_string_view(ToSpdlog(level));
  return {name.data(), name.size()};
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
  WriteLine(level, json_lines
                       ? JsonLine(NameOf(level), line, nlohmann::json::object())
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

// Enough to see what it is; `zcbroker events` has the rest.
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
  add("refusal", event.refusal() != v1::REFUSAL_UNSPECIFIED
                     ? std::string(TraitsOf(event.refusal()).name)
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
    // While the journal itself is started anew, text reaches it all the same.
    if (!SendToJournal(level, event.text(), std::move(entry))) {
      WriteLine(level, event.text());
    }
  } else if (json_lines) {
    nlohmann::json fields;
    for (const auto& [name, value] : FieldsOf(event)) fields[name] = value;
    WriteLine(level, JsonLine(NameOf(level), event.text(), std::move(fields)));
  } else if (event.kind() == v1::EVENT_KIND_REFUSED ||
             event.kind() == v1::EVENT_KIND_LIMIT_REACHED) {
    // Of the others a line of its own tells.
    WriteLine(level, event.service().empty()
                         ? event.text()
                         : absl::StrCat("refused ", event.service(), " ",
                                        event.version(), ": ", event.text()));
  }
}

}  // namespace zcbroker::service
