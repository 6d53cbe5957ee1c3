#include "service/host/spare_connections.h"

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "asio/post.hpp"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/socket.h"

namespace zcbroker::service {
namespace {

// Of backends that live, and of some that do not any more.
constexpr size_t kMostSpares = 16;

}  // namespace

absl::StatusOr<ipc::UniqueFd> SpareConnections::Take(
    const v1::BackendRoute& backend) {
  const auto found = spares_->find({backend.pid(), backend.start_time()});
  if (found == spares_->end() || !found->second) {
    return absl::NotFoundError("no spare connection");
  }
  ipc::UniqueFd fd = std::move(found->second);
  spares_->erase(found);
  return fd;
}

void SpareConnections::MakeLater(asio::io_context& loop,
                                 const v1::BackendRoute& backend) {
  const Key key{backend.pid(), backend.start_time()};
  if (spares_->count(key) > 0) return;
  // The oldest belong to backends that are gone.
  if (spares_->size() >= kMostSpares) spares_->clear();
  // Its place is taken now, so that one is made.
  (*spares_)[key];
  asio::post(loop, [weak = std::weak_ptr<Spares>(spares_), key,
                    path = backend.endpoint()] {
    const std::shared_ptr<Spares> spares = weak.lock();
    if (spares == nullptr) return;
    const auto place = spares->find(key);
    if (place == spares->end() || place->second) return;
    const absl::StatusOr<ipc::Endpoint> endpoint = ipc::Endpoint::Parse(path);
    absl::StatusOr<ipc::UniqueFd> fd =
        endpoint.ok() ? ipc::Connect(*endpoint,
                                     ipc::Deadline::After(absl::ZeroDuration()))
                      : endpoint.status();
    if (fd.ok()) {
      place->second = *std::move(fd);
    } else {
      spares->erase(place);
    }
  });
}

}  // namespace zcbroker::service
