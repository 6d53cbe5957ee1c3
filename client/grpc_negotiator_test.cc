#include "client/grpc_negotiator.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/fallback.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket.h"
#include "ipc/testing/fake_server.h"
#include "ipc/testing/foreign_listener.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "proto/zcbroker/v1/errors.pb.h"

namespace zcbroker::client {
namespace {

using ipc::Deadline;
using ipc::FakeServer;
using ipc::UniqueFd;

constexpr absl::Duration kContact = absl::Milliseconds(200);
constexpr absl::Duration kNegotiation = absl::Milliseconds(600);
constexpr absl::Duration kSlack = absl::Seconds(5);

// A call that ends when the client gives up, or when it is told to.
class Call : public grpc::ServerUnaryReactor {
 public:
  void End(const grpc::Status& status) {
    if (ended_.exchange(true)) return;
    Finish(status);
  }
  void OnCancel() override { End(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  std::atomic<bool> ended_{false};
};

// A real gRPC server that does as a test says.
class FakeBroker : public v1::Broker::CallbackService {
 public:
  using Handler = std::function<void(Call&, const v1::NegotiateRequest&,
                                     v1::NegotiateResponse&)>;

  FakeBroker(const std::string& path, Handler handler)
      : handler_(std::move(handler)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("unix:", path),
                             grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeBroker() override {
    server_->Shutdown(std::chrono::system_clock::now());
  }

  grpc::ServerUnaryReactor* Negotiate(
      grpc::CallbackServerContext* /*context*/,
      const v1::NegotiateRequest* request,
      v1::NegotiateResponse* response) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      request_ = *request;
    }
    Call* call = new Call;
    handler_(*call, *request, *response);
    return call;
  }

  v1::NegotiateRequest request() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return request_;
  }

 private:
  const Handler handler_;
  mutable std::mutex mutex_;
  v1::NegotiateRequest request_;
  std::unique_ptr<grpc::Server> server_;
};

void FillRoute(v1::NegotiateResponse& response) {
  v1::BackendRoute& route = *response.mutable_route();
  route.set_endpoint("/x/backend.sock");
  route.set_version("1.11.22");
  route.add_lanes(v1::WIRE_LANE_FRAME_V1);
  route.add_lanes(static_cast<v1::WireLane>(99));
  route.add_lanes(v1::WIRE_LANE_BINCODE_V15);
  route.set_pid(4711);
  route.set_start_time(123456);
  route.set_boot_id("boot");
  route.set_generation(3);
  response.set_origin(v1::ROUTE_ORIGIN_STARTED);
  v1::NegotiationStep& step = *response.add_steps();
  step.set_name("spawn");
  step.mutable_duration()->set_nanos(2000000);
}

class GrpcNegotiatorTest : public testing::Test {
 protected:
  GrpcNegotiatorTest() {
    request_.service = "zccache";
    request_.wanted_version = "1.11.22";
    request_.accepted_lanes = {ipc::WireLane::kFrameV1};
    request_.client_name = "test";
    request_.client_version = "9.8.7";
    request_.start_policy = StartPolicy::kOnlyIfRunning;
    request_.world = {"/cache", "dev", "mnt:[1]"};
  }

  absl::StatusOr<BackendRoute> Negotiate(NegotiationBudgets budgets = {
                                             kContact, kNegotiation}) {
    return GrpcNegotiator(*ipc::Endpoint::Parse(dir_.Entry("b")), budgets)
        .Negotiate(request_);
  }
  // The reason of a failure, and that it came within `budget`.
  void ExpectFallback(FallbackReason reason, absl::StatusCode code,
                      absl::Duration budget = kNegotiation) {
    const absl::Time start = absl::Now();
    const absl::Status status = Negotiate().status();
    EXPECT_LT(absl::Now() - start, budget + kSlack);
    EXPECT_EQ(FallbackReasonName(FallbackReasonOf(status)),
              FallbackReasonName(reason))
        << status;
    EXPECT_EQ(status.code(), code) << status;
  }

