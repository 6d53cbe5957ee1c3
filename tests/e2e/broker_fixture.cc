#include "tests/e2e/broker_fixture.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "ipc/deadline.h"
#include "ipc/frame/envelope.h"
#include "ipc/socket.h"

namespace zcbroker::testing {
namespace {

namespace upstream = running_process::broker::v1;

std::string Program(const char* variable) {
  const char* path = getenv(variable);
  char absolute[PATH_MAX];
  if (path == nullptr || realpath(path, absolute) == nullptr) {
    fprintf(stderr, "$%s names no program\n", variable);
    abort();
  }
  return absolute;
}

std::chrono::system_clock::time_point GrpcDeadline(absl::Duration timeout) {
  return std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout);
}

ipc::UniqueFd BoundSocket(const std::string& path, int type) {
  ipc::UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  unlink(path.c_str());
  if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                  sizeof(address)) != 0) {
    ADD_FAILURE() << "bind " << path << ": " << strerror(errno);
  }
  return fd;
}

// What a service manager makes.
ipc::UniqueFd ListeningSocket(const std::string& path) {
  ipc::UniqueFd fd = BoundSocket(path, SOCK_STREAM);
  if (listen(fd.get(), SOMAXCONN) != 0) {
    ADD_FAILURE() << "listen: " << strerror(errno);
  }
  return fd;
}

}  // namespace

std::string BrokerProgram() { return Program("ZCBROKERD"); }
std::string CommandLineProgram() { return Program("ZCBROKER"); }
std::string BackendProgram() { return Program("REFERENCE_BACKEND"); }

// --- Home

Home::Home() {
  char path[] = "/tmp/zcbe.XXXXXX";
  if (mkdtemp(path) == nullptr) abort();
  path_ = path;
  for (const char* leaf :
       {"run", "run/zcbroker", "config", "config/zcbroker",
        "config/zcbroker/services", "config/running-process",
        "config/running-process/services", "state", "bin", "work", "policy"}) {
    if (mkdir(Entry(leaf).c_str(), 0700) != 0) abort();
  }
}

Home::~Home() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Home::Entry(absl::string_view leaf) const {
  return absl::StrCat(path_, "/", leaf);
}

std::string Home::LogFile(absl::string_view service,
                          absl::string_view version) const {
  return Entry(
      absl::StrCat("state/zcbroker/log/", service, "-", version, ".log"));
}

Environment Home::environment() const {
  return {{"HOME", path_},
          {"PATH", Entry("bin") + ":/usr/bin:/bin"},
          {"XDG_RUNTIME_DIR", runtime_dir()},
          {"XDG_CONFIG_HOME", Entry("config")},
          {"XDG_STATE_HOME", Entry("state")},
          // Sanitizers read these of whatever was built with them.
          {"ASAN_OPTIONS", "detect_leaks=1"},
          {"TSAN_OPTIONS",
           getenv("TSAN_OPTIONS") != nullptr ? getenv("TSAN_OPTIONS") : ""}};
}

void Home::Define(const std::string& name, const std::string& text) const {
  WriteFile(absl::StrCat(services_dir(), "/", name, ".textproto"), text);
}

void Home::SetPolicy(const std::string& text) const {
  const std::string beside = policy_file() + ".new";
  WriteFile(beside, text);
  std::filesystem::rename(beside, policy_file());
}

void Home::DefineUpstream(const std::string& name, const std::string& binary,
                          const std::string& version) const {
  upstream::ServiceDefinition definition;
  definition.set_service_name(name);
  definition.set_binary_path(binary);
  definition.add_version_allow_list(version);
  WriteFile(absl::StrCat(Entry("config/running-process/services/"), name,
                         ".servicedef"),
            definition.SerializeAsString());
}

std::string Home::Script(const std::string& name,
                         const std::string& body) const {
  std::string path = Entry("work/" + name);
  WriteFile(path, absl::StrCat("#!/bin/sh\n", body, "\n"), true);
  return path;
}

