// The limits that docs/operations.md names are those of the code.
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "proto/zcbroker/v1/refusals.h"
#include "service/core/connection_limits.h"
#include "service/core/definition.h"
#include "service/core/event_log.h"
#include "service/core/machine.h"
#include "service/core/mistakes.h"
#include "service/core/outcome.h"
#include "service/host/backend_run.h"
#include "service/host/descriptors.h"
#include "service/host/front_door.h"
#include "service/host/metrics_listener.h"
#include "service/host/relay.h"
#include "service/rpc/on_demand_server.h"

namespace zcbroker::service {
namespace {

using ::testing::HasSubstr;

std::string Size(size_t bytes) {
  return bytes >= 1 << 20 ? absl::StrCat(bytes >> 20, " MiB")
                          : absl::StrCat(bytes >> 10, " KiB");
}

std::string Span(std::chrono::milliseconds span) {
  return absl::StrCat(span.count() / 1000, " s");
}

TEST(LimitsTableTest, SaysWhatTheCodeDoes) {
  const ConnectionLimits connections;
  const FrontDoorLimits door;
  const RelayLimits relay;
  const Limits rules;
  const std::string lower = " (a policy may lower it)";
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"open connections" + lower, absl::StrCat(connections.connections)},
      {"those of one process" + lower,
       absl::StrCat(connections.connections_per_process)},
      {"time to the first byte", Span(door.identify_within)},
      {"time for a framed request", Span(door.request_within)},
      {"each of the two, with a descriptor of the "
       "[reserve](#without-descriptors)",
       absl::StrCat(door.reserved_within.count(), " ms")},
      {"framed request", Size(ipc::kMaxHelloBodyBytes)},
      {"gRPC: message in; streams per connection; handshake",
       absl::StrCat(Size(kMaxGrpcMessageBytes), "; ", kMaxGrpcStreams,
                    "; 5 s")},
      {"waiters per starting backend" + lower,
       absl::StrCat(rules.waiters_per_start)},
      {"starts at once" + lower, absl::StrCat(rules.concurrent_starts)},
      {"relayed connections" + lower,
       absl::StrCat(connections.relayed_connections)},
      {"time for a relayed request to arrive", Span(relay.request_within)},
      {"kept of one relayed request; of all",
       absl::StrCat(Size(relay.kept_bytes_each), "; ", Size(relay.kept_bytes))},
      {"backends that one relayed request may cost",
       absl::StrCat(relay.backends_per_request)},
      {"definition or policy file; binaries; arguments",
       absl::StrCat(Size(kMaxTextBytes), "; ", kMaxBinaries, "; ",
                    kMaxArguments)},
      {"log of a backend", Size(kMaxLogBytes)},
      {"evidence of a refusal",
       absl::StrCat(kMaxEvidenceLines, " lines; ", Size(kMaxEvidenceBytes))},
      {"connections for metrics; a request there; all of it",
       absl::StrCat(MetricsListener::kMaxConnections, "; ",
                    Size(MetricsListener::kMaxRequestBytes), "; 5 s")},
      {"events kept; told at once",
       absl::StrCat(EventLog::kKept, "; ", EventLog::kPerResponse)},
      {"descriptors in reserve",
       absl::StrCat(kDescriptorReserve,
                    ", a quarter where the hard limit is "
                    "below ",
                    4 * kDescriptorReserve)},
  };
  std::ifstream page("docs/operations.md");
  ASSERT_TRUE(page.good()) << "docs/operations.md is not in the test's data";
  std::stringstream text;
  text << page.rdbuf();
  for (const auto& [what, value] : rows) {
    EXPECT_THAT(text.str(),
                HasSubstr(absl::StrCat("\n| ", what, " | ", value, " |")));
  }
  // And it says of every refusal what to do.
  for (const RefusalTraits& refusal : Refusals()) {
    EXPECT_THAT(text.str(),
                HasSubstr(absl::StrCat("\n| `", refusal.name, "` | ")));
  }
}

}  // namespace
}  // namespace zcbroker::service
