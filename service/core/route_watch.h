// Who wants to know of ready routes as they change (broker.proto, WatchRoutes).
#ifndef ZCBROKER_SERVICE_CORE_ROUTE_WATCH_H_
#define ZCBROKER_SERVICE_CORE_ROUTE_WATCH_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "service/core/route_table.h"

namespace zcbroker::service {

// Owned by one thread. A watcher asks again with the table it got, so one that
// is slow skips those in between.
class RouteWatch {
 public:
  using ReadId = uint64_t;
  using Table = std::shared_ptr<const RouteTable>;
  // nullptr: nothing is to come any more.
  using Done = std::function<void(Table)>;

  // `first` is in force.
  explicit RouteWatch(Table first) : table_(std::move(first)) {}

  // Calls `done` once with the table that is in force, when that is another
  // than `seen` (nullptr: none was). `id` must be new.
  void Read(ReadId id, const Table& seen, Done done);
  // Its `done` is not called any more. Unknown ids are ignored.
  void Forget(ReadId id);
  // From now on this one is in force.
  void Publish(Table table);
  // Answers all who wait, and who asks from now on, with nullptr.
  void End();

 private:
  Table table_;
  std::map<ReadId, Done> waiting_;
  bool ended_ = false;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_ROUTE_WATCH_H_
