#include "service/core/policy.h"

#include <cstdint>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "ipc/names.h"
#include "proto/zcbroker/v1/times.h"
#include "service/core/connection_limits.h"
#include "service/core/definition.h"
#include "service/core/machine.h"
#include "service/core/mistakes.h"

namespace zcbroker::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

constexpr absl::Duration kLongestKept = absl::Hours(365 * 24);

// Every element of a repeated field: well-formed, and there once.
void CheckVersions(const google::protobuf::RepeatedPtrField<std::string>& all,
                   const char* field, const v1::ServicePolicy& service,
                   const TextFormat::ParseInfoTree* tree,
                   MistakeList* mistakes) {
  std::set<std::string> seen;
  for (int i = 0; i < all.size(); ++i) {
    if (const absl::Status status = ipc::CheckVersion(all[i]); !status.ok()) {
      mistakes->AddAt(tree, service, field, i, std::string(status.message()));
    } else if (!seen.insert(all[i]).second) {
      mistakes->AddAt(tree, service, field, i,
                      absl::StrCat("version ", all[i], " is there twice"));
    }
  }
}

void CheckIdleStop(const google::protobuf::Duration& idle_stop,
                   const TextFormat::ParseInfoTree* tree,
                   const Message& message, MistakeList* mistakes) {
  if (IsIdleStop(idle_stop)) return;
  mistakes->AddAt(tree, message, "idle_stop", -1,
                  "must be 0 s (never), or from 1 s to 30 days");
}

// Whatever is pinned may run.
void CheckPins(const v1::ServicePolicy& service,
               const TextFormat::ParseInfoTree* tree, MistakeList* mistakes) {
  v1::Policy alone;
  *alone.add_services() = service;
  Catalog rules;
  ApplyPolicy(alone, "", &rules);
  for (int i = 0; i < service.pinned_versions_size(); ++i) {
    const std::string& pinned = service.pinned_versions(i);
    const std::string why = WhyBlocked(rules.versions, service.name(), pinned);
    if (why.empty()) continue;
    mistakes->AddAt(tree, service, "pinned_versions", i,
                    absl::StrCat(pinned, " is pinned and ", why));
  }
}

void CheckServices(const v1::Policy& policy,
                   const TextFormat::ParseInfoTree& tree,
                   MistakeList* mistakes) {
  std::set<std::string> allowed;
  for (int i = 0; i < policy.allowed_services_size(); ++i) {
    const std::string& name = policy.allowed_services(i);
    if (const absl::Status status = ipc::CheckServiceName(name); !status.ok()) {
      mistakes->AddAt(&tree, policy, "allowed_services", i,
                      std::string(status.message()));
    } else if (!allowed.insert(name).second) {
      mistakes->AddAt(&tree, policy, "allowed_services", i,
                      absl::StrCat("service ", name, " is there twice"));
    }
  }
  const FieldDescriptor* field =
      v1::Policy::descriptor()->FindFieldByName("services");
  std::set<std::string> names;
  for (int i = 0; i < policy.services_size(); ++i) {
    const v1::ServicePolicy& service = policy.services(i);
    const TextFormat::ParseInfoTree* inner = tree.GetTreeForNested(field, i);
    if (const absl::Status status = ipc::CheckServiceName(service.name());
        !status.ok()) {
      mistakes->AddAt(inner, service, "name", -1,
                      std::string(status.message()));
    } else if (!names.insert(service.name()).second) {
      mistakes->AddAt(
          inner, service, "name", -1,
          absl::StrCat("service ", service.name(), " has rules already"));
    }
    CheckVersions(service.allowed_versions(), "allowed_versions", service,
                  inner, mistakes);
    CheckVersions(service.blocked_versions(), "blocked_versions", service,
                  inner, mistakes);
    CheckVersions(service.pinned_versions(), "pinned_versions", service, inner,
                  mistakes);
    if (!service.version_floor().empty()) {
      if (const absl::Status status =
              ipc::CheckVersion(service.version_floor());
          !status.ok()) {
        mistakes->AddAt(inner, service, "version_floor", -1,
                        std::string(status.message()));
        continue;
      }
    }
    if (service.has_idle_stop()) {
      CheckIdleStop(service.idle_stop(), inner, service, mistakes);
    }
    CheckPins(service, inner, mistakes);
  }
}

