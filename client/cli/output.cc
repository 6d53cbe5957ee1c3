#include "client/cli/output.h"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "client/cli/exit_status.h"
#include "client/cli/report.pb.h"
#include "client/fallback.h"
#include "client/grpc_negotiator.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/environment.h"
#include "ipc/escape.h"
#include "ipc/runtime_dir.h"
#include "proto/zcbroker/v1/refusals.h"

namespace zcbroker::cli {
namespace {

int ExitStatusOf(const absl::Status& status) {
  if (const auto name = client::RefusalNameOf(status)) {
    const RefusalTraits* traits = FindRefusal(*name);
    return traits != nullptr ? traits->exit_status : kExitFailure;
  }
  switch (client::FallbackReasonOf(status)) {
    case client::FallbackReason::kBrokerMissing:
    case client::FallbackReason::kBrokerRefused:
    case client::FallbackReason::kBrokerUnreachable:
    case client::FallbackReason::kBrokerForeign:
    case client::FallbackReason::kBrokerMute:
    case client::FallbackReason::kBrokerSlow:
    case client::FallbackReason::kBrokerClosed:
    case client::FallbackReason::kBrokerGarbage:
    case client::FallbackReason::kBrokerWrongReply:
      return kExitNoBroker;
    default:
      return kExitFailure;
  }
}

// Without what a terminal would obey; lines stay lines.
std::string ForTerminal(absl::string_view text) {
  return ipc::EscapeAllBut('\n', text);
}

// `text` as the parts of a sentence, each between two marks.
std::string Parts(absl::string_view text) {
  return absl::StrCat(
      "; ", absl::StrReplaceAll(text, {{": ", "; "}, {", ", "; "}}), "; ");
}

// Whether `line` is `sentence`, or parts of it: what stands between colons,
// semicolons and commas. A word of it is not enough.
bool Says(absl::string_view sentence, absl::string_view line) {
  return absl::StrContains(Parts(sentence), Parts(line));
}

// What to do where no broker answered as one does. One that is mute is not
// helped by another, and where the place cannot be used the message says what
// to mend.
void PrintWayOut(client::FallbackReason reason) {
  switch (reason) {
    case client::FallbackReason::kBrokerMute:
    case client::FallbackReason::kBrokerUnreachable:
      return;
    case client::FallbackReason::kBrokerMissing:
    case client::FallbackReason::kBrokerRefused: {
      const auto dir = ipc::RuntimeDir::Find(
          ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
      if (dir.ok()) {
        for (const std::string& why : dir->passed_over()) {
          fprintf(stderr, "  passed over: %s\n", ForTerminal(why).c_str());
        }
      }
      fprintf(stderr, "  start one with: %s\n", UpCommand().c_str());
      return;
    }
    default:
      fprintf(stderr, "  what is wrong there: zcbroker doctor\n");
  }
}

bool CarriesReason(const absl::Status& status) {
  bool any = false;
  status.ForEachPayload(
      [&](absl::string_view, const absl::Cord&) { any = true; });
  return any;
}

}  // namespace

void PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  // Only text that is not UTF-8 cannot be printed.
  if (!status.ok()) json = "{}";
  printf("{\"schema\":\"%s/%d\"%s%s\n",
         message.GetDescriptor()->full_name().c_str(), kJsonSchema,
         json == "{}" ? "" : ",", json.c_str() + 1);
}

std::string UpCommand() {
  return geteuid() == 0 ? "zcbroker up --allow-root" : "zcbroker up";
}

int PrintFailure(Format format, const absl::Status& status) {
  const int exit_status =
      CarriesReason(status) ? ExitStatusOf(status) : kExitFailure;
  const auto refusal = client::RefusalNameOf(status);
  const auto detail = client::RefusalDetailOf(status);
  if (format == Format::kJson) {
    ErrorReport report;
    report.set_reason(refusal.has_value() ? *refusal
                      : CarriesReason(status)
                          ? std::string(client::FallbackReasonName(
                                client::FallbackReasonOf(status)))
                          : absl::StatusCodeToString(status.code()));
    report.set_message(std::string(status.message()));
    report.set_exit_status(exit_status);
    if (detail.has_value()) *report.mutable_refusal() = *detail;
    PrintJson(report);
    return exit_status;
  }
  const client::FallbackReason reason = client::FallbackReasonOf(status);
  fprintf(stderr, "zcbroker: %s%s\n",
          exit_status == kExitNoBroker &&
                  reason == client::FallbackReason::kBrokerMissing
              ? "no broker runs: "
              : "",
          ForTerminal(status.message()).c_str());
  if (detail.has_value()) {
    for (const std::string& line : detail->evidence()) {
      // What the sentence says already.
      if (Says(status.message(), line)) continue;
      fprintf(stderr, "  %s\n", ForTerminal(line).c_str());
    }
    if (detail->retry_after_ms() > 0) {
      fprintf(stderr, "  try again in %s\n",
              Spell(absl::Milliseconds(detail->retry_after_ms())).c_str());
    }
  }
  if (exit_status == kExitNoBroker) PrintWayOut(reason);
  return exit_status;
}

std::string Spell(absl::Duration duration) {
  const double millis = absl::ToDoubleMilliseconds(duration);
  if (millis >= 1000) return absl::StrFormat("%.2f s", millis / 1000);
  if (millis >= 1) return absl::StrFormat("%.1f ms", millis);
  return absl::StrFormat("%.3f ms", millis);
}

std::string KindName(v1::EventKind kind) {
  std::string name = v1::EventKind_Name(kind);
  name = name.empty() ? "unknown" : name.substr(sizeof("EVENT_KIND_") - 1);
  for (char& c : name) {
    c = c == '_' ? ' ' : static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  return name;
}

const char* StateName(v1::BackendState state) {
  switch (state) {
    case v1::BACKEND_STATE_STARTING:
      return "starting";
    case v1::BACKEND_STATE_READY:
      return "ready";
    case v1::BACKEND_STATE_SUSPECT:
      return "suspect";
    case v1::BACKEND_STATE_WEDGED:
      return "wedged";
    case v1::BACKEND_STATE_DRAINING:
      return "draining";
    case v1::BACKEND_STATE_ENDING:
      return "ending";
    case v1::BACKEND_STATE_BACKOFF:
      return "backoff";
    case v1::BACKEND_STATE_BROKEN:
      return "broken";
    case v1::BACKEND_STATE_GONE:
      return "gone";
    default:
      return "unknown";
  }
}

std::string RefusalName(v1::Refusal refusal) {
  return std::string(absl::StripPrefix(v1::Refusal_Name(refusal), "REFUSAL_"));
}

uint64_t CountOf(const v1::GetStatusResponse& status, absl::string_view name) {
  uint64_t sum = 0;
  for (const auto& [counter, count] : status.counters()) {
    if (counter == name || absl::StartsWith(counter, absl::StrCat(name, "."))) {
      sum += count;
    }
  }
  return sum;
}

}  // namespace zcbroker::cli
