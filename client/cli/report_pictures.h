// The pictures of a report, as inline SVG. Places and widths are per cent of
// whatever room there is, so that bars follow it and text keeps its size.
#ifndef ZCBROKER_CLIENT_CLI_REPORT_PICTURES_H_
#define ZCBROKER_CLIENT_CLI_REPORT_PICTURES_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/report_story.h"

namespace zcbroker::cli {

inline constexpr size_t kShownLanes = 24;
inline constexpr size_t kShownStarts = 40;

// "21:04:05.123", local time, with the day where the window is longer than one.
std::string Clock(const Window& window, absl::Time time);

// A lane for each service and version, at most kShownLanes, and lanes for what
// takes no time.
std::string TimelinePicture(const Story& story);

// A bar of steps for each start, at most kShownStarts: those that took longest,
// in order of time.
std::string StartsPicture(const Story& story);

// A bar for each bucket from the first to the last that is not empty.
std::string DistributionPicture(const Distribution& distribution);

// A value for each of several stretches of time.
struct Series {
  std::string name;
  std::string unit;
  std::vector<std::pair<Window, double>> values;
};
std::string SeriesPicture(const Series& series);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_REPORT_PICTURES_H_
