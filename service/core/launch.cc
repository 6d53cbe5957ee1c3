#include "service/core/launch.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "service/core/trace_context.h"

namespace zcbroker::service {
namespace {

// Who the user is, where their files are and how they read; nothing that
// configures one client, and no secret that happens to be exported.
constexpr absl::string_view kPassedOn[] = {
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
};
// What makes a zccache daemon's world.
constexpr absl::string_view kPassedOnToZccache[] = {
    "ZCCACHE_CACHE_DIR",
    "ZCCACHE_COLOCATE",
    "ZCCACHE_DAEMON_NAMESPACE",
};

bool Contains(absl::Span<const absl::string_view> names,
              absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Upstream's contract (spec broker-v1 section 6.4).
void AddRunningProcessVariables(const StartPlan& plan,
                                const Placeholders& values,
                                std::map<std::string, std::string>* env) {
  constexpr char kPrefix[] = "RUNNING_PROCESS_BROKER_V1_";
  (*env)[absl::StrCat(kPrefix, "SERVICE_NAME")] = plan.definition.name();
  (*env)[absl::StrCat(kPrefix, "SERVICE_VERSION")] = plan.version.version;
  (*env)[absl::StrCat(kPrefix, "BACKEND_PIPE")] = values.endpoint;
  (*env)[absl::StrCat(kPrefix, "BACKEND_NAMESPACE")] = "shared";
  (*env)[absl::StrCat(kPrefix, "INSTANCE")] = "shared";
  (*env)["RUNNING_PROCESS_IS_DAEMON"] = "1";
}

}  // namespace

absl::StatusOr<std::string> ExpandTemplate(absl::string_view text,
                                           const Placeholders& values) {
  std::string expanded;
  while (!text.empty()) {
    const size_t brace = text.find_first_of("{}");
    absl::StrAppend(&expanded, text.substr(0, brace));
    if (brace == absl::string_view::npos) break;
    text.remove_prefix(brace);
    if (absl::StartsWith(text, "{{") || absl::StartsWith(text, "}}")) {
      expanded.push_back(text[0]);
      text.remove_prefix(2);
      continue;
    }
    const size_t end = text.find('}');
    if (text[0] == '}' || end == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          "a lone brace; write {{ or }} for the character itself");
    }
    const absl::string_view name = text.substr(1, end - 1);
    if (name == "endpoint") {
      expanded += values.endpoint;
    } else if (name == "version") {
      expanded += values.version;
    } else if (name == "log_file") {
      expanded += values.log_file;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown placeholder {", name,
                       "}; there are {endpoint}, {version} and {log_file}"));
    }
    text.remove_prefix(end + 1);
  }
  return expanded;
}

LaunchSpec MakeLaunchSpec(
    const StartPlan& plan, const Placeholders& values,
    const std::map<std::string, std::string>& broker_env) {
  const v1::ServiceDefinition& definition = plan.definition;
  LaunchSpec spec;
  spec.binary = plan.version.binary;
  spec.argv.push_back(spec.binary);

  std::map<std::string, std::string> env;
  for (const auto& [name, value] : broker_env) {
    const bool passed =
        Contains(kPassedOn, name) || absl::StartsWith(name, "LC_") ||
        (definition.endpoint_rule() == v1::ENDPOINT_RULE_ZCCACHE &&
         Contains(kPassedOnToZccache, name));
    if (passed) env[name] = value;
  }
  if (definition.start_contract() == v1::START_CONTRACT_RUNNING_PROCESS) {
    AddRunningProcessVariables(plan, values, &env);
  }
  if (!plan.traceparent.empty()) env[kTraceparentVariable] = plan.traceparent;
  // Templates were checked when the definition was read.
  for (const std::string& arg : definition.args()) {
    spec.argv.push_back(ExpandTemplate(arg, values).value_or(arg));
  }
  for (const v1::EnvironmentVariable& variable : definition.env()) {
    env[variable.name()] =
        ExpandTemplate(variable.value(), values).value_or(variable.value());
  }
  for (const auto& [name, value] : env) {
    spec.env.push_back(absl::StrCat(name, "=", value));
  }
  return spec;
}

}  // namespace zcbroker::service
