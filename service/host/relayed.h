// One client's connection at a public name, from its first byte to its end.
// Internal to the relay (relay.h).
#ifndef ZCBROKER_SERVICE_HOST_RELAYED_H_
#define ZCBROKER_SERVICE_HOST_RELAYED_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "asio/local/stream_protocol.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/unique_fd.h"
#include "ipc/wire/message_scan.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "service/core/counters.h"
#include "service/core/outcome.h"
#include "service/host/relay.h"
#include "service/host/spare_connections.h"

namespace zcbroker::service {

class Relayed;

// What all relayed connections of a broker share. Lives on the loop's thread.
struct RelayShared {
  RelayShared(asio::io_context& loop, RelayLimits limits, RelayPort& port,
              Counters& counters, v1::World world)
      : loop(loop),
        limits(limits),
        port(port),
        counters(counters),
        world(std::move(world)) {}

  asio::io_context& loop;
  const RelayLimits limits;
  RelayPort& port;
  Counters& counters;
  const v1::World world;
  // When the broker started, in ticks since boot.
  uint64_t started = 0;
  // Until when clients older than that are taken for victims of the end of the
  // broker before it.
  std::chrono::steady_clock::time_point elders_until;
  SpareConnections spares;
  // A successor has the backends; no connection to one is kept.
  bool handed_over = false;
  // What was read is passed on or copied before the next read, so one buffer
  // serves all.
  std::array<char, 64 * 1024> buffer;
  // Bytes of requests kept for a replay.
  size_t kept = 0;
  // Requests that have cost all backends but the last they may cost are sent
  // one at a time, so that the one that kills is told from those that were
  // merely there.
  std::deque<std::weak_ptr<Relayed>> suspects;
  std::weak_ptr<Relayed> suspect;
  // When a backend (pid, start time) was last looked at.
  std::map<std::pair<uint32_t, uint64_t>, std::chrono::steady_clock::time_point>
      looked;
  // Has its time watched while it waits; told of each one's end.
  std::function<void(const std::shared_ptr<Relayed>&)> watch;
  std::function<void(Relayed*)> left;
  // So many descriptors are missing, for a connection to the backend or for its
  // start: whoever is idle gives way.
  std::function<void(size_t descriptors)> make_room;
};

class Relayed : public std::enable_shared_from_this<Relayed> {
 public:
  using Socket = asio::local::stream_protocol::socket;

  Relayed(RelayShared& shared, ipc::UniqueFd client, int peer_pid,
          RelayedName name);

  void Begin();
  // Ends now if nothing is under way, else with the reply.
  void EndSoon();
  void End();
  // Between two requests it needs no connection to its backend.
  void LetGo();
  // Of the request under way, or the last one.
  const v1::BackendRoute& route() const { return route_; }
  // Called about every 100 ms while it waits for the broker or the backend.
  void TimePasses(std::chrono::steady_clock::time_point now);
  // Is something outstanding that takes its time?
  bool waits() const {
    switch (step_) {
      case Step::kReading:
        return !request_.empty();
      case Step::kRouting:
      case Step::kSending:
      case Step::kAwaiting:
      case Step::kReplying:
        return true;
      case Step::kPiping:
      case Step::kEnded:
        return false;
    }
    return false;
  }
  // Between two requests since then; nothing: at work.
  absl::optional<std::chrono::steady_clock::time_point> idle_since() const {
    if (step_ != Step::kReading || !request_.empty()) return absl::nullopt;
    return idle_since_;
  }

 private:
  enum class Step {
    kReading,   // a request
    kRouting,   // no backend yet, or none any more
    kSending,   // the request
    kAwaiting,  // the first byte of the reply
    kReplying,  // the rest of it
    kPiping,    // bytes both ways, not understood
    kEnded,
  };
  // One direction of a connection that is not understood.
  struct Flow {
    Socket* from = nullptr;
    Socket* to = nullptr;
    std::string pending;
    bool ended = false;
  };

  // The client's side.
  void ReadRequest();
  bool TakeRequest();
  void Dispatch();
  bool PeerIsOlderThanBroker() const;
  void WatchForHangUp();

  // The broker's side.
  void Route();
  void Routed(const Outcome& outcome);
  void RouteLater();
  void Connect();
  void Lost(bool charged, const char* how);
  void Judge(v1::BackendVerdict verdict, bool charged);
  void Replay();
  void LeaveSuspects();

  // The backend's side.
  void Send();
  void ReadMoreOfRequest();
  void AwaitReply();
  void ReadReply();
  void TakeReply(absl::string_view bytes);
  void PassOn(absl::string_view bytes);
  bool reply_complete() const { return reply_begun_ && reply_left_ == 0; }
  void FlushReply();
  void RequestDone();
  void AnswerInPlace(const std::string& reply);
  void DropBackend();

  void StartPiping();
  void Pump(Flow& flow);

  void Release();
  void Wait(Socket& socket, Socket::wait_type what, void (Relayed::*then)());
  std::string Describe() const;

  RelayShared& shared_;
  const int peer_pid_;
  const RelayedName name_;
  Socket client_;
  Socket backend_;
  asio::steady_timer pause_;
  Step step_ = Step::kReading;
  bool ending_ = false;
  bool watching_for_hang_up_ = false;

  // The request: kept whole until its reply begins, unless it is streamed.
  std::string request_;
  // What came after it already.
  std::string ahead_;
  ipc::RequestSummary summary_;
  size_t kept_ = 0;
  size_t sent_ = 0;
  bool streamed_ = false;
  size_t stream_left_ = 0;
  std::chrono::steady_clock::time_point since_;
  // When the backend last took or gave a byte of it.
  std::chrono::steady_clock::time_point sent_at_;
  std::chrono::steady_clock::time_point idle_since_ =
      std::chrono::steady_clock::now();
  int backends_lost_ = 0;
  int failed_connects_ = 0;

  // Counts requests, so that a late answer about one is not taken for the
  // next one's.
  uint64_t turn_ = 0;
  NegotiationId negotiation_ = 0;
  v1::BackendRoute route_;
  bool is_suspect_ = false;

  // The reply.
  bool reply_begun_ = false;
  // What was not passed on yet: the beginning of a reply, or a small one whole.
  std::string reply_head_;
  // Of the reply, once begun; what cannot be measured ends with the connection.
  size_t reply_left_ = 0;
  std::string pending_;

  Flow to_backend_;
  Flow to_client_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_RELAYED_H_
