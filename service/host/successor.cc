#include "service/host/successor.h"

#include <chrono>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/process.h"
#include "ipc/route_info.h"
#include "ipc/socket.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker::service {
namespace {

namespace rpb = running_process::broker::v1;
using std::chrono::milliseconds;

// A process that has closed its connections has ended soon, or goes on.
constexpr milliseconds kLook(10);
constexpr int kLooks = 100;

void AwaitEnd(const std::shared_ptr<asio::steady_timer>& timer,
              const ipc::ProcessIdentity& process, int looks,
              std::function<void(v1::BackendVerdict)> done) {
  timer->expires_after(kLook);
  timer->async_wait([timer, process, looks, done = std::move(done)](
                        const asio::error_code& error) mutable {
    if (error) return;
    if (!ipc::IsAlive(process)) {
      done(v1::BACKEND_VERDICT_GONE);
    } else if (looks == 0) {
      done(v1::BACKEND_VERDICT_BUSY);
    } else {
      AwaitEnd(timer, process, looks - 1, std::move(done));
    }
  });
}

absl::StatusOr<std::string> Encode(const v1::ReportBackendRequest& report) {
  v1::LauncherRequest request;
  v1::LauncherRequest::Report& told = *request.mutable_report();
  told.set_service(report.service());
  told.set_version(report.version());
  told.set_pid(report.pid());
  told.set_start_time(report.start_time());
  told.set_reason(report.reason());
  return ipc::EncodeFrame(
      ipc::MakeFrame(rpb::FRAME_KIND_REQUEST, ipc::kLauncherProtocol,
                     /*request_id=*/1, request.SerializeAsString()));
}

}  // namespace

absl::optional<v1::BackendRoute> Successor::Route(
    const std::string& service, const std::string& version) const {
  const absl::StatusOr<ipc::Endpoint> name =
      ipc::RouteSocket(runtime_, service, version);
  if (!name.ok()) return absl::nullopt;
  v1::BackendRoute route;
  route.set_endpoint(name->path());
  route.set_version(version);
  return route;
}

void Successor::Report(const v1::ReportBackendRequest& report,
                       std::function<void(v1::BackendVerdict)> done) {
  if (report.pid() == 0) {
    asio::post(loop_,
               [done = std::move(done)] { done(v1::BACKEND_VERDICT_BUSY); });
    return;
  }
  const absl::StatusOr<ipc::Endpoint> broker =
      ipc::Endpoint::Parse(broker_socket_);
  const absl::StatusOr<std::string> bytes = Encode(report);
  const ipc::Deadline now = ipc::Deadline::After(absl::ZeroDuration());
  if (broker.ok() && bytes.ok()) {
    absl::StatusOr<ipc::UniqueFd> fd = ipc::Connect(*broker, now);
    if (fd.ok() && ipc::WriteAll(*fd, *bytes, now).ok()) {
      reported_ = *std::move(fd);
    }
  }
  AwaitEnd(std::make_shared<asio::steady_timer>(loop_),
           {static_cast<int>(report.pid()), report.start_time(),
            ipc::BootId().value_or("")},
           kLooks, std::move(done));
}

}  // namespace zcbroker::service
