// The broker's one loop: owns the rules and carries out what they decide.
#ifndef ZCBROKER_SERVICE_HOST_HOST_H_
#define ZCBROKER_SERVICE_HOST_HOST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "asio/io_context.hpp"
#include "asio/steady_timer.hpp"
#include "proto/zcbroker/v1/journal.pb.h"
#include "service/core/broker_port.h"
#include "service/core/connection_limits.h"
#include "service/core/event_log.h"
#include "service/core/limit_notes.h"
#include "service/core/machine.h"
#include "service/core/metrics.h"
#include "service/core/route_watch.h"
#include "service/host/backend_files.h"
#include "service/host/backend_run.h"
#include "service/host/catalog_loader.h"
#include "service/host/directory_watch.h"
#include "service/host/keeper_line.h"
#include "service/host/other_worlds.h"
#include "service/host/public_names.h"
#include "service/host/reaper.h"
#include "service/host/relay.h"
#include "service/host/successor.h"

namespace zcbroker::service {

struct HostOptions {
  Limits limits;
  RelayLimits relay_limits;
  v1::World world;
  Surroundings surroundings;
  DefinitionSources definitions;
  // For GetStatus.
  std::string endpoint;
  std::string framed_endpoint;
  // Whose connections are taken at public names.
  uint32_t served_uid = 0;
  // Listen at services' direct endpoints where their definitions say so.
  bool claim = true;
};

// Made, run and destroyed on the loop's thread; what BrokerPort declares may be
// called from any. `loop`, `reaper`, `keeper` and the surroundings' runtime
// directory outlive it.
class Host : public BrokerPort, private RelayPort {
 public:
  // `held`: what the keeper held for an earlier broker, by path.
  Host(asio::io_context& loop, Reaper& reaper, KeeperLine& keeper,
       HostOptions options, std::map<std::string, ipc::UniqueFd> held);
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
  // A successor is to take over the keeper's sockets: accepts no more at public
  // names. HandOver() is to follow, best when nobody waits any more.
  void StopAccepting();
  // Nobody is to wait any more (Machine::Hurry).
  void Hurry();
  // Who waits for a start, or for what becomes of a backend.
  size_t waiters() const;
  // Lets go of backends, journals and public names, which are the successor's
  // from now on: only that one watches and ends backends. Relayed connections
  // are served on, requests that are under way by the backend they are with,
  // new ones and those that lose it through the successor; a client that is
  // idle for 10 s, and everybody after 10 min, is ended. OnStopping() now,
  // OnStopped() when none is left. Children that end are still reaped here.
  void HandOver();
  // As the Shutdown call, for signals. A second one is ignored; after
  // HandOver(), ends relayed connections as it does else.
  void Stop(bool stop_backends);
  bool stopping() const { return stopping_; }
  // What is ours below the runtime directory may have been removed: public
  // names, and the files of backends, are made again.
  void RestoreFiles();
  // Ends calls that last: backends that have registered themselves, whose
  // routes stay, and who follows events, hear that the broker goes. Called by
  // Stop, and before the gRPC server is ended, which waits for them.
  void EndStreams();
  // Has a process a gRPC connection to the broker? Called on the loop.
  void SetConnectedCheck(std::function<bool(int pid)> is_connected);
  // What GetStatus says is wrong, beside definitions and names, for as long as
  // this runs. It is logged.
  void AddProblem(absl::string_view where, absl::string_view what);
  // Connections open now, for GetStatus.
  void SetConnectionCounter(std::function<size_t()> connections);
  // Called on the loop when definitions and policy were read: what the policy
  // says of connections to the broker's own socket. Before Start().
  void OnLimits(std::function<void(const ConnectionLimits&)> limits);

