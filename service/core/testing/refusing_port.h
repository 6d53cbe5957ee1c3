// Rules for tests of what is in front of the rules.
#ifndef ZCBROKER_SERVICE_CORE_TESTING_REFUSING_PORT_H_
#define ZCBROKER_SERVICE_CORE_TESTING_REFUSING_PORT_H_

#include <functional>
#include <string>

#include "absl/types/optional.h"
#include "proto/zcbroker/v1/admin.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/errors.pb.h"
#include "service/core/broker_port.h"
#include "service/core/counters.h"
#include "service/core/outcome.h"

namespace zcbroker::service::testing {

// Knows one service, "zccache", and refuses whatever it is asked: for those who
// look at how questions and answers travel. Thread-safe.
class RefusingPort : public BrokerPort {
 public:
  absl::optional<v1::NegotiateResponse> TryRoute(
      const v1::NegotiateRequest&) override {
    return absl::nullopt;
  }
  bool KnowsService(const std::string& name) override {
    return name == "zccache";
  }
  NegotiationId Negotiate(v1::NegotiateRequest request, absl::optional<Time>,
                          std::function<void(Outcome)> done) override {
    done(No(request));
    return 1;
  }
  void Cancel(NegotiationId) override {}
  void LookUp(v1::NegotiateRequest request,
              std::function<void(LookupOutcome)> done) override {
    done(No(request));
  }
  void ReportBackend(v1::ReportBackendRequest, absl::optional<Time>,
                     std::function<void(ReportOutcome)> done) override {
    done(v1::ReportBackendResponse());
  }
  LeaseId Register(
      v1::RegisterRequest request, std::function<void(v1::RegisterResponse)>,
      std::function<void(absl::optional<Refused>)> ended) override {
    ended(No(request.service(), request.version()));
    return 1;
  }
  void EndLease(LeaseId) override {}
  void StartBackend(BackendName name, absl::optional<Time>,
                    std::function<void(BackendOutcome)> done) override {
    done(No(name.service, name.version));
  }
  void StopBackend(BackendName name, absl::optional<Time>,
                   std::function<void(BackendOutcome)> done) override {
    done(No(name.service, name.version));
  }
  void DrainBackend(BackendName name, absl::optional<Time>,
                    std::function<void(BackendOutcome)> done) override {
    done(No(name.service, name.version));
  }
  void GetStatus(std::function<void(v1::GetStatusResponse)> done) override {
    done(v1::GetStatusResponse());
  }
  void ListBackends(
      std::function<void(v1::ListBackendsResponse)> done) override {
    done(v1::ListBackendsResponse());
  }
  void ReloadDefinitions(
      std::function<void(v1::ReloadDefinitionsResponse)> done) override {
    done(v1::ReloadDefinitionsResponse());
  }
  void Shutdown(const v1::ShutdownRequest&,
                std::function<void(v1::ShutdownResponse)> done) override {
    done(v1::ShutdownResponse());
  }
  void GetMetrics(std::function<void(v1::GetMetricsResponse)> done) override {
    done({});
  }
  EventLog::ReadId ReadEvents(uint64_t, bool, EventLog::Done done) override {
    done({});
    return 0;
  }
  void ForgetEvents(EventLog::ReadId) override {}
  RouteWatch::ReadId ReadRoutes(RouteWatch::Table,
                                RouteWatch::Done done) override {
    done(nullptr);
    return 0;
  }
  void ForgetRoutes(RouteWatch::ReadId) override {}
  Counters& counters() override { return counters_; }

 private:
  static Refused No(const std::string& service, const std::string& version) {
    return Refuse(v1::REFUSAL_VERSION_NOT_INSTALLED, "not here", service,
                  version);
  }
  static Refused No(const v1::NegotiateRequest& request) {
    return No(request.service(), request.wanted_version());
  }

  Counters counters_;
};

}  // namespace zcbroker::service::testing

#endif  // ZCBROKER_SERVICE_CORE_TESTING_REFUSING_PORT_H_
