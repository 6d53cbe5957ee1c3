// How a report looks.
#ifndef ZCBROKER_CLIENT_CLI_REPORT_STYLE_H_
#define ZCBROKER_CLIENT_CLI_REPORT_STYLE_H_

namespace zcbroker::cli {

extern const char kReportStyle[];

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_REPORT_STYLE_H_