  absl::optional<v1::NegotiateResponse> TryRoute(
      const v1::NegotiateRequest& request) override;
  bool KnowsService(const std::string& name) override;
  NegotiationId Negotiate(v1::NegotiateRequest request,
                          absl::optional<Time> deadline,
                          std::function<void(Outcome)> done) override;
  void Cancel(NegotiationId id) override;
  void LookUp(v1::NegotiateRequest request,
              std::function<void(LookupOutcome)> done) override;
  void ReportBackend(v1::ReportBackendRequest report,
                     absl::optional<Time> deadline,
                     std::function<void(ReportOutcome)> done) override;
  LeaseId Register(v1::RegisterRequest request,
                   std::function<void(v1::RegisterResponse)> registered,
                   std::function<void(absl::optional<Refused>)> ended) override;
  void EndLease(LeaseId id) override;
  void StartBackend(BackendName name, absl::optional<Time> deadline,
                    std::function<void(BackendOutcome)> done) override;
  void StopBackend(BackendName name, absl::optional<Time> deadline,
                   std::function<void(BackendOutcome)> done) override;
  void DrainBackend(BackendName name, absl::optional<Time> deadline,
                    std::function<void(BackendOutcome)> done) override;
  void GetStatus(std::function<void(v1::GetStatusResponse)> done) override;
  void ListBackends(
      std::function<void(v1::ListBackendsResponse)> done) override;
  void ReloadDefinitions(
      std::function<void(v1::ReloadDefinitionsResponse)> done) override;
  void Shutdown(const v1::ShutdownRequest& request,
                std::function<void(v1::ShutdownResponse)> done) override;
  void GetMetrics(std::function<void(v1::GetMetricsResponse)> done) override;
  EventLog::ReadId ReadEvents(uint64_t after, bool wait,
                              EventLog::Done done) override;
  void ForgetEvents(EventLog::ReadId id) override;
  RouteWatch::ReadId ReadRoutes(RouteWatch::Table seen,
                                RouteWatch::Done done) override;
  void ForgetRoutes(RouteWatch::ReadId id) override;
  Counters& counters() override { return counters_; }

 private:
  void Apply(Effects effects);
  void Carry(Answer answer);
  void Carry(const service::StartBackend& start);
  void Carry(const service::StopBackend& stop);
  void Carry(const WithdrawBackend& withdraw);
  void Carry(const NoteLeaving& note);
  void Carry(const LookAtBackend& look);
  void Carry(const ExamineBackend& examine);
  void Carry(AnswerReport answer);
  void Carry(AnswerRetire answer);
  void Carry(const PassOn& pass);
  void Carry(const RefreshCatalog&);
  void Carry(const RoutesChanged&);
  // RelayPort.
  absl::optional<v1::BackendRoute> Ready(const std::string& service,
                                         const std::string& version) override;
  NegotiationId Route(const std::string& service, const std::string& version,
                      bool may_start,
                      std::function<void(Outcome)> done) override;
  void GiveUp(NegotiationId id) override;
  void Report(const v1::ReportBackendRequest& report,
              std::function<void(v1::BackendVerdict)> done) override;
  Presence PresenceOf(const std::string& service,
                      const std::string& version) override;
  void Distrusted(const std::string& service,
                  const std::string& version) override;
  void Stopped(const std::string& service, const std::string& version) override;
  void Replayed(const std::string& service, const std::string& version,
                uint32_t lost_pid) override;

  void Note(v1::Event event);
  void NoteDefinitions();
  // What limits were reached that was not told at once.
  void TellOfLimitsLater();
  void RefuseWaitingIfShort(NegotiationId id,
                            const v1::NegotiateRequest& request);
  void AnswerEarlyQuestions();
  void ServePublicNames();
  void LookAtFiles();
  void AdoptOccupant(const PublicName& name, const Probed& occupant);
  void GoOnWithJournals(const Catalog& catalog);
  void WithdrawStaleRoutes();
  void AwaitRegistrant(const std::string& id, const v1::JournalEntry& entry,
                       Time until);
  void ForgetWithGroup(const std::string& id, const v1::JournalEntry& ended);
  void Forget(const std::string& id, const v1::JournalEntry& ended);
  void ArmTimer();
  void LoadCatalog(bool forgive, std::function<void()> then);
  void WatchDefinitions();
  void WatchPolicy();
  void WatchBinaries();
  void RunEnded(StartId id);
  void BeginStop();
  void RelayDrained();
  void BeginLease(LeaseId id, const v1::RegisterRequest& request);
  void LeaseDecided(LeaseId id, Outcome outcome);
  void LeaseOver(StartId id, absl::optional<Refused> why);
  void LetGo(StartId id);
  void MaybeStopped();
  using RetireEvent = void (Machine::*)(RetireId, const std::string&,
                                        const std::string&,
                                        absl::optional<Time>, Time, Effects*);
  void Retire(RetireEvent event, BackendName name,
              absl::optional<Time> deadline,
              std::function<void(BackendOutcome)> done);
  v1::Backend Describe(const BackendName& name);
  std::shared_ptr<const RouteTable> Routes() const;
  // Has the machine of the broker's own world take an event.
  template <typename Event>
  void With(Event event) {
    With(machine_, std::move(event));
  }
  template <typename Event>
  void With(Machine& machine, Event event);
  template <typename Event>
  void WithAll(Event event);
  // The same for the machine whose start that is.
  template <typename Event>
  void WithStarter(StartId id, Event event);
  // nullptr: of a world that nobody has come from.
  Machine* MachineOf(const BackendName& name);
  absl::StatusOr<Machine*> MachineFor(const v1::JournalEntry& entry,
                                      v1::EndpointRule rule);
  void CancelInAll(NegotiationId id);

