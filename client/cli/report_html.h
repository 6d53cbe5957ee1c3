// Text made part of a page. Markup is written as a literal; whatever else goes
// into a page goes through here, since peers and logs say what they like.
#ifndef ZCBROKER_CLIENT_CLI_REPORT_HTML_H_
#define ZCBROKER_CLIENT_CLI_REPORT_HTML_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/substitute.h"

namespace zcbroker::cli {

// Fit for an element's content and for an attribute in double quotes.
std::string EscapeHtml(absl::string_view text);

// `markup` with $0 to $9 replaced by the values, each escaped.
template <typename... Values>
std::string Html(absl::string_view markup, const Values&... values) {
  return absl::Substitute(markup,
                          EscapeHtml(absl::AlphaNum(values).Piece())...);
}

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_REPORT_HTML_H_
