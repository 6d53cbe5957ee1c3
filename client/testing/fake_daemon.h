// A daemon that speaks zccache's wire lanes and answers as a test says.
#ifndef ZCBROKER_CLIENT_TESTING_FAKE_DAEMON_H_
#define ZCBROKER_CLIENT_TESTING_FAKE_DAEMON_H_

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "ipc/testing/fake_server.h"
#include "ipc/unique_fd.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {

class FakeDaemon {
 public:
  using Handler =
      std::function<zccache::v1::Response(const zccache::v1::Request&)>;

  // Answers every request by `handler`, on the lane it came on.
  FakeDaemon(const std::string& path, Handler handler);
  // Answers Ping, and Status with `version`; Error to anything else.
  static Handler Answering(const std::string& version);

  const std::string& path() const { return server_.path(); }
  int connections() const { return server_.connections(); }
  // Thread-safe.
  std::vector<zccache::v1::Request> requests() const;

 private:
  void Serve(ipc::UniqueFd& connection);

  const Handler handler_;
  mutable std::mutex mutex_;
  std::vector<zccache::v1::Request> requests_;
  ipc::FakeServer server_;  // last: its threads use the rest
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_TESTING_FAKE_DAEMON_H_