  ipc::ScopedRuntimeDir dir_;
  NegotiationRequest request_;
};

TEST_F(GrpcNegotiatorTest, AsksEverythingAndGetsTheRoute) {
  const FakeBroker broker(dir_.Entry("b"),
                          [](Call& call, const auto&, auto& response) {
                            FillRoute(response);
                            call.StartSendInitialMetadata();
                            call.End(grpc::Status::OK);
                          });
  const auto route = Negotiate({absl::Seconds(10), absl::Seconds(20)});
  ASSERT_TRUE(route.ok()) << route.status();
  EXPECT_EQ(route->endpoint.path(), "/x/backend.sock");
  EXPECT_EQ(route->version, "1.11.22");
  EXPECT_EQ(route->lanes,
            (std::vector<ipc::WireLane>{ipc::WireLane::kFrameV1,
                                        ipc::WireLane::kBincodeV15}));
  EXPECT_EQ(route->pid, 4711);
  EXPECT_EQ(route->start_time, 123456U);
  EXPECT_EQ(route->boot_id, "boot");
  EXPECT_EQ(route->generation, 3U);
  EXPECT_EQ(route->origin, RouteOrigin::kStarted);
  ASSERT_EQ(route->steps.size(), 1U);
  EXPECT_EQ(route->steps[0].name, "spawn");
  EXPECT_EQ(route->steps[0].duration, absl::Milliseconds(2));

  const v1::NegotiateRequest asked = broker.request();
  EXPECT_EQ(asked.service(), "zccache");
  EXPECT_EQ(asked.wanted_version(), "1.11.22");
  ASSERT_EQ(asked.accepted_lanes_size(), 1);
  EXPECT_EQ(asked.accepted_lanes(0), v1::WIRE_LANE_FRAME_V1);
  EXPECT_EQ(asked.client_name(), "test");
  EXPECT_EQ(asked.client_version(), "9.8.7");
  EXPECT_EQ(asked.start_policy(), v1::START_POLICY_ONLY_IF_RUNNING);
  EXPECT_EQ(asked.world().cache_root(), "/cache");
  EXPECT_EQ(asked.world().daemon_namespace(), "dev");
  EXPECT_EQ(asked.world().mount_namespace(), "mnt:[1]");
}

grpc::Status RichError(bool ours) {
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(grpc::StatusCode::NOT_FOUND));
  google::rpc::ErrorInfo info;
  info.set_domain(ours ? "zcbroker" : "example.org");
  info.set_reason("VERSION_NOT_INSTALLED");
  rich.add_details()->PackFrom(info);
  v1::RefusalDetail detail;
  detail.set_refusal(v1::REFUSAL_VERSION_NOT_INSTALLED);
  detail.add_installed_versions("1.15.8");
  rich.add_details()->PackFrom(detail);
  return grpc::Status(grpc::StatusCode::NOT_FOUND, "not installed",
                      rich.SerializeAsString());
}

TEST_F(GrpcNegotiatorTest, ARefusalKeepsItsDetails) {
  const FakeBroker broker(dir_.Entry("b"), [](Call& call, const auto&, auto&) {
    call.StartSendInitialMetadata();
    call.End(RichError(true));
  });
  const absl::Status status = Negotiate().status();
  EXPECT_EQ(FallbackReasonOf(status), FallbackReason::kBrokerRefusal);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RefusalNameOf(status).value_or(""), "VERSION_NOT_INSTALLED");
  const auto detail = RefusalDetailOf(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->installed_versions(0), "1.15.8");
  EXPECT_TRUE(absl::StrContains(status.message(), "not installed"));
}

TEST_F(GrpcNegotiatorTest, ARefusalWithoutMetadataIsOneToo) {
  const FakeBroker broker(dir_.Entry("b"), [](Call& call, const auto&, auto&) {
    call.End(RichError(true));
  });
  ExpectFallback(FallbackReason::kBrokerRefusal, absl::StatusCode::kNotFound);
}

TEST_F(GrpcNegotiatorTest, ErrorsOfSomebodyElseAreNoRefusal) {
  const FakeBroker broker(dir_.Entry("b"), [](Call& call, const auto&, auto&) {
    call.End(RichError(false));
  });
  const absl::Status status = Negotiate().status();
  EXPECT_EQ(FallbackReasonOf(status), FallbackReason::kBrokerGarbage);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(RefusalNameOf(status).has_value());
  EXPECT_FALSE(RefusalDetailOf(status).has_value());
}

TEST_F(GrpcNegotiatorTest, AServerWithoutTheServiceIsWrong) {
  v1::Broker::Service unimplemented;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("unix:", dir_.Entry("b")),
                           grpc::InsecureServerCredentials());
  builder.RegisterService(&unimplemented);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ExpectFallback(FallbackReason::kBrokerWrongReply,
                 absl::StatusCode::kDataLoss);
}

TEST_F(GrpcNegotiatorTest, RoutesThatMakeNoSenseAreWrong) {
  const std::function<void(v1::BackendRoute&)> kRows[] = {
      [](v1::BackendRoute& r) { r.set_endpoint(""); },
      [](v1::BackendRoute& r) { r.set_endpoint("relative"); },
      [](v1::BackendRoute& r) { r.set_version("1.15.8"); },
      [](v1::BackendRoute& r) { r.set_version(""); },
  };
  for (const auto& change : kRows) {
    const FakeBroker broker(dir_.Entry("b"),
                            [&](Call& call, const auto&, auto& response) {
                              FillRoute(response);
                              change(*response.mutable_route());
                              call.End(grpc::Status::OK);
                            });
    ExpectFallback(FallbackReason::kBrokerWrongReply,
                   absl::StatusCode::kDataLoss);
  }
}

