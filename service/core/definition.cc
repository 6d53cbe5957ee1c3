#include "service/core/definition.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "ipc/escape.h"
#include "ipc/names.h"
#include "ipc/wire/utf8.h"
#include "ipc/zccache_rules.h"
#include "proto/running_process/broker_v1.pb.h"
#include "service/core/launch.h"
#include "service/core/mistakes.h"

namespace zcbroker::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::TextFormat;

// It is shown in answers, whose strings are.
constexpr char kNotUtf8[] = "must be UTF-8";
// Less than the 10 s a caller waits at most, so that it hears why.
constexpr int64_t kDefaultStartSeconds = 9;
constexpr int64_t kDefaultGraceSeconds = 5;
constexpr int64_t kLongestSeconds = 60;
constexpr int64_t kDefaultIdleSeconds = 3600;
constexpr int64_t kLongestIdleSeconds = int64_t{30} * 24 * 3600;

bool InRange(const google::protobuf::Duration& duration) {
  if (duration.seconds() < 0 || duration.nanos() < 0) return false;
  if (duration.seconds() == 0 && duration.nanos() == 0) return false;
  return duration.seconds() < kLongestSeconds ||
         (duration.seconds() == kLongestSeconds && duration.nanos() == 0);
}

void CheckBinaries(const v1::ServiceDefinition& definition,
                   const TextFormat::ParseInfoTree& tree, MistakeList* errors) {
  if (definition.binaries().empty()) {
    errors->AddError(0, 0,
                     "needs at least one: binaries { path: \"/abs/path\" }");
  }
  if (definition.binaries_size() > kMaxBinaries) {
    errors->AddAt(&tree, definition, "binaries", kMaxBinaries,
                  absl::StrCat("more than ", kMaxBinaries, " binaries"));
  }
  std::set<std::string> versions;
  const FieldDescriptor* field =
      v1::ServiceDefinition::descriptor()->FindFieldByName("binaries");
  for (int i = 0; i < definition.binaries_size(); ++i) {
    const v1::Binary& binary = definition.binaries(i);
    const TextFormat::ParseInfoTree* inner = tree.GetTreeForNested(field, i);
    if (!absl::StartsWith(binary.path(), "/")) {
      errors->AddAt(inner, binary, "path", -1,
                    "a binary's path must be absolute");
    }
    if (!ipc::IsUtf8(binary.path())) {
      errors->AddAt(inner, binary, "path", -1, kNotUtf8);
    }
    if (binary.version().empty()) continue;
    if (const absl::Status status = ipc::CheckVersion(binary.version());
        !status.ok()) {
      errors->AddAt(inner, binary, "version", -1,
                    std::string(status.message()));
    }
    if (!versions.insert(binary.version()).second) {
      errors->AddAt(inner, binary, "version", -1,
                    absl::StrCat("version ", binary.version(),
                                 " is already another binary's"));
    }
  }
}

void CheckStart(const v1::ServiceDefinition& definition,
                const TextFormat::ParseInfoTree& tree, MistakeList* errors) {
  if (definition.args_size() > kMaxArguments) {
    errors->AddAt(&tree, definition, "args", kMaxArguments,
                  absl::StrCat("more than ", kMaxArguments, " arguments"));
  }
  for (int i = 0; i < definition.args_size(); ++i) {
    if (!ipc::IsUtf8(definition.args(i))) {
      errors->AddAt(&tree, definition, "args", i, kNotUtf8);
    }
    const auto expanded = ExpandTemplate(definition.args(i), {});
    if (!expanded.ok()) {
      errors->AddAt(&tree, definition, "args", i,
                    std::string(expanded.status().message()));
    }
  }
  const FieldDescriptor* env =
      v1::ServiceDefinition::descriptor()->FindFieldByName("env");
  for (int i = 0; i < definition.env_size(); ++i) {
    const v1::EnvironmentVariable& variable = definition.env(i);
    const TextFormat::ParseInfoTree* inner = tree.GetTreeForNested(env, i);
    if (variable.name().empty() || absl::StrContains(variable.name(), '=')) {
      errors->AddAt(inner, variable, "name", -1,
                    "a variable's name is not empty and holds no '='");
    }
    if (!ipc::IsUtf8(variable.name()) || !ipc::IsUtf8(variable.value())) {
      errors->AddAt(inner, variable, "value", -1, kNotUtf8);
    }
    const auto expanded = ExpandTemplate(variable.value(), {});
    if (!expanded.ok()) {
      errors->AddAt(inner, variable, "value", -1,
                    std::string(expanded.status().message()));
    }
  }
  if (definition.has_start_timeout() && !InRange(definition.start_timeout())) {
    errors->AddAt(&tree, definition, "start_timeout", -1,
                  "must be over 0 s and at most 60 s");
  }
  if (definition.has_stop_grace() && !InRange(definition.stop_grace())) {
    errors->AddAt(&tree, definition, "stop_grace", -1,
                  "must be over 0 s and at most 60 s");
  }
  if (definition.has_idle_stop() && !IsIdleStop(definition.idle_stop())) {
    errors->AddAt(&tree, definition, "idle_stop", -1,
                  "must be 0 s (never), or from 1 s to 30 days");
  }
}

