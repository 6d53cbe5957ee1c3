#include "service/keeper/held_sockets.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/status_macros.h"

namespace zcbroker::service {

absl::Status HeldSockets::Hold(const std::string& name, ipc::UniqueFd fd,
                               bool from_service_manager) {
  const auto found = sockets_.find(name);
  if (found == sockets_.end() && sockets_.size() >= ipc::kMaxHeldSockets) {
    return absl::ResourceExhaustedError(absl::StrCat(
        ipc::kMaxHeldSockets, " sockets are held, no room for ", name));
  }
  sockets_[name] = Held{std::move(fd), from_service_manager};
  return absl::OkStatus();
}

void HeldSockets::DropOwn() {
  for (auto it = sockets_.begin(); it != sockets_.end();) {
    it = it->second.from_service_manager ? std::next(it) : sockets_.erase(it);
  }
}

absl::Status HeldSockets::Offer(ipc::KeeperLink& link) const {
  ipc::KeeperMessage message;
  message.kind = ipc::KeeperMessage::Kind::kHeld;
  for (const auto& [name, held] : sockets_) {
    message.name = name;
    message.from_service_manager = held.from_service_manager;
    ZCB_RETURN_IF_ERROR(link.Send(message, held.fd.get()));
  }
  return link.Send({ipc::KeeperMessage::Kind::kEndOfHeld, "", false});
}

}  // namespace zcbroker::service
