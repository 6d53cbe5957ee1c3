#include "service/host/http_connections.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "service/host/descriptors.h"

namespace zcbroker::service {

using SteadyClock = std::chrono::steady_clock;

HttpConnections::HttpConnections(asio::io_context& loop,
                                 std::chrono::milliseconds reserved_for,
                                 std::function<void()> changed)
    : reserved_for_(reserved_for),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      ready_(loop),
      changed_(std::move(changed)),
      end_(loop) {
  ready_.assign(epoll_.get());
}

HttpConnections::~HttpConnections() { static_cast<void>(ready_.release()); }

absl::Status HttpConnections::Add(const ipc::UniqueFd& connection,
                                  int peer_pid) {
  ipc::UniqueFd copy(fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
  bool of_reserve = IsOfReserve(connection.get());
  if (!copy) {
    of_reserve = true;
    const DescriptorLoan loan;
    copy.reset(fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
  }
  epoll_event event{};
  // EPOLLHUP is always reported; EPOLLIN is not asked for.
  event.events = EPOLLRDHUP | EPOLLONESHOT;
  event.data.fd = copy.get();
  if (!copy ||
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, copy.get(), &event) != 0) {
    return absl::ResourceExhaustedError("no descriptor left");
  }
  const int key = copy.get();
  watched_[key] = {std::move(copy), peer_pid, absl::nullopt};
  ++by_process_[peer_pid];
  if (of_reserve) {
    watched_[key].end_at = SteadyClock::now() + reserved_for_;
    EndReserved();
  }
  // A wait is pending only while there is something to wait for.
  if (watched_.size() == 1) Wait();
  return absl::OkStatus();
}

size_t HttpConnections::of(int peer_pid) const {
  const auto found = by_process_.find(peer_pid);
  return found != by_process_.end() ? found->second : 0;
}

// Ends those whose time is over, and comes again for the next one.
void HttpConnections::EndReserved() {
  const auto now = SteadyClock::now();
  absl::optional<SteadyClock::time_point> next;
  for (auto& [key, watched] : watched_) {
    if (!watched.end_at.has_value()) continue;
    if (*watched.end_at <= now) {
      shutdown(watched.fd.get(), SHUT_RDWR);
      watched.end_at = absl::nullopt;
    } else {
      next = std::min(*watched.end_at, next.value_or(*watched.end_at));
    }
  }
  if (!next.has_value()) return;
  end_.expires_at(*next);
  end_.async_wait([this](const asio::error_code& error) {
    if (!error) EndReserved();
  });
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
    for (int i = 0; i < n; ++i) {
      const auto ended_one = watched_.find(events[i].data.fd);
      const auto counted = by_process_.find(ended_one->second.peer_pid);
      if (--counted->second == 0) by_process_.erase(counted);
      watched_.erase(ended_one);
    }
    ended = true;
  }
  if (!watched_.empty()) Wait();
  if (ended) changed_();
}

}  // namespace zcbroker::service
