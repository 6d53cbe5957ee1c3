// The managed policy: protobuf text that an administrator edits.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/policy.pb.h"
#include "service/core/catalog.h"
#include "service/core/definition.h"
#include "service/core/policy.h"
#include "tests/fuzz/property.h"

namespace zcbroker::service {
namespace {

constexpr char kFile[] = "/etc/zcbroker/policy.textproto";

void Check(absl::string_view text) {
  const ParsedPolicy parsed = ParsePolicy(text, kFile);
  // A policy, or at least one mistake with its place; never both.
  ZCB_PROPERTY(parsed.policy.has_value() == parsed.problems.empty());
  for (const v1::Problem& problem : parsed.problems) {
    ZCB_PROPERTY(absl::StartsWith(problem.where(), std::string(kFile) + ":"));
    ZCB_PROPERTY(!problem.what().empty());
    // An answer that holds it can be read.
    ZCB_PROPERTY(v1::Problem().ParseFromString(problem.SerializeAsString()));
  }
  if (!parsed.policy.has_value()) return;
  const v1::Policy& policy = *parsed.policy;
  Catalog catalog;
  catalog.services["zccache"].definition = BuiltInZccache();
  catalog.services["zccache"].source = "built-in";
  ApplyPolicy(policy, kFile, &catalog);
  const VersionPolicy& rules = catalog.versions;
  for (const auto& [service, version] : rules.blocked) {
    ZCB_PROPERTY(!WhyBlocked(rules, service, version).empty());
  }
  for (const auto& [service, version] : rules.pinned) {
    // A pinned version may run, where its service may.
    ZCB_PROPERTY(
        WhyBlocked(rules, service, version).empty() ||
        (!rules.services.empty() && rules.services.count(service) == 0));
  }
  ZCB_PROPERTY(rules.keep_used_for > absl::ZeroDuration());
  ZCB_PROPERTY(rules.concurrent_starts.value_or(1) >= 1);
  ZCB_PROPERTY(rules.waiters_per_start.value_or(1) >= 1);
  ZCB_PROPERTY(IsIdleStop(catalog.services["zccache"].definition.idle_stop()));
  for (const v1::Setting& setting : EffectiveSettings(policy, kFile, catalog)) {
    ZCB_PROPERTY(!setting.name().empty() && !setting.value().empty() &&
                 !setting.source().empty());
    ZCB_PROPERTY(v1::Setting().ParseFromString(setting.SerializeAsString()));
  }
  // Written out and read again it is the same.
  std::string printed;
  google::protobuf::TextFormat::PrintToString(policy, &printed);
  const ParsedPolicy again = ParsePolicy(printed, kFile);
  ZCB_PROPERTY(again.policy.has_value());
  ZCB_PROPERTY(google::protobuf::util::MessageDifferencer::Equals(
      policy, *again.policy));
}

}  // namespace
}  // namespace zcbroker::service

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Refused text is no line in the log of a run.
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  zcbroker::service::Check(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
