#include "service/core/route_table.h"

#include <algorithm>

#include "google/protobuf/util/message_differencer.h"
#include "service/core/world.h"

namespace zcbroker::service {

bool AnyLaneAccepted(const v1::NegotiateRequest& request,
                     const v1::BackendRoute& route) {
  if (request.accepted_lanes().empty()) return true;
  return std::any_of(route.lanes().begin(), route.lanes().end(), [&](int lane) {
    return std::count(request.accepted_lanes().begin(),
                      request.accepted_lanes().end(), lane) > 0;
  });
}

void RouteTable::Add(const std::string& service, v1::EndpointRule rule,
                     v1::BackendRoute route) {
  const std::pair<std::string, std::string> key{service, route.version()};
  entries_[key] = Entry{rule, std::move(route)};
}

v1::WatchRoutesResponse RouteTable::ChangesSince(
    const RouteTable& earlier, const std::string& service) const {
  v1::WatchRoutesResponse response;
  const auto add = [&](const std::pair<std::string, std::string>& key) {
    v1::RouteChange* change = response.add_changes();
    change->set_service(key.first);
    change->set_version(key.second);
    return change;
  };
  const auto is_wanted = [&](const std::string& name) {
    return service.empty() || service == name;
  };
  for (const auto& [key, entry] : earlier.entries_) {
    if (is_wanted(key.first) && entries_.count(key) == 0) add(key);
  }
  for (const auto& [key, entry] : entries_) {
    const auto before = earlier.entries_.find(key);
    if (!is_wanted(key.first) ||
        (before != earlier.entries_.end() &&
         google::protobuf::util::MessageDifferencer::Equals(
             before->second.route, entry.route))) {
      continue;
    }
    *add(key)->mutable_route() = entry.route;
  }
  return response;
}

absl::optional<v1::NegotiateResponse> RouteTable::Find(
    const v1::NegotiateRequest& request) const {
  const auto found =
      entries_.find({request.service(), request.wanted_version()});
  if (found == entries_.end()) return absl::nullopt;
  const Entry& entry = found->second;
  if (!AnyLaneAccepted(request, entry.route)) return absl::nullopt;
  if (request.has_world() &&
      !WorldDifferences(world_, request.world(), entry.rule).empty()) {
    return absl::nullopt;
  }
  v1::NegotiateResponse response;
  *response.mutable_route() = entry.route;
  response.set_origin(v1::ROUTE_ORIGIN_REUSED);
  return response;
}

}  // namespace zcbroker::service