void CheckLimits(const v1::Policy& policy,
                 const TextFormat::ParseInfoTree& tree, MistakeList* mistakes) {
  const v1::PolicyLimits& limits = policy.limits();
  const TextFormat::ParseInfoTree* inner = tree.GetTreeForNested(
      v1::Policy::descriptor()->FindFieldByName("limits"), -1);
  const auto check = [&](bool set, uint32_t value, size_t most,
                         const char* field) {
    if (!set || (value >= 1 && value <= most)) return;
    mistakes->AddAt(
        inner, limits, field, -1,
        absl::StrCat("a policy may only lower it: from 1 to ", most));
  };
  const Limits ours;
  check(limits.has_concurrent_starts(), limits.concurrent_starts(),
        ours.concurrent_starts, "concurrent_starts");
  check(limits.has_waiters_per_start(), limits.waiters_per_start(),
        ours.waiters_per_start, "waiters_per_start");
  const ConnectionLimits connections;
  check(limits.has_connections(), limits.connections(), connections.connections,
        "connections");
  check(limits.has_connections_per_process(), limits.connections_per_process(),
        connections.connections_per_process, "connections_per_process");
  check(limits.has_relayed_connections(), limits.relayed_connections(),
        connections.relayed_connections, "relayed_connections");
}

void CheckPermission(int permission, const char* field,
                     const v1::Policy& policy,
                     const TextFormat::ParseInfoTree& tree,
                     MistakeList* mistakes) {
  // The text format takes any number for an enum of proto3.
  if (v1::Permission_IsValid(permission)) return;
  mistakes->AddAt(&tree, policy, field, -1,
                  "must be PERMISSION_ALLOWED or PERMISSION_FORBIDDEN");
}

// The policy's word about how long a service's backends may be unused.
absl::optional<google::protobuf::Duration> IdleStopOf(
    const v1::Policy& policy, const std::string& service) {
  for (const v1::ServicePolicy& rules : policy.services()) {
    if (rules.name() == service && rules.has_idle_stop()) {
      return rules.idle_stop();
    }
  }
  if (policy.has_idle_stop()) return policy.idle_stop();
  return absl::nullopt;
}

template <typename Strings>
std::string ListOr(const Strings& strings, const char* none) {
  return strings.empty() ? none : absl::StrJoin(strings, ", ");
}

std::string Permitted(v1::Permission permission) {
  return permission == v1::PERMISSION_FORBIDDEN ? "forbidden" : "allowed";
}

std::string OrNever(const google::protobuf::Duration& duration) {
  const absl::Duration span = FromProto(duration);
  return span == absl::ZeroDuration() ? "never" : absl::FormatDuration(span);
}

}  // namespace

ParsedPolicy ParsePolicy(absl::string_view text, absl::string_view file) {
  ParsedPolicy parsed;
  MistakeList mistakes(file, &parsed.problems);
  v1::Policy policy;
  TextFormat::ParseInfoTree tree;
  if (!ParseText(text, &policy, &tree, &mistakes)) return parsed;
  CheckServices(policy, tree, &mistakes);
  if (policy.has_idle_stop()) {
    CheckIdleStop(policy.idle_stop(), &tree, policy, &mistakes);
  }
  if (policy.has_keep_used_for()) {
    const google::protobuf::Duration& kept = policy.keep_used_for();
    if (policy.keep_newest() == 0) {
      mistakes.AddAt(&tree, policy, "keep_used_for", -1,
                     "says nothing without keep_newest");
    } else if (kept.seconds() < 1 || kept.nanos() < 0 ||
               kept.nanos() >= 1'000'000'000 ||
               FromProto(kept) > kLongestKept) {
      mistakes.AddAt(&tree, policy, "keep_used_for", -1,
                     "must be from 1 s to 365 days");
    }
  }
  CheckLimits(policy, tree, &mistakes);
  CheckPermission(policy.user_definitions(), "user_definitions", policy, tree,
                  &mistakes);
  CheckPermission(policy.claim(), "claim", policy, tree, &mistakes);
  if (parsed.problems.empty()) parsed.policy = std::move(policy);
  return parsed;
}

void ApplyPolicy(const v1::Policy& policy, const std::string& file,
                 Catalog* catalog) {
  VersionPolicy& rules = catalog->versions;
  rules.source = file;
  rules.services = {policy.allowed_services().begin(),
                    policy.allowed_services().end()};
  rules.keep_newest = policy.keep_newest();
  if (policy.has_keep_used_for()) {
    rules.keep_used_for = FromProto(policy.keep_used_for());
  }
  for (const v1::ServicePolicy& service : policy.services()) {
    const std::string& name = service.name();
    for (const std::string& version : service.blocked_versions()) {
      rules.blocked.insert({name, version});
    }
    for (const std::string& version : service.pinned_versions()) {
      rules.pinned.insert({name, version});
    }
    if (!service.allowed_versions().empty()) {
      rules.allowed[name] = {service.allowed_versions().begin(),
                             service.allowed_versions().end()};
    }
    if (!service.version_floor().empty()) {
      rules.floors[name] = service.version_floor();
    }
  }
  const v1::PolicyLimits& limits = policy.limits();
  if (limits.has_concurrent_starts()) {
    rules.concurrent_starts = limits.concurrent_starts();
  }
  if (limits.has_waiters_per_start()) {
    rules.waiters_per_start = limits.waiters_per_start();
  }
  ConnectionLimits& connections = catalog->connection_limits;
  if (limits.has_connections()) connections.connections = limits.connections();
  if (limits.has_connections_per_process()) {
    connections.connections_per_process = limits.connections_per_process();
  }
  if (limits.has_relayed_connections()) {
    connections.relayed_connections = limits.relayed_connections();
  }
  for (auto& [name, service] : catalog->services) {
    const auto idle_stop = IdleStopOf(policy, name);
    if (idle_stop.has_value()) {
      *service.definition.mutable_idle_stop() = *idle_stop;
      service.set_by["idle_stop"] = file;
    }
    if (policy.claim() == v1::PERMISSION_FORBIDDEN) {
      service.definition.set_claim(v1::CLAIM_OFF);
      service.set_by["claim"] = file;
    }
  }
}

