#include "service/core/route_watch.h"

namespace zcbroker::service {

void RouteWatch::Read(ReadId id, const Table& seen, Done done) {
  if (ended_) {
    done(nullptr);
  } else if (seen != table_) {
    done(table_);
  } else {
    waiting_.emplace(id, std::move(done));
  }
}

void RouteWatch::Forget(ReadId id) { waiting_.erase(id); }

void RouteWatch::Publish(Table table) {
  table_ = std::move(table);
  for (const auto& [id, done] : std::exchange(waiting_, {})) done(table_);
}

void RouteWatch::End() {
  ended_ = true;
  for (const auto& [id, done] : std::exchange(waiting_, {})) done(nullptr);
}

}  // namespace zcbroker::service
