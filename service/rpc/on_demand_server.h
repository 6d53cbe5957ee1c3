// The gRPC server, which exists only while somebody speaks HTTP/2 to us: by
// existing it costs threads, some megabytes and wake-ups.
#ifndef ZCBROKER_SERVICE_RPC_ON_DEMAND_SERVER_H_
#define ZCBROKER_SERVICE_RPC_ON_DEMAND_SERVER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "ipc/unique_fd.h"
#include "service/core/broker_port.h"
#include "service/core/http_server_port.h"

namespace zcbroker::service {

// docs/operations.md, "Limits". gRPC keeps them: a larger message is its
// RESOURCE_EXHAUSTED, and a client's library begins no more calls than these on
// one connection, but waits. Neither reaches us, so neither is counted.
inline constexpr int kMaxGrpcMessageBytes = 1 << 20;
inline constexpr int kMaxGrpcStreams = 256;

// Adopt, TearDown, End and the destructor are the loop thread's. The mutex is
// there for the one thread that a tear-down runs on, since ending a server
// blocks.
class OnDemandServer final : public HttpServerPort {
 public:
  // `port` outlives this. `may_build`: are there the descriptors for a server?
  // gRPC ends the process where it finds none. Asked on the loop's thread or
  // that of a tear-down; where not, the connection is closed and counted,
  // `refused.FD_PRESSURE`.
  OnDemandServer(BrokerPort& port, std::function<bool()> may_build);
  // End() must have been called, and have ended, if the server was built.
  ~OnDemandServer() override;

  void Adopt(ipc::UniqueFd connection) override;
  void TearDown() override;
  // Ends the server for good. `gone` is called once, now or from another
  // thread, when nothing of it is left. The port must go on answering until
  // then: gRPC waits for every call that it has handed over.
  void End(std::function<void()> gone);

 private:
  struct Built;
  enum class State { kNone, kServing, kGoing };

  void AdoptLocked(ipc::UniqueFd connection)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Built> Build();

  BrokerPort& port_;
  const std::function<bool()> may_build_;
  std::mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kNone;
  std::unique_ptr<Built> built_ ABSL_GUARDED_BY(mutex_);
  std::vector<ipc::UniqueFd> queued_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> gone_ ABSL_GUARDED_BY(mutex_);
  std::thread going_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_RPC_ON_DEMAND_SERVER_H_
