// Our service definitions: protobuf text that a person edits.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"
#include "service/core/definition.h"
#include "service/core/launch.h"
#include "service/core/start_plan.h"
#include "tests/fuzz/property.h"

namespace zcbroker::service {
namespace {

constexpr char kFile[] = "/c/services/demo.textproto";

void Check(absl::string_view text, absl::string_view name) {
  const ParsedDefinition parsed = ParseDefinition(text, kFile, name);
  // A definition, or at least one mistake with its place; never both.
  ZCB_PROPERTY(parsed.definition.has_value() == parsed.problems.empty());
  for (const v1::Problem& problem : parsed.problems) {
    ZCB_PROPERTY(absl::StartsWith(problem.where(), std::string(kFile) + ":"));
    ZCB_PROPERTY(!problem.what().empty());
    // An answer that holds it can be read.
    ZCB_PROPERTY(v1::Problem().ParseFromString(problem.SerializeAsString()));
  }
  if (!parsed.definition.has_value()) return;
  const v1::ServiceDefinition& definition = *parsed.definition;
  ZCB_PROPERTY(definition.name() == name);
  ZCB_PROPERTY(
      v1::ServiceDefinition().ParseFromString(definition.SerializeAsString()));
  ZCB_PROPERTY(definition.binaries_size() >= 1);
  ZCB_PROPERTY(definition.probe() != v1::PROBE_UNSPECIFIED);
  ZCB_PROPERTY(definition.has_start_timeout() && definition.has_stop_grace());
  // Whatever was accepted can be started.
  StartPlan plan;
  plan.definition = definition;
  plan.version.binary = definition.binaries(0).path();
  plan.version.version = "1.0.0";
  const LaunchSpec spec =
      MakeLaunchSpec(plan, {"/run/e.sock", "1.0.0", "/log"}, {});
  ZCB_PROPERTY(spec.argv.size() ==
               static_cast<size_t>(definition.args_size()) + 1);
  ZCB_PROPERTY(!LanesOf(definition, definition.binaries(0), "1.0.0").empty());
  // Complete: written out and read again it is the same.
  std::string printed;
  google::protobuf::TextFormat::PrintToString(definition, &printed);
  const ParsedDefinition again = ParseDefinition(printed, kFile, name);
  ZCB_PROPERTY(again.definition.has_value());
  ZCB_PROPERTY(google::protobuf::util::MessageDifferencer::Equals(
      definition, *again.definition));
}

}  // namespace
}  // namespace zcbroker::service

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Refused text is no line in the log of a run.
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  zcbroker::service::Check(text, "demo");
  zcbroker::service::Check(text, "zccache");
  return 0;
}
