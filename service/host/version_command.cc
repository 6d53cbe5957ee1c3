#include "service/host/version_command.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "asio/posix/stream_descriptor.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/names.h"
#include "ipc/unique_fd.h"
#include "service/host/spawn.h"

namespace zcbroker::service {
namespace {

constexpr std::chrono::seconds kPatience(2);
constexpr size_t kMaxOutput = 4096;

// One run; kept alive by its own pending operations.
class Run : public std::enable_shared_from_this<Run> {
 public:
  Run(asio::io_context& loop, std::string binary,
      std::function<void(absl::StatusOr<std::string>)> done)
      : binary_(std::move(binary)),
        done_(std::move(done)),
        output_(loop),
        timer_(loop) {}

  void Start(Reaper& reaper, const std::vector<std::string>& env) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
      Finish(absl::ErrnoToStatus(errno, "pipe"));
      return;
    }
    output_.assign(ends[0]);
    const ipc::UniqueFd write_end(ends[1]);
    const absl::StatusOr<pid_t> pid = Spawn({binary_,
                                             {binary_, "--version"},
                                             env,
                                             write_end.get(),
                                             /*discard_errors=*/true});
    if (!pid.ok()) {
      Finish(pid.status());
      return;
    }
    pid_ = *pid;
    const auto self = shared_from_this();
    reaper.Watch(
        *pid,
        [self](ExitStatus status) {
          self->exit_ = status;
          self->Conclude();
        },
        [pid = *pid] { kill(-pid, SIGKILL); });
    timer_.expires_after(kPatience);
    timer_.async_wait([self](const asio::error_code& error) {
      if (error) return;
      self->timed_out_ = true;
      // Reaped later, so the pid is still its own.
      if (!self->exit_.has_value()) kill(-self->pid_, SIGKILL);
      self->eof_ = true;
      self->Conclude();
    });
    Read();
  }

 private:
  void Read() {
    output_.async_read_some(
        asio::buffer(buffer_),
        [self = shared_from_this()](const asio::error_code& error, size_t n) {
          self->text_.append(self->buffer_.data(), n);
          if (error || self->text_.size() > kMaxOutput) {
            self->eof_ = true;
            self->Conclude();
            return;
          }
          self->Read();
        });
  }

  void Conclude() {
    if (!exit_.has_value() || !eof_ || !done_) return;
    if (timed_out_) {
      Finish(absl::DeadlineExceededError(
          absl::StrCat(binary_, " --version did not end within 2 s")));
    } else if (!exit_->success()) {
      Finish(absl::FailedPreconditionError(
          absl::StrCat(binary_, " --version ", exit_->ToString())));
    } else {
      absl::StatusOr<std::string> version = FirstVersionIn(text_);
      if (!version.ok()) {
        version = absl::NotFoundError(absl::StrCat(
            binary_, " --version printed no version (digits.digits.digits): ",
            ipc::Printable(text_)));
      }
      Finish(std::move(version));
    }
  }

  void Finish(absl::StatusOr<std::string> result) {
    timer_.cancel();
    asio::error_code ignored;
    output_.close(ignored);
    std::exchange(done_, nullptr)(std::move(result));
  }

  const std::string binary_;
  std::function<void(absl::StatusOr<std::string>)> done_;
  asio::posix::stream_descriptor output_;
  asio::steady_timer timer_;
  std::array<char, 1024> buffer_;
  std::string text_;
  pid_t pid_ = -1;
  absl::optional<ExitStatus> exit_;
  bool eof_ = false;
  bool timed_out_ = false;
};

}  // namespace

absl::StatusOr<std::string> FirstVersionIn(absl::string_view output) {
  for (const absl::string_view word :
       absl::StrSplit(output, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty())) {
    if (ipc::CheckVersion(word).ok()) return std::string(word);
  }
  return absl::NotFoundError("no version");
}

void RunVersionCommand(asio::io_context& loop, Reaper& reaper,
                       const std::string& binary,
                       const std::vector<std::string>& env,
                       std::function<void(absl::StatusOr<std::string>)> done) {
  std::make_shared<Run>(loop, binary, std::move(done))->Start(reaper, env);
}

}  // namespace zcbroker::service
