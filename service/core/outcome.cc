#include "service/core/outcome.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "service/core/escape.h"

namespace zcbroker::service {
namespace {

constexpr size_t kMaxEchoedBytes = 64;

std::string Echo(absl::string_view text) {
  return absl::CHexEscape(text.substr(0, kMaxEchoedBytes));
}

}  // namespace

Refused Refuse(v1::Refusal refusal, std::string text,
               const std::string& service, const std::string& version,
               RefusalFacts facts) {
  Refused refused;
  refused.text = std::move(text);
  v1::RefusalDetail& detail = refused.detail;
  detail.set_refusal(refusal);
  detail.set_service(Echo(service));
  detail.set_version(Echo(version));
  for (std::string& installed : facts.installed_versions) {
    detail.add_installed_versions(std::move(installed));
  }
  const size_t lines = std::min(facts.evidence.size(), kMaxEvidenceLines);
  for (size_t i = facts.evidence.size() - lines; i < facts.evidence.size();
       ++i) {
    // Evidence holds what backends printed: never raw bytes onto a terminal.
    detail.add_evidence(Escape(facts.evidence[i]));
  }
  detail.set_retry_after_ms(absl::ToInt64Milliseconds(facts.retry_after));
  return refused;
}

}  // namespace zcbroker::service
