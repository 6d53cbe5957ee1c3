// Connects to the daemon of a service at a version, and says how that came
// about. With ZCCACHE_BROKER_CONNECT=1 the broker is asked where it listens;
// without, or where that fails, the connection is direct.
#include <iostream>

#include "client/connect_daemon.h"
#include "client/grpc_negotiator.h"

using zcbroker::client::ConnectLaneName;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: " << argv[0] << " SERVICE VERSION DIRECT_ENDPOINT\n";
    return 2;
  }
  zcbroker::client::ConnectOptions options;
  options.service = argv[1];
  options.wanted_version = argv[2];
  options.negotiator = zcbroker::client::GrpcBroker();
  const auto daemon =
      zcbroker::client::ConnectDaemonWithRoute(argv[3], options);
  if (!daemon.ok()) {
    std::cerr << daemon.status() << '\n';
    return 1;
  }
  const zcbroker::client::ConnectRoute& route = daemon->route;
  std::cout << ConnectLaneName(route.lane) << ' ' << route.endpoint << '\n';
  if (route.fallback.has_value()) std::cout << route.fallback_status << '\n';
  return 0;
}
