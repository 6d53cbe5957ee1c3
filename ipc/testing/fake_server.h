// A real listening Unix socket whose every connection runs a script: fake
// brokers and daemons for tests.
#ifndef ZCBROKER_IPC_TESTING_FAKE_SERVER_H_
#define ZCBROKER_IPC_TESTING_FAKE_SERVER_H_

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ipc/listener.h"
#include "ipc/unique_fd.h"

namespace zcbroker::ipc {

class FakeServer {
 public:
  // What happens on one connection, which is the script's; `index` counts the
  // connections from 0. Runs on a thread of its own for each.
  using Script = std::function<void(UniqueFd& connection, int index)>;

  // Listens when it returns. Aborts where it cannot bind.
  FakeServer(const std::string& path, Script script);
  // Stops listening, ends what still waits on a connection, joins all threads.
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  const std::string& path() const { return listener_.endpoint().path(); }
  // Accepted so far. Thread-safe.
  int connections() const;

 private:
  void AcceptLoop();
  void Start(UniqueFd connection);

  const Script script_;
  Listener listener_;
  UniqueFd stop_;
  mutable std::mutex mutex_;
  int accepted_ = 0;
  std::vector<UniqueFd> held_;  // a duplicate of each connection, to end it
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// Reads and drops bytes until the peer is gone or the server ends: a peer that
// never answers.
void StayMute(UniqueFd& connection);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_TESTING_FAKE_SERVER_H_
