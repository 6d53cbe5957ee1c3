#include "service/framed/admin_bodies.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ipc/frame/envelope.h"
#include "nlohmann/json.hpp"

namespace zcbroker::service {
namespace {

// Its objects keep their keys in alphabetical order.
using Json = nlohmann::json;

// The one that a shared upstream broker has.
constexpr char kInstance[] = "shared";

constexpr char kBackendTable[] = "process/backends.json";

// Paths need not be UTF-8, which JSON has to be.
std::string Line(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false,
                   Json::error_handler_t::replace);
}

int64_t UnixMillis(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000 + time.nanos() / 1'000'000;
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

Json Document(const AdminFacts& facts, const char* command) {
  return {{"schema_version", 1},
          {"command", command},
          {"generated_at_unix_ms", absl::ToUnixMillis(facts.now)}};
}

// Upstream's table has those with a process.
std::vector<const v1::Backend*> RunningBackends(const AdminFacts& facts) {
  std::vector<const v1::Backend*> running;
  for (const v1::Backend& backend : facts.backends.backends()) {
    if (backend.has_route()) running.push_back(&backend);
  }
  return running;
}

const char* StateOf(const v1::Backend& backend) {
  return backend.state() == v1::BACKEND_STATE_READY ? "running" : "stale";
}

Json Row(const v1::Backend& backend) {
  return {{"service_name", backend.service()},
          {"service_version", backend.version()},
          {"pid", backend.route().pid()},
          {"backend_pipe", backend.route().endpoint()},
          {"state", StateOf(backend)}};
}

Json Leaf(Json value, const char* source) {
  return {{"value", std::move(value)}, {"source", source}};
}

Json Redactions() { return {"home", "secret-env", "acl-identities"}; }

Json ConfigValues(const AdminFacts& facts, const ServiceDefDir& dir) {
  return {
      {"broker",
       {{"broker_instance", Leaf(kInstance, "runtime")},
        {"broker_pid", Leaf(facts.status.pid(), "runtime")},
        {"accepting_hello", Leaf(true, "runtime")}}},
      {"protocol",
       {{"admin_payload_protocol",
         Leaf(absl::StrFormat("0x%04X", ipc::kAdminProtocol), "protocol-v1")},
        {"envelope_version", Leaf(ipc::kEnvelopeVersion, "protocol-v1")},
        {"framing_version", Leaf(ipc::kFramingVersion, "protocol-v1")}}},
      {"limits",
       {{"max_frame_bytes", Leaf(ipc::kMaxFrameBodyBytes, "protocol-v1")},
        {"max_hello_bytes", Leaf(ipc::kMaxHelloBodyBytes, "protocol-v1")},
        {"connections_open", Leaf(facts.status.connections(), "runtime")}}},
      {"paths",
       {{"service_definition_dir",
         Leaf(dir.path, dir.from_environment
                            ? "env:RUNNING_PROCESS_SERVICE_DEF_DIR"
                            : "platform-default")}}},
      {"spawn_budget",
       {{"default_attempts_per_window", Leaf(3, "default")},
        {"default_window_ms", Leaf(30000, "default")},
        {"active_budget_rows", Leaf(0, "runtime")}}},
      {"diagnostics",
       {{"bundle_format", Leaf("tar.gz", "schema-v1")},
        {"bundle_mode", Leaf("metadata-only", "schema-v1")},
        {"redactions", Leaf(Redactions(), "schema-v1")}}},
  };
}

}  // namespace

std::string AdminStatus(const AdminFacts& facts) {
  Json json = Document(facts, "status");
  json["broker_instance"] = kInstance;
  json["broker_pid"] = facts.status.pid();
  json["uptime_seconds"] = Seconds(facts.status.uptime());
  json["accepting_hello"] = true;
  json["connections_open"] = facts.status.connections();
  json["backends"] = Json::array();
  for (const v1::Backend* backend : RunningBackends(facts)) {
    Json row = Row(*backend);
    row["last_active_unix_ms"] = UnixMillis(backend->since());
    json["backends"].push_back(std::move(row));
  }
  return Line(json);
}

std::string AdminDump(const AdminFacts& facts, const ServiceDefDir& dir) {
  Json json = Document(facts, "dump");
  json["broker_instance"] = kInstance;
  json["effective_config"] = ConfigValues(facts, dir);
  json["backend_table"] = Json::array();
  for (const v1::Backend* backend : RunningBackends(facts)) {
    json["backend_table"].push_back(Row(*backend));
  }
  json["spawn_budgets"] = Json::array();
  json["recent_lifecycle_events"] = Json::array();
  return Line(json);
}

std::string AdminInstances(const AdminFacts& facts) {
  Json json = Document(facts, "list-instances");
  json["instances"] = Json::array({{{"broker_instance", kInstance},
                                    {"pipe", ""},
                                    {"pid", facts.status.pid()},
                                    {"state", "running"}}});
  return Line(json);
}

std::string AdminBackendHealth(const AdminFacts& facts,
                               absl::string_view service) {
  Json json = Document(facts, "backend-health");
  json["service_name"] =
      service.empty() ? std::string("unknown") : std::string(service);
  json["backends"] = Json::array();
  for (const v1::Backend& backend : facts.backends.backends()) {
    if (backend.service() != service) continue;
    json["backends"].push_back(
        {{"service_version", backend.version()},
         {"pid", backend.route().pid()},
         {"state", StateOf(backend)},
         {"last_hello_unix_ms", UnixMillis(backend.since())},
         {"last_error",
          backend.evidence().empty()
              ? Json()
              : Json(backend.evidence(backend.evidence_size() - 1))}});
  }
  return Line(json);
}

std::string AdminConfig(const AdminFacts& facts, const ServiceDefDir& dir) {
  Json json = Document(facts, "config");
  json["values"] = ConfigValues(facts, dir);
  return Line(json);
}

std::string AdminDiagnose(const AdminFacts& facts, absl::string_view output) {
  const struct {
    const char* path;
    const char* kind;
    const char* source;
    bool required;
    bool redacted;
  } kEntries[] = {
      {"admin/status.json", "json", "status", true, false},
      {"admin/dump.json", "json", "dump", true, true},
      {"config/effective.json", "json", "effective-config", true, false},
      {"metrics/openmetrics.txt", "openmetrics", "metrics", true, false},
      {"events/lifecycle.jsonl", "jsonl", "lifecycle-events", false, true},
      {"manifest/backend-manifests.json", "json", "backend-manifest-index",
       false, true},
      {kBackendTable, "json", "backend-table", true, true},
      {"system/summary.json", "json", "host-summary", false, true},
  };
  Json entries = Json::array();
  Json files = Json::array();
  for (const auto& entry : kEntries) {
    entries.push_back({{"path", entry.path},
                       {"kind", entry.kind},
                       {"source", entry.source},
                       {"required", entry.required},
                       {"redacted", entry.redacted}});
    if (entry.path == kBackendTable) {
      entries.back()["record_count"] = RunningBackends(facts).size();
    }
    files.push_back(entry.path);
  }
  Json json = Document(facts, "diagnose");
  json["output"] = std::string(output);
  json["bundle"] = {{"format", "tar.gz"},
                    {"mode", "metadata-only"},
                    {"created", false},
                    {"entries", std::move(entries)}};
  json["files"] = std::move(files);
  json["redactions"] = Redactions();
  json["redaction_policy"] = {
      {{"name", "home"}, {"replacement", "~"}},
      {{"name", "secret-env"}, {"matches", {"KEY", "TOKEN", "SECRET", "PASS"}}},
      {{"name", "acl-identities"}, {"replacement", "stable-hash"}}};
  return Line(json);
}

// Names, types and order are frozen upstream; only what has no labels has a
// sample there, and so here. More is in zcbroker's own metrics.
std::string AdminMetrics(const AdminFacts& facts) {
  constexpr absl::string_view kPrefix = "running_process_broker_v1_";
  const std::string samples[] = {absl::StrCat(facts.status.connections()), "0",
                                 absl::StrCat(facts.status.uptime().seconds())};
  const struct {
    const char* name;
    const char* type;
    const std::string* sample;
  } kMetrics[] = {
      {"hello_total", "counter", nullptr},
      {"hello_duration_seconds", "histogram", nullptr},
      {"active_backends", "gauge", nullptr},
      {"spawn_attempts_total", "counter", nullptr},
      {"spawn_budget_remaining", "gauge", nullptr},
      {"connections_open", "gauge", &samples[0]},
      {"fd_usage_ratio", "gauge", &samples[1]},
      {"uptime_seconds", "gauge", &samples[2]},
  };
  std::string text;
  for (const auto& metric : kMetrics) {
    absl::StrAppend(&text, "# TYPE ", kPrefix, metric.name, " ", metric.type,
                    "\n");
    if (metric.sample != nullptr) {
      absl::StrAppend(&text, kPrefix, metric.name, " ", *metric.sample, "\n");
    }
  }
  return absl::StrCat(text, "# EOF\n");
}

}  // namespace zcbroker::service
