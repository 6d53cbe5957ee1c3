#include "service/rpc/on_demand_server.h"

#include <chrono>
#include <utility>

#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "ipc/spare_memory.h"
#include "service/rpc/services.h"

namespace zcbroker::service {
namespace {

// docs/operations.md, "Limits".
constexpr int kHandshakeMillis = 5000;
constexpr std::chrono::milliseconds kGoingPatience(500);

void RegisterPluginsOnce() {
  static const bool registered = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  static_cast<void>(registered);
}

}  // namespace

// A server with what has to live as long as it does.
struct OnDemandServer::Built {
  explicit Built(BrokerPort& port) : broker(port), admin(port) {}

  BrokerService broker;
  AdminService admin;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor;
  std::unique_ptr<grpc::Server> server;
};

OnDemandServer::OnDemandServer(BrokerPort& port,
                               std::function<bool()> may_build)
    : port_(port), may_build_(std::move(may_build)) {}

OnDemandServer::~OnDemandServer() {
  End([] {});
  if (going_.joinable()) going_.join();
}

void OnDemandServer::End(std::function<void()> gone) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    if (state_ != State::kNone) gone_ = std::exchange(gone, nullptr);
  }
  if (gone) {
    gone();
  } else {
    TearDown();
  }
}

std::unique_ptr<OnDemandServer::Built> OnDemandServer::Build() {
  RegisterPluginsOnce();
  auto built = std::make_unique<Built>(port_);
  grpc::ServerBuilder builder;
  builder.RegisterService(&built->broker);
  builder.RegisterService(&built->admin);
  builder.SetMaxReceiveMessageSize(kMaxGrpcMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxGrpcStreams);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             kHandshakeMillis);
  // The listener checked who is connected; gRPC's own credentials for local
  // sockets check nothing more.
  built->acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  built->server = builder.BuildAndStart();
  return built;
}

void OnDemandServer::AdoptLocked(ipc::UniqueFd connection) {
  if (ending_) return;
  if (state_ == State::kGoing) {
    queued_.push_back(std::move(connection));
    return;
  }
  if (state_ == State::kNone) {
    if (!may_build_()) {
      port_.counters().Reached("refused.FD_PRESSURE");
      return;
    }
    built_ = Build();
    if (built_->server == nullptr) {
      // Out of descriptors or threads: the caller sees its connection closed
      // and the next one tries anew.
      built_.reset();
      port_.counters().Reached("grpc_build_failures");
      return;
    }
    state_ = State::kServing;
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
      parameters;
  parameters.fd = connection.release();
  built_->acceptor->HandleNewConnection(&parameters);
}

void OnDemandServer::Adopt(ipc::UniqueFd connection) {
  std::lock_guard<std::mutex> lock(mutex_);
  AdoptLocked(std::move(connection));
}

void OnDemandServer::TearDown() {
  std::unique_ptr<Built> going;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (state_ != State::kServing) return;
    state_ = State::kGoing;
    going = std::move(built_);
  }
  if (going_.joinable()) going_.join();
  going_ = std::thread([this, going = std::move(going)]() mutable {
    going->server->Shutdown(std::chrono::system_clock::now() + kGoingPatience);
    going->server->Wait();
    going.reset();
    // 18 KiB for each connection that there was at one time, and gRPC's code.
    ipc::GiveBackFreedMemory();
    ipc::GiveBackCodePages();
    std::function<void()> gone;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      state_ = State::kNone;
      for (ipc::UniqueFd& connection : std::exchange(queued_, {})) {
        AdoptLocked(std::move(connection));
      }
      gone = std::exchange(gone_, nullptr);
    }
    if (gone) gone();
  });
}

}  // namespace zcbroker::service