std::string ReferenceDefinition(const std::string& name,
                                const std::vector<std::string>& versions,
                                const std::vector<std::string>& arguments,
                                const std::string& more) {
  std::string text = absl::StrCat("name: \"", name, "\"\n");
  for (const std::string& version : versions) {
    absl::StrAppend(&text, "binaries { path: \"", BackendProgram(),
                    "\" version: \"", version, "\" }\n");
  }
  for (const char* argument :
       {"--endpoint", "{endpoint}", "--report-version", "{version}"}) {
    absl::StrAppend(&text, "args: \"", argument, "\"\n");
  }
  for (const std::string& argument : arguments) {
    absl::StrAppend(&text, "args: \"", argument, "\"\n");
  }
  return absl::StrCat(text,
                      "probe: PROBE_ZCCACHE_PING\n"
                      "lanes: WIRE_LANE_FRAME_V1\n"
                      "lanes: WIRE_LANE_PROST_V16\n"
                      "lanes: WIRE_LANE_BINCODE_V15\n",
                      more);
}

std::string PlainDefinition(const std::string& name, const std::string& binary,
                            const std::string& more) {
  return absl::StrCat("name: \"", name, "\"\nbinaries { path: \"", binary,
                      "\" version: \"1.0.0\" }\n", more);
}

// --- gRPC

GrpcAnswer ReadAnswer(grpc::Status status, v1::NegotiateResponse response) {
  GrpcAnswer answer;
  answer.status = std::move(status);
  answer.response = std::move(response);
  google::rpc::Status rich;
  if (!rich.ParseFromString(answer.status.error_details())) return answer;
  answer.details = rich.details_size();
  for (const auto& detail : rich.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::RetryInfo retry;
    v1::RefusalDetail refusal;
    if (detail.UnpackTo(&info)) {
      answer.reason = info.reason();
      answer.domain = info.domain();
    } else if (detail.UnpackTo(&retry)) {
      answer.retry = absl::Seconds(retry.retry_delay().seconds()) +
                     absl::Nanoseconds(retry.retry_delay().nanos());
    } else if (detail.UnpackTo(&refusal)) {
      answer.refusal = refusal;
    }
  }
  return answer;
}

v1::NegotiateRequest RequestFor(const std::string& service,
                                const std::string& version) {
  v1::NegotiateRequest request;
  request.set_service(service);
  request.set_wanted_version(version);
  request.set_client_name("e2e");
  return request;
}

GrpcClient::GrpcClient(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  ipc::UniqueFd fd = ConnectTo(socket);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomInsecureChannelFromFd("zcbroker", fd.release(),
                                              arguments);
  broker_ = v1::Broker::NewStub(channel);
  admin_ = v1::Admin::NewStub(channel);
}

GrpcAnswer GrpcClient::Negotiate(const v1::NegotiateRequest& request,
                                 absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(timeout));
  v1::NegotiateResponse response;
  grpc::Status status = broker_->Negotiate(&context, request, &response);
  return ReadAnswer(std::move(status), std::move(response));
}

GrpcAnswer GrpcClient::Negotiate(const std::string& service,
                                 const std::string& version,
                                 absl::Duration timeout) {
  return Negotiate(RequestFor(service, version), timeout);
}

v1::GetStatusResponse GrpcClient::Status() {
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(kPatience));
  v1::GetStatusResponse response;
  const grpc::Status status =
      admin_->GetStatus(&context, v1::GetStatusRequest(), &response);
  EXPECT_TRUE(status.ok()) << "GetStatus: " << status.error_message();
  return response;
}

std::vector<v1::Backend> GrpcClient::Backends() {
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(kPatience));
  v1::ListBackendsResponse response;
  const grpc::Status status =
      admin_->ListBackends(&context, v1::ListBackendsRequest(), &response);
  EXPECT_TRUE(status.ok()) << "ListBackends: " << status.error_message();
  return {response.backends().begin(), response.backends().end()};
}

v1::ReloadDefinitionsResponse GrpcClient::Reload() {
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(kPatience));
  v1::ReloadDefinitionsResponse response;
  const grpc::Status status = admin_->ReloadDefinitions(
      &context, v1::ReloadDefinitionsRequest(), &response);
  EXPECT_TRUE(status.ok()) << "Reload: " << status.error_message();
  return response;
}

