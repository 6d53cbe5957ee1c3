// What gRPC itself costs: a server that answers Broker.Negotiate with a fixed
// response of the usual size and does nothing else. The yardstick for ours.
//
// usage: bare_grpc_server SOCKET   (prints "ready", serves until ended)
#include <cstdio>
#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"

namespace zcbroker {
namespace {

class FixedAnswer final : public v1::Broker::CallbackService {
 public:
  explicit FixedAnswer(v1::NegotiateResponse answer)
      : answer_(std::move(answer)) {}

  grpc::ServerUnaryReactor* Negotiate(
      grpc::CallbackServerContext* context, const v1::NegotiateRequest*,
      v1::NegotiateResponse* response) override {
    *response = answer_;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const v1::NegotiateResponse answer_;
};

v1::NegotiateResponse UsualResponse() {
  v1::NegotiateResponse response;
  v1::BackendRoute& route = *response.mutable_route();
  route.set_endpoint("/run/user/1000/zcbroker/backends/0123456789abcdef.sock");
  route.add_lanes(v1::WIRE_LANE_FRAME_V1);
  route.add_lanes(v1::WIRE_LANE_PROST_V16);
  route.add_lanes(v1::WIRE_LANE_BINCODE_V15);
  route.set_version("1.11.22");
  route.set_pid(123456);
  route.set_start_time(12345678);
  route.set_boot_id("3f0c1a52-6d1e-4d0a-9a7e-1f2b3c4d5e6f");
  route.set_generation(1);
  response.set_origin(v1::ROUTE_ORIGIN_REUSED);
  return response;
}

}  // namespace
}  // namespace zcbroker

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: bare_grpc_server SOCKET\n");
    return 2;
  }
  zcbroker::FixedAnswer service(zcbroker::UsualResponse());
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  builder.AddListeningPort(std::string("unix:") + argv[1],
                           grpc::InsecureServerCredentials());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  printf("ready\n");
  fflush(stdout);
  server->Wait();
  return 0;
}