TEST_F(GrpcNegotiatorTest, ContactWithoutAnAnswerIsSlow) {
  const FakeBroker broker(dir_.Entry("b"), [](Call& call, const auto&, auto&) {
    call.StartSendInitialMetadata();
  });
  ExpectFallback(FallbackReason::kBrokerSlow,
                 absl::StatusCode::kDeadlineExceeded);
}

TEST_F(GrpcNegotiatorTest, NoContactIsMute) {
  const FakeBroker broker(dir_.Entry("b"), [](Call&, const auto&, auto&) {});
  ExpectFallback(FallbackReason::kBrokerMute,
                 absl::StatusCode::kDeadlineExceeded, kContact);
}

TEST_F(GrpcNegotiatorTest, ASocketThatSaysNothingIsMute) {
  const FakeServer broker(dir_.Entry("b"),
                          [](UniqueFd& fd, int) { ipc::StayMute(fd); });
  ExpectFallback(FallbackReason::kBrokerMute,
                 absl::StatusCode::kDeadlineExceeded, kContact);
}

TEST_F(GrpcNegotiatorTest, HttpThatTricklesIsMute) {
  const FakeServer broker(dir_.Entry("b"), [](UniqueFd& fd, int) {
    // SETTINGS, then for ever the first bytes of a frame that does not end.
    std::string bytes("\0\0\0\x04\0\0\0\0\0\0\x40\0\0\0\0\0\0\0", 18);
    char byte;
    for (;;) {
      if (!ipc::WriteAll(fd, bytes, Deadline::After(absl::Seconds(20))).ok()) {
        return;
      }
      bytes = std::string(1, '\0');
      const auto n =
          ipc::ReadSome(fd, &byte, 1, Deadline::After(absl::Milliseconds(2)));
      if (n.ok() && *n == 0) return;
    }
  });
  ExpectFallback(FallbackReason::kBrokerMute,
                 absl::StatusCode::kDeadlineExceeded, kContact);
}

TEST_F(GrpcNegotiatorTest, AMissingOrDeadSocketCostsNothing) {
  ExpectFallback(FallbackReason::kBrokerMissing, absl::StatusCode::kNotFound,
                 absl::ZeroDuration());
  {
    const FakeServer gone(dir_.Entry("b"), [](UniqueFd&, int) {});
  }
  ExpectFallback(FallbackReason::kBrokerRefused, absl::StatusCode::kUnavailable,
                 absl::ZeroDuration());
}

TEST_F(GrpcNegotiatorTest, AHangUpIsAClose) {
  const FakeServer broker(dir_.Entry("b"), [](UniqueFd&, int) {});
  ExpectFallback(FallbackReason::kBrokerClosed, absl::StatusCode::kAborted);
}

TEST_F(GrpcNegotiatorTest, BytesThatAreNotHttp2AreGarbage) {
  for (const std::string& bytes :
       {std::string("HTTP/1.1 400 Bad Request\r\n\r\n"),
        std::string(64, '\xff')}) {
    const FakeServer broker(dir_.Entry("b"), [&](UniqueFd& fd, int) {
      (void)ipc::WriteAll(fd, bytes, Deadline::After(absl::Seconds(20)));
      ipc::StayMute(fd);
    });
    ExpectFallback(FallbackReason::kBrokerGarbage, absl::StatusCode::kDataLoss);
  }
}

TEST_F(GrpcNegotiatorTest, ABrokerOfAnotherUserIsSentNothing) {
  if (!ipc::ForeignListener::IsPossible()) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chmod(dir_.path().c_str(), 0777), 0);
  const ipc::ForeignListener foreign(dir_.Entry("b"));
  ExpectFallback(FallbackReason::kBrokerForeign,
                 absl::StatusCode::kPermissionDenied, absl::ZeroDuration());
}

TEST_F(GrpcNegotiatorTest, TheFactoryLooksInTheRuntimeDirectory) {
  const std::string xdg = dir_.path();
  const ipc::EnvironmentLookup environment =
      [&](absl::string_view name) -> absl::optional<std::string> {
    if (name == "XDG_RUNTIME_DIR") return xdg;
    return absl::nullopt;
  };
  EXPECT_EQ(FallbackReasonOf(GrpcBroker()(environment).status()),
            FallbackReason::kBrokerMissing);
  const auto runtime = ipc::RuntimeDir::OpenOrCreate(dir_.inputs());
  ASSERT_TRUE(runtime.ok());
  const FakeBroker broker(runtime->broker_socket(),
                          [](Call& call, const auto&, auto& response) {
                            FillRoute(response);
                            call.End(grpc::Status::OK);
                          });
  auto negotiator =
      GrpcBroker({absl::Seconds(10), absl::Seconds(20)})(environment);
  ASSERT_TRUE(negotiator.ok()) << negotiator.status();
  EXPECT_TRUE((*negotiator)->Negotiate(request_).ok());
}

}  // namespace
}  // namespace zcbroker::client