std::vector<v1::Event> GrpcClient::Events(uint64_t after) {
  grpc::ClientContext context;
  v1::StreamEventsRequest request;
  request.set_after(after);
  const auto reader = admin_->StreamEvents(&context, request);
  std::vector<v1::Event> events;
  v1::StreamEventsResponse response;
  while (reader->Read(&response)) {
    events.insert(events.end(), response.events().begin(),
                  response.events().end());
  }
  EXPECT_TRUE(reader->Finish().ok());
  return events;
}

// --- Framed

ipc::UniqueFd ConnectTo(const std::string& socket) {
  auto fd = ipc::Connect(ipc::Endpoint::Parse(socket).value(),
                         ipc::Deadline::After(kPatience));
  EXPECT_TRUE(fd.ok()) << fd.status();
  return fd.ok() ? *std::move(fd) : ipc::UniqueFd();
}

std::string ReadToEnd(const ipc::UniqueFd& fd, bool* closed) {
  const ipc::Deadline deadline = ipc::Deadline::After(kPatience);
  std::string bytes;
  char buffer[4096];
  *closed = false;
  while (!deadline.Expired()) {
    const auto n = ipc::ReadSome(fd, buffer, sizeof(buffer), deadline);
    // Closed with bytes of ours unread, it is a reset.
    if (absl::IsAborted(n.status()) || (n.ok() && *n == 0)) {
      *closed = true;
      return bytes;
    }
    if (!n.ok()) break;
    bytes.append(buffer, *n);
  }
  ADD_FAILURE() << "the broker neither answered nor closed";
  return bytes;
}

FramedAnswer ReadFramedAnswer(const ipc::UniqueFd& fd) {
  FramedAnswer answer;
  const std::string bytes = ReadToEnd(fd, &answer.closed);
  const ipc::FrameHeader header = ipc::ParseFrameHeader(bytes);
  if (!header.complete || header.fault != ipc::FrameFault::kNone) {
    EXPECT_TRUE(bytes.empty()) << "no frame";
    return answer;
  }
  EXPECT_EQ(bytes.size(), ipc::kFrameHeaderBytes + header.body_bytes);
  const auto frame =
      ipc::DecodeFrame(absl::string_view(bytes).substr(ipc::kFrameHeaderBytes));
  upstream::HelloReply reply;
  if (!frame.ok() || !reply.ParseFromString(frame->payload())) {
    ADD_FAILURE() << "no HelloReply";
    return answer;
  }
  if (reply.has_negotiated()) answer.negotiated = reply.negotiated();
  if (reply.has_refused()) answer.refused = reply.refused();
  return answer;
}

upstream::Hello HelloFor(const std::string& service,
                         const std::string& version) {
  upstream::Hello hello;
  hello.set_client_min_protocol(1);
  hello.set_client_max_protocol(1);
  hello.set_service_name(service);
  hello.set_wanted_version(version);
  hello.set_client_version("1.0.0");
  hello.set_client_lib_name("e2e");
  hello.set_peer_pid(static_cast<uint32_t>(getpid()));
  return hello;
}

std::string HelloFrame(const upstream::Hello& hello) {
  return ipc::EncodeFrame(ipc::MakeFrame(upstream::FRAME_KIND_REQUEST,
                                         ipc::kControlProtocol, 7,
                                         hello.SerializeAsString()))
      .value();
}

FramedAnswer NegotiateFramed(const std::string& socket,
                             const std::string& service,
                             const std::string& version) {
  const ipc::UniqueFd fd = ConnectTo(socket);
  EXPECT_TRUE(ipc::WriteAll(fd, HelloFrame(HelloFor(service, version)),
                            ipc::Deadline::After(kPatience))
                  .ok());
  return ReadFramedAnswer(fd);
}

// --- Broker

Broker::Broker(const Home& home, const Options& options)
    : socket_(home.broker_socket()),
      notifications_(BoundSocket(home.Entry("notify"), SOCK_DGRAM)),
      process_(Start(home, options)) {
  EXPECT_EQ(NextNotification(), "READY=1");
}

