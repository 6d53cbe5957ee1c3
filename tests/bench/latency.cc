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
//        latency grpc-new SAMPLES NAME=SOCKET,SERVICE,VERSION...
//          the same over a new channel each time, with all that belongs to it
//        latency connect SAMPLES NAME=ENDPOINT,direct|route-info,VERSION...
//          our client library against a daemon: ConnectDaemon, Ping, close;
//          where to is told (row 4 of its table) or read (row 3)
// Prints a line per contender: NAME, p50, p99 in microseconds, samples.
//
// usage: latency framed-rate PER_SECOND SECONDS SOCKET,SERVICE,VERSION
//          so many Hellos a second, whether or not earlier ones are answered;
//          each is late from when it was due
// Prints p50, p99 in microseconds, samples, and answers a second.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "client/daemon_connection.h"
#include "grpcpp/grpcpp.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/frame/envelope.h"
#include "ipc/socket.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"

namespace zcbroker {
namespace {

namespace upstream = running_process::broker::v1;

constexpr int kBlock = 500;
constexpr int kWarmUp = 100;
// Of a rate: enough for one that waits not to hold up the next.
constexpr size_t kSenders = 16;

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

std::unique_ptr<v1::Broker::Stub> NewStub(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  // Else the next channel would find the connection of the last one.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::Broker::NewStub(
      grpc::CreateCustomChannel(absl::StrCat("unix:", socket),
                                grpc::InsecureChannelCredentials(), arguments));
}

void Negotiate(v1::Broker::Stub& stub, const v1::NegotiateRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(15));
  v1::NegotiateResponse response;
  const grpc::Status status = stub.Negotiate(&context, request, &response);
  if (!status.ok()) Die(status.error_message());
}

std::function<void()> GrpcSample(const std::string& socket,
                                 const std::string& service,
                                 const std::string& version, bool new_channel) {
  v1::NegotiateRequest request;
  request.set_service(service);
  request.set_wanted_version(version);
  request.set_client_name("latency");
  if (new_channel) {
    return [socket, request] { Negotiate(*NewStub(socket), request); };
  }
  // A std::function is copied, so the stub has two owners for a moment.
  const std::shared_ptr<v1::Broker::Stub> stub = NewStub(socket);
  return [stub, request] { Negotiate(*stub, request); };
}

std::function<void()> ConnectSample(const std::string& endpoint,
                                    const std::string& how,
                                    const std::string& version) {
  const bool by_route_info = how == "route-info";
  client::ConnectOptions options;
  options.wanted_version = version;
  options.environment =
      [by_route_info, host = ipc::HostEnvironment()](
          absl::string_view name) -> absl::optional<std::string> {
    if (name != "ZCCACHE_BROKER_CONNECT") return host(name);
    if (by_route_info) return "1";
    return absl::nullopt;
  };
  // A hit asks no broker.
  options.negotiator = [](const ipc::EnvironmentLookup&)
      -> absl::StatusOr<std::unique_ptr<client::BrokerNegotiator>> {
    Die("the broker was asked");
  };
  const client::ConnectLane lane = by_route_info ? client::ConnectLane::kBroker
                                                 : client::ConnectLane::kDirect;
  return [endpoint, options, lane] {
    auto daemon = client::ConnectDaemonWithRoute(endpoint, options);
    if (!daemon.ok()) Die(daemon.status().ToString());
    if (daemon->route.lane != lane) Die("not the way that was meant");
    const absl::Status pong =
        daemon->connection.Ping(ipc::Deadline::After(absl::Seconds(10)));
    if (!pong.ok()) Die(pong.ToString());
  };
}

std::function<void()> SampleOf(const std::string& protocol,
                               const std::vector<std::string>& parts) {
  if (protocol == "framed") return FramedSample(parts[0], parts[1], parts[2]);
  if (protocol == "grpc" || protocol == "grpc-new") {
    return GrpcSample(parts[0], parts[1], parts[2], protocol == "grpc-new");
  }
  return ConnectSample(parts[0], parts[1], parts[2]);
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

int RunAtRate(double per_second, double seconds,
              const std::vector<std::string>& parts) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now() + std::chrono::milliseconds(100);
  const auto total = static_cast<size_t>(per_second * seconds);
  std::vector<std::vector<double>> micros(kSenders);
  std::vector<std::thread> senders;
  for (size_t sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&, sender] {
      const auto sample = FramedSample(parts[0], parts[1], parts[2]);
      for (size_t i = sender; i < total; i += kSenders) {
        const auto due = begin + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(
                                         static_cast<double>(i) / per_second));
        std::this_thread::sleep_until(due);
        sample();
        micros[sender].push_back(
            std::chrono::duration<double, std::micro>(Clock::now() - due)
                .count());
      }
    });
  }
  for (std::thread& sender : senders) sender.join();
  const std::chrono::duration<double> took = Clock::now() - begin;
  std::vector<double> all;
  for (const std::vector<double>& each : micros) {
    all.insert(all.end(), each.begin(), each.end());
  }
  std::sort(all.begin(), all.end());
  printf("%.1f %.1f %zu %.0f\n", all[all.size() / 2],
         all[all.size() * 99 / 100], all.size(),
         static_cast<double>(all.size()) / took.count());
  return 0;
}

int Main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "framed-rate") {
    const std::vector<std::string> parts = absl::StrSplit(argv[4], ',');
    if (parts.size() != 3) Die("not three parts");
    return RunAtRate(atof(argv[2]), atof(argv[3]), parts);
  }
  if (argc < 4) {
    Die("usage: latency framed|grpc|grpc-new|connect SAMPLES "
        "NAME=A,B,VERSION...");
  }
  const std::string protocol = argv[1];
  std::vector<Contender> contenders;
  for (int i = 3; i < argc; ++i) {
    const std::pair<std::string, std::string> named =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    const std::vector<std::string> parts = absl::StrSplit(named.second, ',');
    if (parts.size() != 3) {
      Die(absl::StrCat("not three parts: ", argv[i]));
    }
    contenders.push_back({named.first, SampleOf(protocol, parts), {}});
  }
  Run(contenders, atoi(argv[2]));
  return 0;
}

}  // namespace
}  // namespace zcbroker

int main(int argc, char** argv) { return zcbroker::Main(argc, argv); }
