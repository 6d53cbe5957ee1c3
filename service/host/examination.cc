#include "service/host/examination.h"

#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "asio/post.hpp"
#include "service/host/prober.h"
#include "service/host/process_group.h"

namespace zcbroker::service {
namespace {

constexpr std::chrono::milliseconds kProbePatience(1000);
constexpr int kProbes = 2;

class Look : public std::enable_shared_from_this<Look> {
 public:
  Look(asio::io_context& loop, ipc::ProcessIdentity process,
       ipc::Endpoint endpoint, v1::Probe probe,
       std::function<void(Finding, std::vector<std::string>)> done)
      : loop_(loop),
        process_(std::move(process)),
        endpoint_(std::move(endpoint)),
        probe_kind_(probe),
        done_(std::move(done)) {}

  void Begin() {
    const absl::optional<ipc::ProcessStat> stat = StillThere();
    if (!stat.has_value()) return;
    cpu_ticks_ = stat->cpu_ticks;
    probe_ = StartProbe(
        loop_, endpoint_, probe_kind_, kProbePatience,
        [self = shared_from_this()](const absl::StatusOr<Probed>& probed) {
          self->probe_.reset();
          self->Answered(probed.status());
        });
  }

  void Cancel() {
    done_ = nullptr;
    probe_.reset();
  }

 private:
  // Nothing, and the verdict is out, where its state says enough.
  absl::optional<ipc::ProcessStat> StillThere() {
    const absl::StatusOr<ipc::ProcessStat> stat =
        ipc::ReadProcessStat(process_.pid);
    if (!stat.ok() || stat->start_time != process_.start_time ||
        stat->ended() || stat->exiting) {
      Decide(Finding::kEnding,
             absl::StrCat("process ", process_.pid, " is ending"));
      return absl::nullopt;
    }
    if (stat->stopped()) {
      Decide(Finding::kWedged,
             absl::StrCat("process ", process_.pid, " is stopped (state ",
                          std::string(1, stat->state), ")"));
      return absl::nullopt;
    }
    return *stat;
  }

  void Answered(const absl::Status& status) {
    if (absl::IsUnavailable(status) || absl::IsNotFound(status)) {
      Decide(Finding::kEnding,
             absl::StrCat("nobody listens at ", endpoint_.path(), " any more"));
      return;
    }
    if (!absl::IsDeadlineExceeded(status) && !absl::IsAborted(status)) {
      // Whatever it said, it is not wedged.
      Decide(Finding::kWorks, "it answers");
      return;
    }
    const absl::optional<ipc::ProcessStat> stat = StillThere();
    if (!stat.has_value()) return;
    if (stat->cpu_ticks != cpu_ticks_) {
      Decide(Finding::kWorks, "it does not answer, but uses CPU time");
      return;
    }
    if (HasRunningChildren(process_.pid)) {
      Decide(Finding::kWorks, "it does not answer, but has running children");
      return;
    }
    if (WaitsForDisk(process_.pid)) {
      Decide(Finding::kWorks, "it does not answer, but waits for a disk");
      return;
    }
    ++unanswered_;
    if (unanswered_ < kProbes) {
      Begin();
      return;
    }
    evidence_.push_back(absl::StrCat(
        "process ", process_.pid, " left ", kProbes, " probes of ",
        kProbePatience.count(), " ms unanswered, used no CPU time and has no ",
        "running children"));
    Decide(Finding::kWedged,
           absl::StrCat("state ", std::string(1, stat->state), ", ",
                        stat->threads, " threads, waits in ",
                        ipc::WaitChannel(process_.pid).value_or("?")));
  }

  void Decide(Finding finding, std::string seen) {
    evidence_.push_back(std::move(seen));
    asio::post(loop_, [self = shared_from_this(), finding] {
      if (auto done = std::exchange(self->done_, nullptr)) {
        done(finding, self->evidence_);
      }
    });
  }

  asio::io_context& loop_;
  const ipc::ProcessIdentity process_;
  const ipc::Endpoint endpoint_;
  const v1::Probe probe_kind_;
  std::function<void(Finding, std::vector<std::string>)> done_;
  std::unique_ptr<ProbeHandle> probe_;
  uint64_t cpu_ticks_ = 0;
  int unanswered_ = 0;
  std::vector<std::string> evidence_;
};

class OwnedLook : public Examination {
 public:
  explicit OwnedLook(std::shared_ptr<Look> look) : look_(std::move(look)) {}
  ~OwnedLook() override { look_->Cancel(); }

 private:
  const std::shared_ptr<Look> look_;
};

}  // namespace

std::unique_ptr<Examination> StartExamination(
    asio::io_context& loop, const ipc::ProcessIdentity& process,
    const ipc::Endpoint& endpoint, v1::Probe probe,
    std::function<void(Finding, std::vector<std::string>)> done) {
  auto look =
      std::make_shared<Look>(loop, process, endpoint, probe, std::move(done));
  look->Begin();
  return std::make_unique<OwnedLook>(std::move(look));
}

}  // namespace zcbroker::service