void FillFrom(const v1::ServiceDefinition& base,
              v1::ServiceDefinition* definition) {
  if (definition->args().empty()) *definition->mutable_args() = base.args();
  if (definition->env().empty()) *definition->mutable_env() = base.env();
  if (definition->lanes().empty()) *definition->mutable_lanes() = base.lanes();
  if (definition->probe() == v1::PROBE_UNSPECIFIED) {
    definition->set_probe(base.probe());
  }
  if (definition->endpoint_rule() == v1::ENDPOINT_RULE_UNSPECIFIED) {
    definition->set_endpoint_rule(base.endpoint_rule());
  }
  if (!definition->has_start_timeout()) {
    *definition->mutable_start_timeout() = base.start_timeout();
  }
  if (!definition->has_stop_grace()) {
    *definition->mutable_stop_grace() = base.stop_grace();
  }
  if (!definition->has_idle_stop()) {
    *definition->mutable_idle_stop() = base.idle_stop();
  }
  if (definition->start_contract() == v1::START_CONTRACT_UNSPECIFIED) {
    definition->set_start_contract(base.start_contract());
  }
  if (definition->claim() == v1::CLAIM_UNSPECIFIED) {
    definition->set_claim(base.claim());
  }
}

v1::ServiceDefinition Defaults() {
  v1::ServiceDefinition defaults;
  defaults.set_probe(v1::PROBE_CONNECT);
  defaults.set_endpoint_rule(v1::ENDPOINT_RULE_NONE);
  defaults.mutable_start_timeout()->set_seconds(kDefaultStartSeconds);
  defaults.mutable_stop_grace()->set_seconds(kDefaultGraceSeconds);
  defaults.mutable_idle_stop()->set_seconds(kDefaultIdleSeconds);
  defaults.set_start_contract(v1::START_CONTRACT_ARGV_TEMPLATE);
  defaults.set_claim(v1::CLAIM_OFF);
  return defaults;
}

}  // namespace

