// Looking at a backend that somebody saw fail: does it work, is it ending, or
// is it wedged? Busy is not wedged: under 128 compilers an answer takes up to
// half a second. Source: design section 5, "Suspect".
#ifndef ZCBROKER_SERVICE_HOST_EXAMINATION_H_
#define ZCBROKER_SERVICE_HOST_EXAMINATION_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "asio/io_context.hpp"
#include "ipc/endpoint.h"
#include "ipc/process.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::service {

enum class Finding {
  // It answers, or is at work: uses CPU time or has running children.
  kWorks,
  // It has ended, is ending, or listens no more.
  kEnding,
  // It is stopped (state T), or two probes of 1 s went unanswered while it
  // used no CPU time and had no running children.
  kWedged,
};

// One look. Destroying the handle cancels it: `done` is not called then.
class Examination {
 public:
  virtual ~Examination() = default;
};

// Calls `done` once from the loop, never before this call returns, with what
// was seen, a line each. Takes 2 s at most; a stopped process is seen at once.
[[nodiscard]] std::unique_ptr<Examination> StartExamination(
    asio::io_context& loop, const ipc::ProcessIdentity& process,
    const ipc::Endpoint& endpoint, v1::Probe probe,
    std::function<void(Finding, std::vector<std::string> evidence)> done);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_EXAMINATION_H_