Process Broker::Start(const Home& home, const Options& options) {
  Environment environment = home.environment();
  environment["NOTIFY_SOCKET"] = home.Entry("notify");
  for (const auto& [name, value] : options.environment) {
    environment[name] = value;
  }
  std::vector<std::string> argv{BrokerProgram()};
  ProcessOptions process;
  process.stderr_fd = options.log_fd;
  if (options.log_fd >= 0) {
    // A log is looked at for what the broker says, not for what a sanitizer
    // does, such as that a symbol is too long for it.
    for (const char* sanitizer : {"ASAN_OPTIONS", "TSAN_OPTIONS"}) {
      absl::StrAppend(&environment[sanitizer], ":log_path=stdout");
    }
  }
  ipc::UniqueFd listener;
  if (options.inherit_socket) {
    listener = ListeningSocket(socket_);
    process.third_fd = listener.get();
    environment["LISTEN_FDS"] = "1";
    // The variable names the process that is meant: itself, after exec.
    argv = {"/bin/sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"",
            BrokerProgram()};
    environment["LISTEN_PID"] = "";
  }
  if (options.descriptor_limit > 0) {
    argv = {"/bin/sh", "-c",
            absl::StrCat("ulimit -n ", options.descriptor_limit,
                         "; exec \"$0\" \"$@\""),
            BrokerProgram()};
  }
  argv.insert(argv.end(), options.arguments.begin(), options.arguments.end());
  // Not this machine's.
  argv.insert(argv.end(), {"--policy-file", home.policy_file()});
  return Process(std::move(argv), environment, process);
}

int Broker::Terminate() {
  process_.Signal(SIGTERM);
  return process_.Wait();
}

std::string Broker::NextNotification(absl::Duration timeout) {
  pollfd waited{notifications_.get(), POLLIN, 0};
  const ipc::Deadline deadline = ipc::Deadline::After(timeout);
  while (poll(&waited, 1, deadline.PollTimeoutMillis()) <= 0) {
    if (deadline.Expired()) return "";
  }
  char message[256];
  const ssize_t n = recv(notifications_.get(), message, sizeof(message), 0);
  return n > 0 ? std::string(message, static_cast<size_t>(n)) : "";
}

// --- Fixture

BrokerTest::BrokerTest() {
  // What brokers leave behind falls to us, so that it can be ended.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

BrokerTest::~BrokerTest() {
  if (broker_ != nullptr) {
    EXPECT_EQ(broker_->Terminate(), 0) << "the broker did not end in order";
  }
  broker_.reset();
  EndAllChildren();
}

void BrokerTest::StartBroker(const Broker::Options& options) {
  broker_.reset();
  broker_ = std::make_unique<Broker>(home_, options);
}

void BrokerTest::StopBroker() {
  EXPECT_EQ(broker_->Terminate(), 0);
  broker_.reset();
}

int BrokerTest::AwaitBrokersEnd() {
  const int status = broker_->process().Wait();
  broker_.reset();
  return status;
}

uint64_t BrokerTest::Counter(const std::string& name) const {
  const v1::GetStatusResponse status = Client().Status();
  const auto found = status.counters().find(name);
  return found == status.counters().end() ? 0 : found->second;
}

bool BrokerTest::TellsOfLimit(const std::string& counter) const {
  const std::vector<v1::Event> events = Client().Events();
  return std::any_of(events.begin(), events.end(), [&](const v1::Event& event) {
    return event.kind() == v1::EVENT_KIND_LIMIT_REACHED &&
           absl::StrContains(event.text(), absl::StrCat("(", counter, ", "));
  });
}

void BrokerTest::ExpectServesOthers() const {
  const GrpcAnswer grpc = Client().Negotiate("demo", "1.0.0");
  EXPECT_TRUE(grpc.ok()) << grpc.status.error_message();
  const FramedAnswer framed = NegotiateFramed(socket(), "demo", "1.0.0");
  EXPECT_TRUE(framed.negotiated.has_value())
      << (framed.refused.has_value() ? framed.refused->reason() : "closed");
}

}  // namespace zcbroker::testing
