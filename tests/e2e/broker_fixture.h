// What every end-to-end test starts from: a home of its own, the real zcbrokerd
// in it, and plain clients of both protocols that show exactly what was
// answered.
#ifndef ZCBROKER_TESTS_E2E_BROKER_FIXTURE_H_
#define ZCBROKER_TESTS_E2E_BROKER_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/endpoint.h"
#include "ipc/unique_fd.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/admin.grpc.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "proto/zcbroker/v1/errors.pb.h"
#include "tests/e2e/process.h"

namespace zcbroker::testing {

// Absolute paths of the programs under test, from the test's environment
// ($ZCBROKERD, $ZCBROKER, $REFERENCE_BACKEND).
std::string BrokerProgram();
// UBSan's check of types looks at memory through a pipe: in a broker that is
// out of descriptors it calls every object one of another type. ThreadSanitizer
// finds out by a process of its own whether a report is one to suppress.
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer) || \
    __has_feature(thread_sanitizer)
#define ZCB_CHECKS_NEED_PIPES
#endif
#endif
#ifdef ZCB_CHECKS_NEED_PIPES
inline constexpr bool kChecksNeedPipes = true;
#else
inline constexpr bool kChecksNeedPipes = false;
#endif

std::string CommandLineProgram();
std::string BackendProgram();

// A short directory in /tmp with everything a user's home has; removed with the
// object. Nothing outside it is read or written by what is started with its
// environment, but for the broker's name in the system's own runtime directory.
class Home {
 public:
  Home();
  ~Home();
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  const std::string& path() const { return path_; }
  std::string Entry(absl::string_view leaf) const;
  std::string runtime_dir() const { return Entry("run"); }
  std::string broker_socket() const {
    return Entry("run/zcbroker/broker.sock");
  }
  std::string services_dir() const { return Entry("config/zcbroker/services"); }
  // Of every broker here.
  std::string policy_file() const { return Entry("policy/managed"); }
  // Of a backend that the broker started.
  std::string LogFile(absl::string_view service,
                      absl::string_view version) const;

  // HOME, the XDG directories inside it, and PATH.
  Environment environment() const;

  // Writes the managed policy, as an editor would: renamed into place.
  void SetPolicy(const std::string& text) const;
  // Writes services/<name>.textproto.
  void Define(const std::string& name, const std::string& text) const;
  // Upstream's <name>.servicedef of one version.
  void DefineUpstream(const std::string& name, const std::string& binary,
                      const std::string& version) const;
  // An executable shell script; returns its path.
  std::string Script(const std::string& name, const std::string& body) const;

 private:
  std::string path_;
};

// A definition of the reference backend that reports the version asked for.
// `arguments` follow its own; `more` is text of the definition.
std::string ReferenceDefinition(const std::string& name,
                                const std::vector<std::string>& versions,
                                const std::vector<std::string>& arguments = {},
                                const std::string& more = "");
// Of any program that is told nothing.
std::string PlainDefinition(const std::string& name, const std::string& binary,
                            const std::string& more = "");

// What a gRPC caller got.
struct GrpcAnswer {
  grpc::Status status;
  v1::NegotiateResponse response;
  // Of google.rpc.Status, where there is one.
  int details = 0;
  std::string reason;
  std::string domain;
  absl::optional<absl::Duration> retry;
  absl::optional<v1::RefusalDetail> refusal;

  bool ok() const { return status.ok(); }
};

// One connection. Thread-safe, as channels are.
class GrpcClient {
 public:
  // Fails the test where nobody listens.
  explicit GrpcClient(const std::string& socket);

  GrpcAnswer Negotiate(const v1::NegotiateRequest& request,
                       absl::Duration timeout = kPatience);
  GrpcAnswer Negotiate(const std::string& service, const std::string& version,
                       absl::Duration timeout = kPatience);
  v1::GetStatusResponse Status();
  std::vector<v1::Backend> Backends();
  v1::ReloadDefinitionsResponse Reload();
  // What the broker keeps of what came after the event of that number.
  std::vector<v1::Event> Events(uint64_t after = 0);

  v1::Broker::Stub& broker() { return *broker_; }
  v1::Admin::Stub& admin() { return *admin_; }

 private:
  std::unique_ptr<v1::Broker::Stub> broker_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

GrpcAnswer ReadAnswer(grpc::Status status, v1::NegotiateResponse response);

v1::NegotiateRequest RequestFor(const std::string& service,
                                const std::string& version);

// What a framed caller got; nothing is set where the broker closed without a
// word.
struct FramedAnswer {
  absl::optional<running_process::broker::v1::Negotiated> negotiated;
  absl::optional<running_process::broker::v1::Refused> refused;
  // The broker closed after it, as the protocol says.
  bool closed = false;
};

ipc::UniqueFd ConnectTo(const std::string& socket);
// All that comes until the broker closes.
std::string ReadToEnd(const ipc::UniqueFd& fd, bool* closed);
FramedAnswer ReadFramedAnswer(const ipc::UniqueFd& fd);

running_process::broker::v1::Hello HelloFor(const std::string& service,
                                            const std::string& version);
// A whole frame on the control lane.
std::string HelloFrame(const running_process::broker::v1::Hello& hello);
FramedAnswer NegotiateFramed(const std::string& socket,
                             const std::string& service,
                             const std::string& version);

// A zcbrokerd in `home`.
class Broker {
 public:
  struct Options {
    std::vector<std::string> arguments = {"--allow-root"};
    // Added to the home's.
    Environment environment;
    // Inherit the listening socket rather than bind it.
    bool inherit_socket = false;
    // Of open files, hard; 0: ours.
    int descriptor_limit = 0;
    // Where its log goes; -1: where ours does.
    int log_fd = -1;
  };

  // Returns when it has said READY=1. Fails the test where it does not.
  Broker(const Home& home, const Options& options);

  Process& process() { return process_; }
  const std::string& socket() const { return socket_; }
  // SIGTERM; its exit status.
  int Terminate();
  // The next message for the service manager; empty where none comes.
  std::string NextNotification(absl::Duration timeout = kPatience);

 private:
  Process Start(const Home& home, const Options& options);

  const std::string socket_;
  ipc::UniqueFd notifications_;
  Process process_;
};

class BrokerTest : public ::testing::Test {
 protected:
  BrokerTest();
  ~BrokerTest() override;

  // Starts the broker, or another after the last was ended.
  void StartBroker(const Broker::Options& options = {});
  // SIGTERM, and it has to end in order.
  void StopBroker();
  // Waits until it ends by itself; its exit status.
  int AwaitBrokersEnd();
  Broker& broker() { return *broker_; }

  std::string socket() const { return home_.broker_socket(); }
  // A client of the running broker, with a connection of its own.
  GrpcClient Client() const { return GrpcClient(socket()); }
  uint64_t Counter(const std::string& name) const;
  // Is there an event that says that the limit with this counter was reached?
  bool TellsOfLimit(const std::string& counter) const;
  // Somebody else is served while a peer misbehaves.
  void ExpectServesOthers() const;

  Home home_;

 private:
  std::unique_ptr<Broker> broker_;
};

}  // namespace zcbroker::testing

#endif  // ZCBROKER_TESTS_E2E_BROKER_FIXTURE_H_
