// The routes that are ready, as an immutable value: what most negotiations
// need, readable on any thread without asking the one that owns the rules.
#ifndef ZCBROKER_SERVICE_CORE_ROUTE_TABLE_H_
#define ZCBROKER_SERVICE_CORE_ROUTE_TABLE_H_

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/types/optional.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/definition.pb.h"

namespace zcbroker::service {

// Do these lanes hold one that the caller accepts? An empty list accepts all.
bool AnyLaneAccepted(const v1::NegotiateRequest& request,
                     const v1::BackendRoute& route);

class RouteTable {
 public:
  RouteTable() = default;
  explicit RouteTable(v1::World world) : world_(std::move(world)) {}

  void Add(const std::string& service, v1::EndpointRule rule,
           v1::BackendRoute route);

  // A service that has a definition, with or without a ready backend.
  void AddService(const std::string& name) { services_.insert(name); }
  bool KnowsService(const std::string& name) const {
    return services_.count(name) > 0;
  }

  // What a watcher who knew `earlier` has to be told to know this one:
  // docs/protocol.md, "WatchRoutes". Of one service; empty: of all.
  v1::WatchRoutesResponse ChangesSince(const RouteTable& earlier,
                                       const std::string& service) const;

  // The answer to a request that a ready backend can serve; nothing where the
  // rules have to be asked: no such route, another world, no common lane.
  absl::optional<v1::NegotiateResponse> Find(
      const v1::NegotiateRequest& request) const;

 private:
  struct Entry {
    v1::EndpointRule rule;
    v1::BackendRoute route;
  };

  v1::World world_;
  std::set<std::string> services_;
  std::map<std::pair<std::string, std::string>, Entry> entries_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_ROUTE_TABLE_H_
