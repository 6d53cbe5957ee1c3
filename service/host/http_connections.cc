#include "service/host/http_connections.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#include <array>
#include <utility>

namespace zcbroker::service {

HttpConnections::HttpConnections(asio::io_context& loop,
                                 std::function<void()> changed)
    : epoll_(epoll_create1(EPOLL_CLOEXEC)),
      ready_(loop),
      changed_(std::move(changed)) {
  ready_.assign(epoll_.get());
}

HttpConnections::~HttpConnections() { static_cast<void>(ready_.release()); }

absl::Status HttpConnections::Add(const ipc::UniqueFd& connection) {
  ipc::UniqueFd copy(fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
  epoll_event event{};
  // EPOLLHUP is always reported; EPOLLIN is not asked for.
  event.events = EPOLLRDHUP | EPOLLONESHOT;
  event.data.fd = copy.get();
  if (!copy ||
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, copy.get(), &event) != 0) {
    return absl::ResourceExhaustedError("no descriptor left");
  }
  const int key = copy.get();
  watched_[key] = std::move(copy);
  // A wait is pending only while there is something to wait for.
  if (watched_.size() == 1) Wait();
  return absl::OkStatus();
}

void HttpConnections::Wait() {
  ready_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [this](const asio::error_code& error) {
                      if (!error) Collect();
                    });
}

void HttpConnections::Collect() {
  std::array<epoll_event, 64> events;
  int n = 0;
  bool ended = false;
  while ((n = epoll_wait(epoll_.get(), events.data(),
                         static_cast<int>(events.size()), 0)) > 0) {
    for (int i = 0; i < n; ++i) watched_.erase(events[i].data.fd);
    ended = true;
  }
  if (!watched_.empty()) Wait();
  if (ended) changed_();
}

}  // namespace zcbroker::service
