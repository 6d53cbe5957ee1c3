// The least that any relay adds: one thread, one client at a time, blocking
// calls, no checks, and its connection to the daemon made in advance. Knows of
// zccache's frames only where they end. The yardstick for ours.
//
// usage: bare_relay PUBLIC DAEMON   (two socket paths; serves until ended)
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

char buffer[1 << 16];

sockaddr_un Address(const char* path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  return address;
}

int Socket() { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }

int Dial(const char* path) {
  const int fd = Socket();
  const sockaddr_un address = Address(path);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) != 0) {
    perror("bare_relay: connect");
    exit(1);
  }
  return fd;
}

// Passes on one reply: a length of four bytes, little-endian, and the rest.
bool PassReply(int daemon, int client) {
  std::uint32_t length = 0;
  std::size_t got = 0;
  std::size_t whole = sizeof(length);
  while (got < whole) {
    const ssize_t n = recv(daemon, buffer + got, sizeof(buffer) - got, 0);
    if (n <= 0) return false;
    got += static_cast<std::size_t>(n);
    if (got >= sizeof(length)) {
      memcpy(&length, buffer, sizeof(length));
      whole = sizeof(length) + length;
    }
  }
  return send(client, buffer, got, MSG_NOSIGNAL) > 0;
}

void Serve(int client, int daemon) {
  for (;;) {
    const ssize_t n = recv(client, buffer, sizeof(buffer), 0);
    if (n <= 0 ||
        send(daemon, buffer, static_cast<std::size_t>(n), MSG_NOSIGNAL) != n ||
        !PassReply(daemon, client)) {
      return;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: bare_relay PUBLIC DAEMON\n");
    return 2;
  }
  const int listener = Socket();
  const sockaddr_un address = Address(argv[1]);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address),
           sizeof(address)) != 0 ||
      listen(listener, SOMAXCONN) != 0) {
    perror("bare_relay: listen");
    return 1;
  }
  for (;;) {
    const int daemon = Dial(argv[2]);
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    Serve(client, daemon);
    close(client);
    close(daemon);
  }
}
