// What becomes of a negotiation: a route or a refusal.
#ifndef ZCBROKER_SERVICE_CORE_OUTCOME_H_
#define ZCBROKER_SERVICE_CORE_OUTCOME_H_

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/errors.pb.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::service {

// A rule said no. `text` is one sentence for people that says what to do;
// `detail` holds the same as facts.
struct Refused {
  std::string text;
  v1::RefusalDetail detail;
  // The caller wanted to be told so (START_POLICY_ONLY_IF_RUNNING): it is no
  // fault, neither counted nor an event.
  bool wanted = false;

  v1::Refusal refusal() const { return detail.refusal(); }
};

using Outcome = std::variant<v1::NegotiateResponse, Refused>;
using LookupOutcome = std::variant<v1::RouteInfo, Refused>;
using BackendOutcome = std::variant<v1::Backend, Refused>;
using ReportOutcome = std::variant<v1::ReportBackendResponse, Refused>;

// Facts that some refusals carry beside the request's own.
// docs/operations.md, "Limits": the last ones are kept. All of a refusal has to
// go into the 16 KiB that gRPC takes of metadata, in base64.
inline constexpr size_t kMaxEvidenceLines = 40;
inline constexpr size_t kMaxEvidenceBytes = size_t{6} * 1024;

struct RefusalFacts {
  std::vector<std::string> installed_versions;
  std::vector<std::string> evidence;  // cut to the limits above
  absl::Duration retry_after = absl::ZeroDuration();
};

// A refusal of a request for `service` at `version`, which may be anything a
// peer sent: they are escaped and cut to 64 bytes.
Refused Refuse(v1::Refusal refusal, std::string text,
               const std::string& service, const std::string& version,
               RefusalFacts facts = {});

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_OUTCOME_H_
