#include "ipc/testing/fake_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/status/statusor.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

Listener BindOrDie(const std::string& path) {
  absl::StatusOr<Listener> listener = [&]() -> absl::StatusOr<Listener> {
    ZCB_ASSIGN_OR_RETURN(const Endpoint endpoint, Endpoint::Parse(path));
    return Listener::Bind(endpoint);
  }();
  if (!listener.ok()) {
    std::cerr << "fake server: " << listener.status() << "\n";
    std::abort();
  }
  return *std::move(listener);
}

}  // namespace

FakeServer::FakeServer(const std::string& path, Script script)
    : script_(std::move(script)),
      listener_(BindOrDie(path)),
      stop_(eventfd(0, EFD_CLOEXEC)),
      acceptor_([this] { AcceptLoop(); }) {}

FakeServer::~FakeServer() {
  const std::uint64_t one = 1;
  if (write(stop_.get(), &one, sizeof(one)) != sizeof(one)) std::abort();
  acceptor_.join();
  for (const UniqueFd& connection : held_) {
    shutdown(connection.get(), SHUT_RDWR);
  }
  for (std::thread& thread : threads_) thread.join();
}

int FakeServer::connections() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return accepted_;
}

void FakeServer::Start(UniqueFd connection) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int index = accepted_++;
  held_.emplace_back(fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
  const UniqueFd& duplicate = held_.back();
  threads_.emplace_back([this, index, shared = duplicate.get(),
                         owned = std::move(connection)]() mutable {
    script_(owned, index);
    // The duplicate would keep the connection open.
    shutdown(shared, SHUT_RDWR);
  });
}

void FakeServer::AcceptLoop() {
  for (;;) {
    std::array<pollfd, 2> entries = {
        {{listener_.fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    if (poll(entries.data(), entries.size(), -1) < 0) continue;
    if (entries[1].revents != 0) return;
    for (;;) {
      absl::StatusOr<absl::optional<UniqueFd>> next = listener_.Accept();
      if (!next.ok() || !next->has_value()) break;
      Start(**std::move(next));
    }
  }
}

void StayMute(UniqueFd& connection) {
  std::array<char, 4096> dropped;
  for (;;) {
    const absl::StatusOr<std::size_t> n = ReadSome(
        connection, dropped.data(), dropped.size(), Deadline::Infinite());
    if (!n.ok() || *n == 0) return;
  }
}

}  // namespace zcbroker::ipc