bool IsIdleStop(const google::protobuf::Duration& duration) {
  if (duration.nanos() < 0 || duration.nanos() >= 1'000'000'000) return false;
  if (duration.seconds() == 0) return duration.nanos() == 0;
  return duration.seconds() > 0 && duration.seconds() <= kLongestIdleSeconds;
}

const v1::ServiceDefinition& BuiltInZccache() {
  static const v1::ServiceDefinition* const definition = [] {
    auto* built = new v1::ServiceDefinition(Defaults());
    built->set_name("zccache");
    for (const char* arg : {"--foreground", "--endpoint", "{endpoint}",
                            "--log-file", "{log_file}"}) {
      built->add_args(arg);
    }
    // A backstop: four hours, in case no broker is there to end it.
    v1::EnvironmentVariable* idle = built->add_env();
    idle->set_name("ZCCACHE_IDLE_TIMEOUT_SECS");
    idle->set_value("14400");
    built->set_probe(v1::PROBE_ZCCACHE_PING);
    built->set_endpoint_rule(v1::ENDPOINT_RULE_ZCCACHE);
    built->set_claim(v1::CLAIM_ON);
    return built;
  }();
  return *definition;
}

ParsedDefinition ParseDefinition(absl::string_view text, absl::string_view file,
                                 absl::string_view name) {
  ParsedDefinition parsed;
  MistakeList errors(file, &parsed.problems);
  v1::ServiceDefinition definition;
  TextFormat::ParseInfoTree tree;
  if (!ParseText(text, &definition, &tree, &errors)) return parsed;

  if (const absl::Status status = ipc::CheckServiceName(definition.name());
      !status.ok()) {
    errors.AddAt(&tree, definition, "name", -1, std::string(status.message()));
  } else if (definition.name() != name) {
    errors.AddAt(&tree, definition, "name", -1,
                 absl::StrCat("the file defines ", name, ", not ",
                              definition.name(), "; rename one of them"));
  }
  CheckBinaries(definition, tree, &errors);
  CheckStart(definition, tree, &errors);
  if (!parsed.problems.empty()) return parsed;

  std::vector<const FieldDescriptor*> fields;
  v1::ServiceDefinition::GetReflection()->ListFields(definition, &fields);
  for (const FieldDescriptor* field : fields) {
    parsed.set_fields.insert(field->name());
  }
  if (definition.name() == BuiltInZccache().name()) {
    FillFrom(BuiltInZccache(), &definition);
  }
  FillFrom(Defaults(), &definition);
  parsed.definition = std::move(definition);
  return parsed;
}

ParsedDefinition ParseUpstreamDefinition(absl::string_view bytes,
                                         absl::string_view file,
                                         absl::string_view name) {
  ParsedDefinition parsed;
  const auto refuse = [&](std::string what) {
    v1::Problem problem;
    problem.set_where(ipc::Escape(file));
    problem.set_what(std::move(what));
    parsed.problems.push_back(std::move(problem));
    return parsed;
  };
  running_process::broker::v1::ServiceDefinition upstream;
  if (bytes.size() > kMaxTextBytes) return refuse("larger than 1 MiB");
  if (!upstream.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return refuse("is not a running-process ServiceDefinition");
  }
  if (upstream.service_name() != name || !ipc::CheckServiceName(name).ok()) {
    return refuse("its service name is not the file's");
  }
  if (!absl::StartsWith(upstream.binary_path(), "/")) {
    return refuse("its binary path is not absolute");
  }
  if (upstream.version_allow_list_size() != 1) {
    return refuse(absl::StrCat(
        "allows ", upstream.version_allow_list_size(),
        " versions; exactly one says which version the binary is"));
  }
  const std::string& version = upstream.version_allow_list(0);
  if (const absl::Status status = ipc::CheckVersion(version); !status.ok()) {
    return refuse(std::string(status.message()));
  }
  v1::ServiceDefinition definition;
  definition.set_name(upstream.service_name());
  v1::Binary* binary = definition.add_binaries();
  binary->set_path(upstream.binary_path());
  binary->set_version(version);
  definition.set_start_contract(v1::START_CONTRACT_RUNNING_PROCESS);
  definition.set_probe(v1::PROBE_RUNNING_PROCESS_IDENTITY);
  FillFrom(Defaults(), &definition);
  parsed.definition = std::move(definition);
  parsed.allowed_versions = {version};
  return parsed;
}

std::vector<v1::WireLane> LanesOf(const v1::ServiceDefinition& definition,
                                  const v1::Binary& binary,
                                  absl::string_view version) {
  std::vector<v1::WireLane> lanes;
  for (const int lane :
       binary.lanes().empty() ? definition.lanes() : binary.lanes()) {
    lanes.push_back(static_cast<v1::WireLane>(lane));
  }
  if (!lanes.empty()) return lanes;
  if (definition.endpoint_rule() != v1::ENDPOINT_RULE_ZCCACHE) {
    return {v1::WIRE_LANE_OPAQUE};
  }
  for (const ipc::WireLane lane : ipc::ZccacheLanes(version)) {
    switch (lane) {
      case ipc::WireLane::kBincodeV15:
        lanes.push_back(v1::WIRE_LANE_BINCODE_V15);
        break;
      case ipc::WireLane::kProstV16:
        lanes.push_back(v1::WIRE_LANE_PROST_V16);
        break;
      case ipc::WireLane::kFrameV1:
        lanes.push_back(v1::WIRE_LANE_FRAME_V1);
        break;
      case ipc::WireLane::kOpaque:
        lanes.push_back(v1::WIRE_LANE_OPAQUE);
        break;
    }
  }
  return lanes;
}

}  // namespace zcbroker::service
