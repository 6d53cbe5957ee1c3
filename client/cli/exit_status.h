// The exit statuses of `zcbroker` (docs/cli.md). Refusals of a broker have
// those of the refusal table, 2 and 4 to 15.
#ifndef ZCBROKER_CLIENT_CLI_EXIT_STATUS_H_
#define ZCBROKER_CLIENT_CLI_EXIT_STATUS_H_

namespace zcbroker::cli {

inline constexpr int kExitOk = 0;
// Something failed that no other status names.
inline constexpr int kExitFailure = 1;
// The command line makes no sense.
inline constexpr int kExitUsage = 2;
// No broker answers, or what answers is none.
inline constexpr int kExitNoBroker = 3;

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_EXIT_STATUS_H_
