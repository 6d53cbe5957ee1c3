#include "client/cli/report_html.h"

#include "absl/strings/str_replace.h"

namespace zcbroker::cli {

std::string EscapeHtml(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"},
                                    {"<", "&lt;"},
                                    {">", "&gt;"},
                                    {"\"", "&quot;"},
                                    {"'", "&#39;"}});
}

}  // namespace zcbroker::cli
