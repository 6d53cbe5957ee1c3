// Names in the file system at which the broker itself listens, for clients
// that know nothing of it: named routes, and the services' own (direct)
// endpoints where a definition says `claim`.
// Source: docs/protocol.md, "Public names".
#ifndef ZCBROKER_SERVICE_HOST_PUBLIC_NAMES_H_
#define ZCBROKER_SERVICE_HOST_PUBLIC_NAMES_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "ipc/peer_identity.h"
#include "ipc/runtime_dir.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "service/core/catalog.h"
#include "service/core/counters.h"
#include "service/host/backend_files.h"
#include "service/host/keeper_line.h"
#include "service/host/prober.h"

namespace zcbroker::service {

struct PublicName {
  std::string path;
  std::string service;
  std::string version;
  // A direct endpoint; else a named route.
  bool claimed = false;
  v1::Probe probe = v1::PROBE_UNSPECIFIED;
};

// The names that this catalog makes: a named route for every version, and for
// a service that claims, each direct endpoint for the newest version that uses
// it. `claim` false: named routes only.
std::vector<PublicName> NamesOf(const Catalog& catalog,
                                const Surroundings& surroundings, bool claim);

struct PublicNameEvents {
  // Somebody connected. The name is valid during the call.
  std::function<void(ipc::UniqueFd, const ipc::PeerIdentity&,
                     const PublicName&)>
      accepted;
  // There is no descriptor to accept the next one with.
  std::function<void()> make_room;
  // A daemon that is not ours listens at a name; it is left there, and the name
  // is had when it has ended.
  std::function<void(const PublicName&, const Probed&)> occupied;
  // Does a backend run that the name leads to? Then a daemon that takes the
  // name away, as zccache's client does when a connection broke, is one too
  // many: the name is taken back, and it is asked to end.
  std::function<bool(const PublicName&)> has_backend;
  // A route info was written or removed, or its directory is gone.
  std::function<void()> removed;
};

// Lives on the loop's thread; `keeper`, `counters` and the surroundings'
// runtime directory outlive it.
class PublicNames {
 public:
  // `held`: what the keeper held for an earlier broker, by path. What Serve
  // does not ask for is closed.
  static std::unique_ptr<PublicNames> Create(
      asio::io_context& loop, const ipc::RuntimeDir& runtime,
      uint32_t served_uid, KeeperLine& keeper, Counters& counters,
      std::map<std::string, ipc::UniqueFd> held, PublicNameEvents events);
  virtual ~PublicNames() = default;

  // From now on exactly these names. One that could not be had is tried again
  // at each call, and when its directory changes.
  virtual void Serve(std::vector<PublicName> names) = 0;
  // Their directories may be others by now: watches them anew, and has the
  // names in them again.
  virtual void Restore() = 0;
  // Does this path lead to a socket of ours?
  virtual bool Holds(const std::string& path) const = 0;
  // The paths of those that lead to this version of a service.
  virtual std::vector<std::string> PathsOf(
      const std::string& service, const std::string& version) const = 0;
  // Takes the names of this service and version away for `duration`: whoever
  // stopped a daemon waits to see that nobody answers.
  virtual void Hide(const std::string& service, const std::string& version,
                    std::chrono::milliseconds duration) = 0;
  // What was found at this claimed endpoint has another name (an earlier broker
  // left a link there): it is had after all.
  virtual void TakeOver(const std::string& path) = 0;
  // Accepts no more, and leaves the names: the keeper holds the sockets, and
  // who comes waits for the next broker.
  virtual void StopAccepting() = 0;
  // After that: the sockets are the next broker's, and no name is ours.
  virtual void HandOver() = 0;
  // Accepts no more, and leaves at each name a link to the endpoint that
  // `backend_of` names (nothing: no backend runs, and the name goes): clients
  // find what runs, and need not start what could not have the cache.
  virtual void Leave(
      const std::function<absl::optional<std::string>(const PublicName&)>&
          backend_of) = 0;
  // Names that could not be had, and why.
  virtual std::vector<v1::Problem> problems() const = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_PUBLIC_NAMES_H_
