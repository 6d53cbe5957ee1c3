// sockaddr_un from a checked path.
#ifndef ZCBROKER_IPC_PLATFORM_SOCKET_ADDRESS_H_
#define ZCBROKER_IPC_PLATFORM_SOCKET_ADDRESS_H_

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "ipc/endpoint.h"

namespace zcbroker::ipc {

inline sockaddr_un SocketAddress(const Endpoint& endpoint) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  static_assert(sizeof(address.sun_path) > MaxSocketPathBytes(HostOs()));
  std::memcpy(address.sun_path, endpoint.path().data(), endpoint.path().size());
  return address;
}

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_PLATFORM_SOCKET_ADDRESS_H_
