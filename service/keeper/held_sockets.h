// The sockets that the keeper holds for the broker, by name.
#ifndef ZCBROKER_SERVICE_KEEPER_HELD_SOCKETS_H_
#define ZCBROKER_SERVICE_KEEPER_HELD_SOCKETS_H_

#include <cstddef>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "ipc/keeper_channel.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {

class HeldSockets {
 public:
  // Kept from now on, instead of another of that name, which is closed.
  // kResourceExhausted: ipc::kMaxHeldSockets are held; `fd` is closed.
  absl::Status Hold(const std::string& name, ipc::UniqueFd fd,
                    bool from_service_manager);
  // Closed; no matter whether it was held.
  void Drop(const std::string& name) { sockets_.erase(name); }
  // Closes all but a service manager's, which listens there all the same.
  void DropOwn();
  std::size_t size() const { return sockets_.size(); }

  // Calls `each(name, descriptor, from_service_manager)` for every socket.
  template <typename Each>
  void ForEach(Each each) const {
    for (const auto& [name, held] : sockets_) {
      each(name, held.fd.get(), held.from_service_manager);
    }
  }

  // Tells a new broker of each, and that these are all. Never waits; `link`
  // queues what does not fit. Errors: those of KeeperLink::Send.
  absl::Status Offer(ipc::KeeperLink& link) const;

 private:
  struct Held {
    ipc::UniqueFd fd;
    bool from_service_manager = false;
  };
  std::map<std::string, Held> sockets_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_KEEPER_HELD_SOCKETS_H_
