#include "service/core/outcome.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "ipc/escape.h"

namespace zcbroker::service {
namespace {

constexpr size_t kMaxEchoedBytes = 64;

std::string Echo(absl::string_view text) {
  return absl::CHexEscape(text.substr(0, kMaxEchoedBytes));
}

// Escaped: evidence holds what backends printed, and no raw bytes go onto a
// terminal.
std::vector<std::string> LastLines(const std::vector<std::string>& evidence) {
  std::vector<std::string> kept;
  size_t room = kMaxEvidenceBytes;
  for (size_t i = evidence.size(); i > 0 && kept.size() < kMaxEvidenceLines;
       --i) {
    std::string line = ipc::Escape(evidence[i - 1]);
    if (line.size() > room) {
      if (!kept.empty()) break;
      // Not within a character.
      size_t end = room;
      while ((line[end] & 0xc0) == 0x80) --end;
      line.resize(end);
    }
    room -= line.size();
    kept.push_back(std::move(line));
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
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
  for (std::string& line : LastLines(facts.evidence)) {
    detail.add_evidence(std::move(line));
  }
  detail.set_retry_after_ms(absl::ToInt64Milliseconds(facts.retry_after));
  return refused;
}

}  // namespace zcbroker::service
