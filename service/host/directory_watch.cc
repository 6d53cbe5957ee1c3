#include "service/host/directory_watch.h"

#include <errno.h>
#include <sys/inotify.h>

#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "asio/posix/stream_descriptor.hpp"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

constexpr uint32_t kEvents = IN_CREATE | IN_MOVED_TO | IN_DELETE |
                             IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF;

absl::StatusOr<ipc::UniqueFd> NewInstance() {
  ipc::UniqueFd fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (fd) return fd;
  return absl::ResourceExhaustedError(
      "no inotify instance left (fs.inotify.max_user_instances)");
}

absl::Status Add(const ipc::UniqueFd& fd, const std::string& directory,
                 bool writes) {
  const uint32_t events = kEvents | (writes ? IN_CLOSE_WRITE : 0) | IN_ONLYDIR;
  if (inotify_add_watch(fd.get(), directory.c_str(), events) < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("watch ", directory));
  }
  return absl::OkStatus();
}

class InotifyWatch : public DirectoryWatch {
 public:
  InotifyWatch(asio::io_context& loop, ipc::UniqueFd fd,
               std::function<void(const std::string&)> changed)
      : state_(std::make_shared<State>(
            State{asio::posix::stream_descriptor(loop, fd.release()),
                  std::move(changed),
                  {}})) {
    Read(state_);
  }

  ~InotifyWatch() override {
    state_->changed = nullptr;
    asio::error_code ignored;
    state_->descriptor.close(ignored);
  }

 private:
  // Outlives the watch for as long as a read is pending.
  struct State {
    asio::posix::stream_descriptor descriptor;
    std::function<void(const std::string&)> changed;
    alignas(inotify_event) std::array<char, 4096> buffer;
  };

  static void Read(const std::shared_ptr<State>& state) {
    state->descriptor.async_read_some(
        asio::buffer(state->buffer),
        [state](const asio::error_code& error, size_t bytes) {
          if (error) return;
          size_t offset = 0;
          while (offset < bytes) {
            const auto* event = reinterpret_cast<const inotify_event*>(
                state->buffer.data() + offset);
            offset += sizeof(inotify_event) + event->len;
            // The callback may end the watch, and with it this copy's owner.
            const auto changed = state->changed;
            if (changed) changed(event->len > 0 ? event->name : "");
          }
          if (state->changed) Read(state);
        });
  }

  const std::shared_ptr<State> state_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DirectoryWatch>> DirectoryWatch::Create(
    asio::io_context& loop, const std::string& directory, bool writes,
    std::function<void(const std::string& name)> changed) {
  ZCB_ASSIGN_OR_RETURN(ipc::UniqueFd fd, NewInstance());
  ZCB_RETURN_IF_ERROR(Add(fd, directory, writes));
  return std::make_unique<InotifyWatch>(loop, std::move(fd),
                                        std::move(changed));
}

absl::StatusOr<std::unique_ptr<DirectoryWatch>> DirectoryWatch::CreateForAll(
    asio::io_context& loop, const std::set<std::string>& directories,
    bool writes, std::function<void(const std::string& name)> changed) {
  ZCB_ASSIGN_OR_RETURN(ipc::UniqueFd fd, NewInstance());
  for (const std::string& directory : directories) {
    Add(fd, directory, writes).IgnoreError();
  }
  return std::make_unique<InotifyWatch>(loop, std::move(fd),
                                        std::move(changed));
}

}  // namespace zcbroker::service
