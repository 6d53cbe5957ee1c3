// Where the broker is found: its runtime directory, the lock and the socket in
// it, and the links for framed clients. People and cleaners delete such things
// under a running broker; they are made again where they still are ours to
// make. Source: docs/operations.md, "What is deleted under a running broker".
#ifndef ZCBROKER_SERVICE_HOST_PLACE_H_
#define ZCBROKER_SERVICE_HOST_PLACE_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "asio/io_context.hpp"
#include "ipc/instance_lock.h"
#include "ipc/listener.h"
#include "ipc/runtime_dir.h"
#include "service/host/framed_names.h"

namespace zcbroker::service {

struct PlaceEvents {
  // Does the broker's socket still have its name?
  std::function<bool()> has_its_name;
  // It had not, and this new one has it.
  std::function<void(ipc::Listener)> rebound;
  // The runtime directory is another one by now, empty but for lock and
  // socket: what else belongs into it has to be made again.
  std::function<void()> directory_restored;
  // Called once, the last call. kAlreadyExists: another broker holds the place;
  // others: it cannot be had again. What is ours to remove may be removed.
  std::function<void(const absl::Status&)> lost;
};

// Lives on the loop's thread; destroying it ends the watch and changes nothing.
// It is told by inotify, and looks 300 ms later: whoever removes a whole
// directory is to finish undisturbed.
class Place {
 public:
  // `runtime`, `lock` and `names` are replaced or brought up to date as need
  // be; they outlive this. `socket_is_ours` false: a service manager made the
  // socket, and it is not bound again.
  static std::unique_ptr<Place> Watch(asio::io_context& loop,
                                      ipc::RuntimeDir& runtime,
                                      ipc::InstanceLock& lock,
                                      FramedNames& names, bool socket_is_ours,
                                      PlaceEvents events);
  virtual ~Place() = default;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_PLACE_H_
