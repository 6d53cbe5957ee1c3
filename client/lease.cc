#include "client/lease.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/broker_socket.h"
#include "client/grpc_negotiator.h"
#include "grpcpp/create_channel_posix.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "proto/zcbroker/v1/broker.pb.h"

namespace zcbroker::client {
namespace {

using std::chrono::milliseconds;
using Stream = grpc::ClientReaderWriterInterface<v1::RegisterRequest,
                                                 v1::RegisterResponse>;

constexpr absl::Duration kContact = absl::Seconds(1);
constexpr milliseconds kFirstPause(100);
constexpr milliseconds kLongestPause(5000);
constexpr std::chrono::seconds kGiveUpPatience(1);

absl::Status FromGrpc(const grpc::Status& status) {
  const absl::optional<absl::Status> refusal = RefusalFrom(
      status.error_code(), status.error_message(), status.error_details());
  if (refusal.has_value()) return *refusal;
  if (status.ok()) return absl::UnavailableError("the lease has ended");
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

class KeptLease : public Lease {
 public:
  KeptLease(Registration registration,
            std::function<void(const absl::Status&)> changed)
      : registration_(std::move(registration)),
        changed_(std::move(changed)),
        thread_([this] { Run(); }) {}

  ~KeptLease() override {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ending_ = true;
      woken_.notify_all();
      if (stream_ != nullptr) {
        stream_->WritesDone();
        woken_.wait_for(lock, kGiveUpPatience,
                        [this] { return stream_ == nullptr; });
      }
      if (context_ != nullptr) context_->TryCancel();
    }
    thread_.join();
  }

 private:
  void Run() {
    milliseconds pause = kFirstPause;
    while (!Ending()) {
      const absl::Status ended = HoldOne(&pause);
      if (Ending()) return;
      changed_(ended);
      std::unique_lock<std::mutex> lock(mutex_);
      woken_.wait_for(lock, pause, [this] { return ending_; });
      pause = std::min(pause * 2, kLongestPause);
    }
  }

  bool Ending() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ending_;
  }

  // Registers, and returns when the lease has ended, or why there was none.
  // `pause` begins anew once there was one.
  absl::Status HoldOne(milliseconds* pause) {
    ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint broker,
                         FindBroker(ipc::HostEnvironment()));
    ZCB_ASSIGN_OR_RETURN(ipc::UniqueFd fd,
                         ConnectBroker(broker, ipc::Deadline::After(kContact)));
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    const auto stub =
        v1::Broker::NewStub(grpc::CreateCustomInsecureChannelFromFd(
            "localhost", fd.release(), arguments));
    grpc::ClientContext context;
    const auto stream = stub->Register(&context);
    // Until it is written, nobody else may write its end.
    Publish(&context, nullptr);
    v1::RegisterRequest request;
    request.set_service(registration_.service);
    request.set_version(registration_.version);
    request.set_endpoint(registration_.endpoint);
    stream->Write(request);
    Publish(&context, stream.get());
    v1::RegisterResponse response;
    while (stream->Read(&response)) {
      *pause = kFirstPause;
      if (!Ending()) changed_(absl::OkStatus());
    }
    const grpc::Status status = stream->Finish();
    Publish(nullptr, nullptr);
    return FromGrpc(status);
  }

  void Publish(grpc::ClientContext* context, Stream* stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    context_ = context;
    stream_ = stream;
    // The end came before there was anything to end.
    if (ending_ && context != nullptr) context->TryCancel();
    woken_.notify_all();
  }

  const Registration registration_;
  const std::function<void(const absl::Status&)> changed_;
  std::mutex mutex_;
  std::condition_variable woken_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the call that is held, by the thread that holds it.
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // The last member: it uses the others.
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Lease> Lease::Keep(
    Registration registration,
    std::function<void(const absl::Status&)> changed) {
  return std::make_unique<KeptLease>(std::move(registration),
                                     std::move(changed));
}

}  // namespace zcbroker::client
