#include "service/host/keeper_line.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "asio/posix/stream_descriptor.hpp"
#include "service/host/log.h"

namespace zcbroker::service {
namespace {

class Line : public std::enable_shared_from_this<Line> {
 public:
  Line(asio::io_context& loop, ipc::KeeperChannel channel)
      : channel_(std::move(channel)), descriptor_(loop, channel_.fd()) {}
  // The descriptor is the channel's.
  ~Line() { static_cast<void>(descriptor_.release()); }

  // Answers it until it goes away. That the loop does this is what the keeper
  // wants to know.
  void Listen() {
    descriptor_.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = shared_from_this()](const asio::error_code& error) {
          if (error) return;
          self->Send([](ipc::KeeperChannel& channel) {
            return channel.AnswerWhatIsAsked();
          });
          if (!self->lost_) self->Listen();
        });
  }

  void Close() {
    lost_ = true;
    asio::error_code ignored;
    descriptor_.cancel(ignored);
  }

  // It closes its end, and that is no news.
  void LetGo() { let_go_ = true; }

  template <typename Say>
  void Send(Say say) {
    if (lost_) return;
    const absl::Status status = say(channel_);
    if (absl::IsAborted(status)) {
      Lost("the keeper is gone");
      return;
    }
    if (!status.ok()) {
      LogWarning(
          absl::StrCat("telling the keeper: ", std::string(status.message())));
    }
    if (channel_.wants_write() && !flushing_) FlushWhenWritable();
  }

 private:
  void FlushWhenWritable() {
    flushing_ = true;
    descriptor_.async_wait(
        asio::posix::stream_descriptor::wait_write,
        [self = shared_from_this()](const asio::error_code& error) {
          self->flushing_ = false;
          if (error) return;
          self->Send(
              [](ipc::KeeperChannel& channel) { return channel.Flush(); });
        });
  }

  void Lost(absl::string_view why) {
    if (lost_) return;
    Close();
    if (let_go_) return;
    // We go on; only nobody starts us again, and our sockets end with us.
    LogWarning(absl::StrCat(why, "; going on without it"));
  }

  ipc::KeeperChannel channel_;
  asio::posix::stream_descriptor descriptor_;
  bool flushing_ = false;
  bool lost_ = false;
  bool let_go_ = false;
};

class OwnedLine : public KeeperLine {
 public:
  explicit OwnedLine(std::shared_ptr<Line> line) : line_(std::move(line)) {}
  ~OwnedLine() override {
    if (line_ != nullptr) line_->Close();
  }
  void Hold(const std::string& path, int fd) override {
    Send([&](ipc::KeeperChannel& channel) { return channel.Hold(path, fd); });
  }
  void Drop(const std::string& path) override {
    Send([&](ipc::KeeperChannel& channel) { return channel.Drop(path); });
  }
  void Ready() override {
    Send([](ipc::KeeperChannel& channel) { return channel.Ready(); });
  }
  void HandedOver() override {
    Send([](ipc::KeeperChannel& channel) { return channel.HandedOver(); });
    if (line_ != nullptr) line_->LetGo();
  }

 private:
  template <typename Say>
  void Send(Say say) {
    if (line_ != nullptr) line_->Send(std::move(say));
  }

  const std::shared_ptr<Line> line_;
};

}  // namespace

std::unique_ptr<KeeperLine> KeeperLine::Create(
    asio::io_context& loop, absl::optional<ipc::KeeperChannel> channel) {
  std::shared_ptr<Line> line;
  if (channel.has_value()) {
    line = std::make_shared<Line>(loop, *std::move(channel));
    line->Listen();
    line->Send([](ipc::KeeperChannel& channel) { return channel.Here(); });
  }
  return std::make_unique<OwnedLine>(std::move(line));
}

}  // namespace zcbroker::service