std::vector<v1::Setting> EffectiveSettings(const v1::Policy& policy,
                                           const std::string& file,
                                           const Catalog& catalog) {
  std::vector<v1::Setting> settings;
  const auto add = [&](std::string name, std::string value,
                       std::string source) {
    v1::Setting& setting = settings.emplace_back();
    setting.set_name(std::move(name));
    setting.set_value(std::move(value));
    setting.set_source(std::move(source));
  };
  const auto add_ruled = [&](std::string name, std::string value, bool ruled) {
    add(std::move(name), std::move(value), ruled ? file : "default");
  };
  const VersionPolicy& rules = catalog.versions;
  const Limits ours;
  add_ruled("allowed_services", ListOr(rules.services, "any"),
            !rules.services.empty());
  add_ruled("user_definitions", Permitted(policy.user_definitions()),
            policy.user_definitions() != v1::PERMISSION_UNSPECIFIED);
  add_ruled("claim", Permitted(policy.claim()),
            policy.claim() != v1::PERMISSION_UNSPECIFIED);
  add_ruled("keep_newest",
            rules.keep_newest == 0 ? "all" : absl::StrCat(rules.keep_newest),
            rules.keep_newest != 0);
  add_ruled("keep_used_for", absl::FormatDuration(rules.keep_used_for),
            policy.has_keep_used_for());
  add_ruled(
      "limits.concurrent_starts",
      absl::StrCat(rules.concurrent_starts.value_or(ours.concurrent_starts)),
      rules.concurrent_starts.has_value());
  add_ruled(
      "limits.waiters_per_start",
      absl::StrCat(rules.waiters_per_start.value_or(ours.waiters_per_start)),
      rules.waiters_per_start.has_value());
  const v1::PolicyLimits& limits = policy.limits();
  const ConnectionLimits& connections = catalog.connection_limits;
  add_ruled("limits.connections", absl::StrCat(connections.connections),
            limits.has_connections());
  add_ruled("limits.connections_per_process",
            absl::StrCat(connections.connections_per_process),
            limits.has_connections_per_process());
  add_ruled("limits.relayed_connections",
            absl::StrCat(connections.relayed_connections),
            limits.has_relayed_connections());

  // Rules also about services that nobody has defined.
  std::set<std::string> names;
  for (const auto& [name, service] : catalog.services) names.insert(name);
  std::map<std::string, v1::ServicePolicy> ruled;
  for (const v1::ServicePolicy& service : policy.services()) {
    names.insert(service.name());
    ruled[service.name()] = service;
  }
  for (const std::string& name : names) {
    const std::string prefix = absl::StrCat("service.", name, ".");
    const v1::ServicePolicy& service = ruled[name];
    add_ruled(prefix + "allowed_versions",
              ListOr(service.allowed_versions(), "any"),
              !service.allowed_versions().empty());
    add_ruled(prefix + "blocked_versions",
              ListOr(service.blocked_versions(), "none"),
              !service.blocked_versions().empty());
    add_ruled(
        prefix + "version_floor",
        service.version_floor().empty() ? "none" : service.version_floor(),
        !service.version_floor().empty());
    add_ruled(prefix + "pinned_versions",
              ListOr(service.pinned_versions(), "none"),
              !service.pinned_versions().empty());
    const auto known = catalog.services.find(name);
    if (known == catalog.services.end()) continue;
    const v1::ServiceDefinition& definition = known->second.definition;
    const auto add_field = [&](const char* field, std::string value) {
      const auto set = known->second.set_by.find(field);
      add(prefix + field, std::move(value),
          set != known->second.set_by.end() ? set->second : "default");
    };
    std::vector<std::string> installed;
    for (const InstalledVersion& version : known->second.versions) {
      installed.push_back(version.version);
    }
    add(prefix + "binaries", ListOr(installed, "none"), known->second.source);
    add_field("idle_stop", OrNever(definition.idle_stop()));
    add_field("claim", definition.claim() == v1::CLAIM_ON ? "on" : "off");
    add_field("start_timeout",
              absl::FormatDuration(FromProto(definition.start_timeout())));
    add_field("stop_grace",
              absl::FormatDuration(FromProto(definition.stop_grace())));
  }
  return settings;
}

}  // namespace zcbroker::service
