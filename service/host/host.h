// The broker's one loop: owns the rules and carries out what they decide.
#ifndef ZCBROKER_SERVICE_HOST_HOST_H_
#define ZCBROKER_SERVICE_HOST_HOST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "asio/io_context.hpp"
#include "asio/steady_timer.hpp"
#include "service/core/broker_port.h"
#include "service/core/machine.h"
#include "service/host/backend_files.h"
#include "service/host/backend_run.h"
#include "service/host/catalog_loader.h"
#include "service/host/directory_watch.h"
#include "service/host/reaper.h"

namespace zcbroker::service {

struct HostOptions {
  Limits limits;
  v1::World world;
  Surroundings surroundings;
  DefinitionSources definitions;
  // For GetStatus.
  std::string endpoint;
  std::string framed_endpoint;
  std::vector<v1::Problem> problems;
};

// Made, run and destroyed on the loop's thread; what BrokerPort declares may be
// called from any. `loop` and `reaper` outlive it.
class Host : public BrokerPort {
 public:
  Host(asio::io_context& loop, Reaper& reaper, HostOptions options);
  ~Host() override;

  // Reads the definitions and watches them. Negotiations that arrive before
  // they are read wait.
  void Start();
  // Called once, on the loop, when stopping begins: accept no more.
  void OnStopping(std::function<void()> stopping);
  // Called once, on the loop, when a Shutdown call or Stop() has been carried
  // out: everybody who waited was refused, and backends that were to end have
  // ended (10 s at most).
  void OnStopped(std::function<void()> stopped);
  // As the Shutdown call, for signals. A second one is ignored.
  void Stop(bool stop_backends);
  // Connections open now, for GetStatus.
  void SetConnectionCounter(std::function<size_t()> connections);

  absl::optional<v1::NegotiateResponse> TryRoute(
      const v1::NegotiateRequest& request) override;
  bool KnowsService(const std::string& name) override;
  NegotiationId Negotiate(v1::NegotiateRequest request,
                          absl::optional<Time> deadline,
                          std::function<void(Outcome)> done) override;
  void Cancel(NegotiationId id) override;
  void GetStatus(std::function<void(v1::GetStatusResponse)> done) override;
  void ListBackends(
      std::function<void(v1::ListBackendsResponse)> done) override;
  void ReloadDefinitions(
      std::function<void(v1::ReloadDefinitionsResponse)> done) override;
  void Shutdown(const v1::ShutdownRequest& request,
                std::function<void(v1::ShutdownResponse)> done) override;
  Counters& counters() override { return counters_; }

 private:
  void Apply(Effects effects);
  void Carry(Answer answer);
  void Carry(const StartBackend& start);
  void Carry(const StopBackend& stop);
  void Carry(const RefreshCatalog&);
  void Carry(const RoutesChanged&);
  void ArmTimer();
  void LoadCatalog(bool forgive, std::function<void()> then);
  void WatchDefinitions();
  void RunEnded(StartId id);
  void MaybeStopped();
  std::shared_ptr<const RouteTable> Routes() const;
  template <typename Event>
  void With(Event event);

  asio::io_context& loop_;
  Reaper& reaper_;
  const HostOptions options_;
  const absl::Time started_at_;
  const Time started_;
  Counters counters_;
  Machine machine_;
  CatalogLoader loader_;
  std::unique_ptr<DirectoryWatch> definitions_watch_;
  asio::steady_timer timer_;
  asio::steady_timer stop_timer_;
  std::function<size_t()> connections_;
  std::function<void()> stopping_begins_;
  std::function<void()> stopped_;
  bool stopping_ = false;
  std::string logged_problems_;
  std::atomic<bool> definitions_read_{false};

  std::atomic<NegotiationId> next_negotiation_{1};
  std::map<NegotiationId, std::function<void(Outcome)>> callers_;
  std::map<StartId, std::unique_ptr<BackendRun>> runs_;

  mutable std::mutex routes_mutex_;
  std::shared_ptr<const RouteTable> routes_ ABSL_GUARDED_BY(routes_mutex_);
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_HOST_H_
