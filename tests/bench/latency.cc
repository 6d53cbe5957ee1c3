// Measures round trips, interleaved: a block of samples of each contender in
// turn, in an order shuffled every time, so that a noisy machine is noisy for
// all. Blocks and not single samples, since a server that still closes its
// connection keeps a core awake for whoever is measured next; for the same
// reason the first samples of a block are not counted.
//
// usage: latency framed SAMPLES NAME=SOCKET,SERVICE,VERSION...
//          a Hello over a new connection: connect, write, read, close
//        latency grpc SAMPLES NAME=SOCKET,SERVICE,VERSION...
//          Broker.Negotiate over a warm channel
// Prints a line per contender: NAME, p50, p99 in microseconds, samples.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/socket.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"

namespace zcbroker {
namespace {

namespace upstream = running_process::broker::v1;

constexpr int kBlock = 500;
constexpr int kWarmUp = 100;

struct Contender {
  std::string name;
  std::function<void()> sample;
  std::vector<double> micros;
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "latency: %s\n", what.c_str());
  exit(1);
}

// What zccache 1.11.22 sends, for another service and version.
std::string HelloBytes(const std::string& service, const std::string& version) {
  upstream::Hello hello;
  hello.set_client_min_protocol(1);
  hello.set_client_max_protocol(1);
  hello.set_service_name(service);
  hello.set_wanted_version(version);
  hello.set_client_capabilities(1);
  hello.set_request_id("hello");
  hello.set_peer_pid(static_cast<uint32_t>(getpid()));
  hello.set_client_lib_name("running-process");
  hello.set_client_lib_version("4.1.0");
  return *ipc::EncodeFrame(ipc::MakeFrame(upstream::FRAME_KIND_REQUEST,
                                          ipc::kControlProtocol, 1,
                                          hello.SerializeAsString()));
}

std::function<void()> FramedSample(const std::string& socket,
                                   const std::string& service,
                                   const std::string& version) {
  const auto endpoint = ipc::Endpoint::Parse(socket);
  if (!endpoint.ok()) Die(endpoint.status().ToString());
  return [endpoint = *endpoint, hello = HelloBytes(service, version)] {
    const ipc::Deadline deadline = ipc::Deadline::After(absl::Seconds(10));
    const auto fd = ipc::Connect(endpoint, deadline);
    if (!fd.ok()) Die(fd.status().ToString());
    if (!ipc::WriteAll(*fd, hello, deadline).ok()) Die("write");
    std::string reply;
    char buffer[4096];
    while (true) {
      const auto n = ipc::ReadSome(*fd, buffer, sizeof(buffer), deadline);
      if (!n.ok()) Die(n.status().ToString());
      if (*n == 0) Die("closed before a whole reply");
      reply.append(buffer, *n);
      const ipc::FrameHeader header = ipc::ParseFrameHeader(reply);
      if (header.complete &&
          reply.size() >= ipc::kFrameHeaderBytes + header.body_bytes) {
        return;
      }
    }
  };
}

std::function<void()> GrpcSample(const std::string& socket,
                                 const std::string& service,
                                 const std::string& version) {
  grpc::ChannelArguments arguments;
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  const std::shared_ptr<v1::Broker::Stub> stub = v1::Broker::NewStub(
      grpc::CreateCustomChannel(absl::StrCat("unix:", socket),
                                grpc::InsecureChannelCredentials(), arguments));
  v1::NegotiateRequest request;
  request.set_service(service);
  request.set_wanted_version(version);
  request.set_client_name("latency");
  return [stub, request] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(15));
    v1::NegotiateResponse response;
    const grpc::Status status = stub->Negotiate(&context, request, &response);
    if (!status.ok()) Die(status.error_message());
  };
}

void Run(std::vector<Contender>& contenders, int samples) {
  std::mt19937 random(20261123);
  std::vector<Contender*> order;
  for (Contender& contender : contenders) order.push_back(&contender);
  for (int counted = 0; counted < samples; counted += kBlock) {
    std::shuffle(order.begin(), order.end(), random);
    for (Contender* contender : order) {
      for (int i = 0; i < kWarmUp; ++i) contender->sample();
      for (int i = 0; i < kBlock; ++i) {
        const auto start = std::chrono::steady_clock::now();
        contender->sample();
        const std::chrono::duration<double, std::micro> took =
            std::chrono::steady_clock::now() - start;
        contender->micros.push_back(took.count());
      }
    }
  }
  for (Contender& contender : contenders) {
    std::vector<double>& m = contender.micros;
    std::sort(m.begin(), m.end());
    printf("%s %.1f %.1f %zu\n", contender.name.c_str(), m[m.size() / 2],
           m[m.size() * 99 / 100], m.size());
  }
}

int Main(int argc, char** argv) {
  if (argc < 4) {
    Die("usage: latency framed|grpc SAMPLES NAME=SOCKET,SERVICE,VERSION...");
  }
  const std::string protocol = argv[1];
  std::vector<Contender> contenders;
  for (int i = 3; i < argc; ++i) {
    const std::pair<std::string, std::string> named =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    const std::vector<std::string> parts = absl::StrSplit(named.second, ',');
    if (parts.size() != 3) {
      Die(absl::StrCat("not SOCKET,SERVICE,VERSION: ", argv[i]));
    }
    contenders.push_back({named.first,
                          protocol == "grpc"
                              ? GrpcSample(parts[0], parts[1], parts[2])
                              : FramedSample(parts[0], parts[1], parts[2]),
                          {}});
  }
  Run(contenders, atoi(argv[2]));
  return 0;
}

}  // namespace
}  // namespace zcbroker

int main(int argc, char** argv) { return zcbroker::Main(argc, argv); }
