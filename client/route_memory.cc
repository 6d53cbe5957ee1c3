#include "client/route_memory.h"

#include <mutex>
#include <string>
#include <utility>

#include "absl/types/optional.h"

namespace zcbroker::client {

RouteMemory& RouteMemory::OfThisProcess() {
  // Never destroyed: another thread may connect while the process exits.
  static RouteMemory& memory = *new RouteMemory;
  return memory;
}

std::shared_ptr<const UsableRoute> RouteMemory::Find(const std::string& key) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return nullptr;
  const auto found = known_.find(key);
  if (found == known_.end()) return nullptr;
  if (ipc::StampOf(found->second.path) != found->second.stamp) {
    known_.erase(found);
    return nullptr;
  }
  return found->second.route;
}

void RouteMemory::Put(const std::string& key, const std::string& path,
                      const absl::optional<ipc::FileStamp>& stamp,
                      std::shared_ptr<const UsableRoute> route) {
  if (!stamp.has_value() || ipc::StampOf(path) != *stamp) return;
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  if (known_.size() >= kMaxRoutes) known_.clear();
  known_.insert_or_assign(key, Known{path, *stamp, std::move(route)});
}

}  // namespace zcbroker::client
