// A report as one HTML page that needs nothing else: no script, no font, no
// request. Pure: no I/O, no clock.
#ifndef ZCBROKER_CLIENT_CLI_REPORT_PAGE_H_
#define ZCBROKER_CLIENT_CLI_REPORT_PAGE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/cli/report_story.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

// What every report begins with, and nothing else does.
inline constexpr absl::string_view kPageBegins =
    "<!doctype html>\n<!-- written by zcbroker report -->\n";

// What was counted between two looks at the broker.
struct Watched {
  Window when;
  uint64_t negotiations = 0;
  uint64_t relayed = 0;
  uint64_t refused = 0;
  // Answers that had to wait, and what they took together.
  uint64_t waited = 0;
  double waited_seconds = 0;
  // How long the broker took to answer the second look.
  absl::Duration answered;
};

struct Observations {
  Story story;
  v1::GetStatusResponse status;
  std::vector<v1::Backend> backends;
  // Since the broker's start.
  Distribution answers;
  // By step.
  std::vector<std::pair<std::string, Distribution>> steps;
  std::vector<Watched> watched;
  // Why the watching ended before its time; empty where it did not.
  std::string cut_short;
  // The window was asked for, and did not follow from what is remembered.
  bool window_asked = false;
  // Of the machine, for people: "Linux 6.1.0 x86_64, 2 processors".
  std::string host;
  std::string system;
  // Of the program that writes the report.
  std::string version;
};

// One sentence of the summary.
struct Sentence {
  enum class Tone { kPlain, kGood, kBad };
  Tone tone = Tone::kPlain;
  std::string text;
};
std::vector<Sentence> Summary(const Observations& seen);

std::string Page(const Observations& seen);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_REPORT_PAGE_H_
