// One operation of our client library, as a program that uses it would do it:
// connect, Ping, and begin anew with another connection when the daemon at the
// other end dies meanwhile. Exits with 1 where that did not work in time.
//
// usage: library_client DIRECT_ENDPOINT VERSION SECONDS
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/connect_daemon.h"
#include "client/daemon_connection.h"
#include "client/grpc_negotiator.h"
#include "ipc/deadline.h"

namespace zcbroker {
namespace {

// A daemon that is stopped answers nothing, and it is not this program that
// reports it: it asks again.
constexpr absl::Duration kPingPatience = absl::Seconds(3);
constexpr absl::Duration kPause = absl::Milliseconds(20);

absl::Status Once(const std::string& direct,
                  const client::ConnectOptions& options) {
  absl::StatusOr<client::ConnectedDaemon> daemon =
      client::ConnectDaemonWithRoute(direct, options);
  if (!daemon.ok()) return daemon.status();
  return daemon->connection.Ping(ipc::Deadline::After(kPingPatience));
}

int Run(const std::string& direct, const char* version, double seconds) {
  client::ConnectOptions options;
  options.service = "zccache";
  options.wanted_version = version;
  options.negotiator = client::GrpcBroker();
  const absl::Time end = absl::Now() + absl::Seconds(seconds);
  for (int attempt = 1;; ++attempt) {
    const absl::Status status = Once(direct, options);
    if (status.ok()) {
      printf("%d\n", attempt);
      return 0;
    }
    if (absl::Now() > end) {
      fprintf(stderr, "%d attempts, the last: %s\n", attempt,
              status.ToString().c_str());
      return 1;
    }
    absl::SleepFor(kPause);
  }
}

}  // namespace
}  // namespace zcbroker

int main(int argc, char** argv) {
  double seconds = 0;
  if (argc != 4 || !absl::SimpleAtod(argv[3], &seconds)) {
    fprintf(stderr, "usage: library_client DIRECT_ENDPOINT VERSION SECONDS\n");
    return 2;
  }
  return zcbroker::Run(argv[1], argv[2], seconds);
}