  asio::io_context& loop_;
  Reaper& reaper_;
  const HostOptions options_;
  std::vector<v1::Problem> problems_;
  const Surroundings surroundings_;
  const absl::Time started_at_;
  const Time started_;
  Counters counters_;
  EventLog events_;
  LimitNotes limit_notes_;
  Metrics metrics_;
  // Of the broker's own world.
  Machine machine_;
  OtherWorlds other_worlds_;
  CatalogLoader loader_;
  std::unique_ptr<DirectoryWatch> definitions_watch_;
  std::unique_ptr<DirectoryWatch> policy_watch_;
  std::unique_ptr<DirectoryWatch> binaries_watch_;
  // What it watches.
  std::set<std::string> binaries_;
  asio::steady_timer timer_;
  absl::optional<Time> armed_for_;
  asio::steady_timer stop_timer_;
  asio::steady_timer limit_timer_;
  std::function<size_t()> connections_;
  std::function<bool(int pid)> is_connected_;
  std::function<void(const ConnectionLimits&)> limits_;
  std::function<void()> stopping_begins_;
  std::function<void()> stopped_;
  bool stopping_ = false;
  // Nobody waits for an event any more: gRPC ends.
  bool streams_ended_ = false;
  std::string logged_problems_;
  std::string noted_definitions_;
  std::atomic<bool> definitions_read_{false};

  std::atomic<NegotiationId> next_negotiation_{1};
  struct Caller {
    std::function<void(Outcome)> done;
    // NegotiateRequest.traceparent.
    std::string traceparent;
  };
  std::map<NegotiationId, Caller> callers_;
  std::map<StartId, std::unique_ptr<BackendRun>> runs_;
  struct Lease {
    std::function<void(v1::RegisterResponse)> registered;
    std::function<void(absl::optional<Refused>)> ended;
    // 0: not looked at yet.
    StartId start = 0;
  };
  std::map<LeaseId, Lease> leases_;
  // Asked for before the definitions were read.
  std::vector<std::pair<LeaseId, v1::RegisterRequest>> early_leases_;
  // Who asked for the status before the definitions were read.
  std::vector<std::function<void()>> early_questions_;
  ReportId next_report_ = 1;
  std::map<ReportId, std::function<void(ReportOutcome)>> reporters_;
  RetireId next_retire_ = 1;
  std::map<RetireId, std::function<void(absl::optional<Refused>)>> retirers_;
  std::unique_ptr<Relay> relay_;
  std::unique_ptr<PublicNames> names_;
  // Once it has taken over.
  absl::optional<Successor> successor_;
  // Backends whose end within this time is mended at once, by service and
  // version.
  std::map<std::pair<std::string, std::string>, Time> distrusted_until_;
  bool relay_drained_ = false;
  bool journals_read_ = false;
  // What an earlier broker left, of services that are not known (yet).
  std::vector<std::pair<std::string, v1::JournalEntry>> left_;

  mutable std::mutex routes_mutex_;
  std::shared_ptr<const RouteTable> routes_ ABSL_GUARDED_BY(routes_mutex_);
  RouteWatch route_watch_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_HOST_H_
