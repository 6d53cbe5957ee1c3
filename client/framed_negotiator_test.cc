#include "client/framed_negotiator.h"

#include <sys/stat.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/fallback.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/framed_reply.h"
#include "ipc/runtime_dir.h"
#include "ipc/socket.h"
#include "ipc/testing/fake_server.h"
#include "ipc/testing/foreign_listener.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {
namespace {

namespace rpb = running_process::broker::v1;
using ipc::Deadline;
using ipc::FakeServer;
using ipc::UniqueFd;

constexpr absl::Duration kContact = absl::Milliseconds(60);
constexpr absl::Duration kNegotiation = absl::Milliseconds(400);
// How long a machine under load may take beyond a budget.
constexpr absl::Duration kSlack = absl::Seconds(5);

Deadline Plenty() { return Deadline::After(absl::Seconds(20)); }

// The next frame, or an empty one.
rpb::Frame ReadFrame(const UniqueFd& fd) {
  const auto head = ipc::ReadExactly(fd, ipc::kFrameHeaderBytes, Plenty());
  if (!head.ok()) return {};
  const auto body =
      ipc::ReadExactly(fd, ipc::ParseFrameHeader(*head).body_bytes, Plenty());
  return body.ok() ? ipc::DecodeFrame(*body).value_or(rpb::Frame())
                   : rpb::Frame();
}

void Write(const UniqueFd& fd, absl::string_view bytes) {
  (void)ipc::WriteAll(fd, bytes, Plenty());
}

rpb::Negotiated Route(const std::string& pipe,
                      const std::string& version = "1.11.22") {
  rpb::Negotiated negotiated;
  negotiated.set_negotiated_protocol(1);
  negotiated.set_daemon_version(version);
  negotiated.set_backend_pipe(pipe);
  return negotiated;
}

// Reads a frame and answers with the whole bytes `answer` makes of it.
FakeServer::Script Answering(
    const std::function<std::string(const rpb::Frame&)>& answer) {
  return [answer](UniqueFd& fd, int) {
    const rpb::Frame frame = ReadFrame(fd);
    Write(fd, answer(frame));
  };
}

FakeServer::Script Negotiating(const rpb::Negotiated& negotiated) {
  return Answering([negotiated](const rpb::Frame& frame) {
    return *ipc::EncodeHelloReply(frame, negotiated);
  });
}

class FramedNegotiatorTest : public testing::Test {
 protected:
  FramedNegotiatorTest() {
    request_.service = "zccache";
    request_.wanted_version = "1.11.22";
    request_.client_name = "test";
    request_.client_version = "9.8.7";
  }

  ipc::Endpoint Broker() { return *ipc::Endpoint::Parse(dir_.Entry("b")); }
  absl::StatusOr<BackendRoute> Negotiate() {
    return FramedNegotiator(Broker(), {kContact, kNegotiation})
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

TEST_F(FramedNegotiatorTest, BudgetsAreThoseOfTheDesign) {
  EXPECT_EQ(NegotiationBudgets().contact, absl::Milliseconds(500));
  EXPECT_EQ(NegotiationBudgets().negotiation, absl::Seconds(12));
}

TEST_F(FramedNegotiatorTest, GetsTheRouteOfAHello) {
  rpb::Hello hello;
  const FakeServer broker(dir_.Entry("b"), [&](UniqueFd& fd, int) {
    const rpb::Frame frame = ReadFrame(fd);
    EXPECT_EQ(ipc::CheckEnvelope(frame, rpb::FRAME_KIND_REQUEST,
                                 ipc::kControlProtocol),
              ipc::FrameFault::kNone);
    EXPECT_TRUE(hello.ParseFromString(frame.payload()));
    Write(fd, *ipc::EncodeHelloReply(frame, Route("/x/backend.sock")));
  });
  const auto route = Negotiate();
  ASSERT_TRUE(route.ok()) << route.status();
  EXPECT_EQ(route->endpoint.path(), "/x/backend.sock");
  EXPECT_EQ(route->version, "1.11.22");
  EXPECT_EQ(hello.client_min_protocol(), 1U);
  EXPECT_EQ(hello.client_max_protocol(), 1U);
  EXPECT_EQ(hello.service_name(), "zccache");
  EXPECT_EQ(hello.wanted_version(), "1.11.22");
  EXPECT_EQ(hello.client_version(), "9.8.7");
  EXPECT_EQ(hello.client_lib_name(), "test");
  EXPECT_EQ(hello.client_capabilities(), 0U);
  EXPECT_EQ(hello.peer_pid(), 0U);
}

TEST_F(FramedNegotiatorTest, RefusalsKeepTheirCodeAndName) {
  const struct {
    rpb::ErrorCode code;
    absl::StatusCode status;
  } kRows[] = {
      {rpb::ERROR_VERSION_UNSUPPORTED, absl::StatusCode::kNotFound},
      {rpb::ERROR_SERVICE_UNKNOWN, absl::StatusCode::kNotFound},
      {rpb::ERROR_BACKEND_SPAWN_FAILED, absl::StatusCode::kUnavailable},
      {rpb::ERROR_RATE_LIMITED, absl::StatusCode::kResourceExhausted},
      {rpb::ERROR_SHUTTING_DOWN, absl::StatusCode::kUnavailable},
      {rpb::ERROR_PEER_REJECTED, absl::StatusCode::kInvalidArgument},
      {rpb::ERROR_INTERNAL, absl::StatusCode::kFailedPrecondition},
      {rpb::ERROR_VERSION_BLOCKED, absl::StatusCode::kFailedPrecondition},
      {rpb::ERROR_FD_PRESSURE, absl::StatusCode::kResourceExhausted},
      {static_cast<rpb::ErrorCode>(77), absl::StatusCode::kFailedPrecondition},
  };
  for (const auto& row : kRows) {
    rpb::Refused refused = ipc::MakeRefused("because", row.code);
    (*refused.mutable_details())["refusal"] = "NAME";
    const FakeServer broker(dir_.Entry("b"),
                            Answering([&](const rpb::Frame& frame) {
                              return *ipc::EncodeHelloReply(frame, refused);
                            }));
    ExpectFallback(FallbackReason::kBrokerRefusal, row.status);
    EXPECT_EQ(RefusalNameOf(Negotiate().status()).value_or(""), "NAME");
  }
}

TEST_F(FramedNegotiatorTest, AMissingOrDeadSocketCostsNothing) {
  ExpectFallback(FallbackReason::kBrokerMissing, absl::StatusCode::kNotFound,
                 absl::ZeroDuration());
  {
    const FakeServer gone(dir_.Entry("b"), [](UniqueFd&, int) {});
  }
  ExpectFallback(FallbackReason::kBrokerRefused, absl::StatusCode::kUnavailable,
                 absl::ZeroDuration());
}

TEST_F(FramedNegotiatorTest, ABrokerThatNeverAnswersIsMute) {
  const FakeServer broker(dir_.Entry("b"),
                          [](UniqueFd& fd, int) { ipc::StayMute(fd); });
  ExpectFallback(FallbackReason::kBrokerMute,
                 absl::StatusCode::kDeadlineExceeded, 2 * kContact);
  EXPECT_EQ(broker.connections(), 2);
}

// Answers HEALTHZ; Hello as `hello` says.
FakeServer::Script Healthy(
    const std::function<void(UniqueFd&, const rpb::Frame&)>& hello) {
  return [hello](UniqueFd& fd, int) {
    const rpb::Frame frame = ReadFrame(fd);
    if (frame.payload_protocol() != ipc::kAdminProtocol) {
      hello(fd, frame);
      return;
    }
    rpb::AdminRequest request;
    EXPECT_TRUE(request.ParseFromString(frame.payload()));
    EXPECT_EQ(request.verb(), rpb::ADMIN_VERB_HEALTHZ);
    Write(fd, *ipc::EncodeAdminReply(frame, rpb::AdminReply()));
  };
}

TEST_F(FramedNegotiatorTest, ABusyBrokerIsWaitedFor) {
  FakeServer broker(
      dir_.Entry("b"), Healthy([&](UniqueFd& fd, const rpb::Frame& frame) {
        // Longer than the contact budget: the pace is a read of nothing.
        char byte;
        (void)ipc::ReadSome(fd, &byte, 1, Deadline::After(3 * kContact));
        Write(fd, *ipc::EncodeHelloReply(frame, Route("/x/backend.sock")));
      }));
  const auto route = FramedNegotiator(Broker(), {kContact, absl::Seconds(20)})
                         .Negotiate(request_);
  ASSERT_TRUE(route.ok()) << route.status();
  EXPECT_EQ(broker.connections(), 2);
}

TEST_F(FramedNegotiatorTest, AHealthyBrokerThatNeverAnswersIsSlow) {
  const FakeServer broker(
      dir_.Entry("b"),
      Healthy([](UniqueFd& fd, const rpb::Frame&) { ipc::StayMute(fd); }));
  ExpectFallback(FallbackReason::kBrokerSlow,
                 absl::StatusCode::kDeadlineExceeded);
}

TEST_F(FramedNegotiatorTest, ATrickleDoesNotExtendTheBudget) {
  const FakeServer broker(dir_.Entry("b"), [](UniqueFd& fd, int) {
    const rpb::Frame frame = ReadFrame(fd);
    const std::string reply =
        *ipc::EncodeHelloReply(frame, Route("/x/" + std::string(60000, 'x')));
    char byte;
    for (const char c : reply) {
      if (!ipc::WriteAll(fd, {&c, 1}, Plenty()).ok()) return;
      const auto n =
          ipc::ReadSome(fd, &byte, 1, Deadline::After(absl::Milliseconds(2)));
      if (n.ok()) return;
    }
  });
  ExpectFallback(FallbackReason::kBrokerSlow,
                 absl::StatusCode::kDeadlineExceeded);
}

TEST_F(FramedNegotiatorTest, AnswersThatAreNotOfTheProtocolAreGarbage) {
  const auto with = [](const std::function<void(rpb::Frame&)>& change) {
    return [change](const rpb::Frame& request) {
      rpb::HelloReply reply;
      *reply.mutable_negotiated() = Route("/x/backend.sock");
      rpb::Frame frame =
          ipc::MakeFrame(rpb::FRAME_KIND_RESPONSE, ipc::kControlProtocol,
                         request.request_id(), reply.SerializeAsString());
      change(frame);
      return *ipc::EncodeFrame(frame);
    };
  };
  const struct {
    const char* what;
    std::function<std::string(const rpb::Frame&)> answer;
  } kRows[] = {
      {"text", [](const auto&) { return std::string("HTTP/1.1 400 Bad\r\n"); }},
      {"zeros", [](const auto&) { return std::string(64, '\0'); }},
      {"an oversize frame",
       [](const auto&) { return std::string("\x01\xff\xff\xff\x7f", 5); }},
      {"a body that is no Frame",
       [](const auto&) {
         return std::string("\x01\x03\0\0\0\xff\xff\xff", 8);
       }},
      {"another version",
       with([](rpb::Frame& f) { f.set_envelope_version(2); })},
      {"a request",
       with([](rpb::Frame& f) { f.set_kind(rpb::FRAME_KIND_REQUEST); })},
      {"another lane",
       with([](rpb::Frame& f) { f.set_payload_protocol(0xAD01); })},
      {"a payload that is no reply",
       with([](rpb::Frame& f) { f.set_payload("\xff\xff\xff"); })},
  };
  for (const auto& row : kRows) {
    SCOPED_TRACE(row.what);
    const FakeServer broker(dir_.Entry("b"), Answering(row.answer));
    ExpectFallback(FallbackReason::kBrokerGarbage, absl::StatusCode::kDataLoss);
  }
}

TEST_F(FramedNegotiatorTest, RepliesThatMakeNoSenseAreWrong) {
  const rpb::Negotiated kRows[] = {
      Route(""),
      Route("relative"),
      Route("/" + std::string(107, 'x')),
      Route("/x/backend.sock", "1.11.23"),
      Route("/x/backend.sock", ""),
  };
  for (const rpb::Negotiated& row : kRows) {
    SCOPED_TRACE(row.ShortDebugString());
    const FakeServer broker(dir_.Entry("b"), Negotiating(row));
    ExpectFallback(FallbackReason::kBrokerWrongReply,
                   absl::StatusCode::kDataLoss);
  }
  const FakeServer other_id(dir_.Entry("b"), Answering([](rpb::Frame frame) {
                              frame.set_request_id(frame.request_id() + 1);
                              return *ipc::EncodeHelloReply(
                                  frame, Route("/x/backend.sock"));
                            }));
  ExpectFallback(FallbackReason::kBrokerWrongReply,
                 absl::StatusCode::kDataLoss);
}

TEST_F(FramedNegotiatorTest, AnEndBeforeOrWithinTheReplyIsAClose) {
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{3}, std::size_t{20}}) {
    const FakeServer broker(
        dir_.Entry("b"), Answering([bytes](const rpb::Frame& frame) {
          return ipc::EncodeHelloReply(frame, Route("/x/backend.sock"))
              ->substr(0, bytes);
        }));
    ExpectFallback(FallbackReason::kBrokerClosed, absl::StatusCode::kAborted);
  }
}

TEST_F(FramedNegotiatorTest, ABrokerOfAnotherUserIsSentNothing) {
  if (!ipc::ForeignListener::IsPossible()) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chmod(dir_.path().c_str(), 0777), 0);
  const ipc::ForeignListener foreign(dir_.Entry("b"));
  ExpectFallback(FallbackReason::kBrokerForeign,
                 absl::StatusCode::kPermissionDenied, absl::ZeroDuration());
}

TEST_F(FramedNegotiatorTest, TheFactoriesLookWhereTheRulesSay) {
  const std::string xdg = dir_.path();
  const ipc::EnvironmentLookup environment =
      [&](absl::string_view name) -> absl::optional<std::string> {
    if (name == "XDG_RUNTIME_DIR") return xdg;
    return absl::nullopt;
  };
  EXPECT_EQ(FallbackReasonOf(FramedBroker()(environment).status()),
            FallbackReason::kBrokerMissing);
  ASSERT_TRUE(ipc::RuntimeDir::OpenOrCreate(dir_.inputs()).ok());
  const FakeServer ours(dir_.Entry("zcbroker/broker.sock"),
                        Negotiating(Route("/x/backend.sock")));
  auto negotiator = FramedBroker()(environment);
  ASSERT_TRUE(negotiator.ok()) << negotiator.status();
  EXPECT_TRUE((*negotiator)->Negotiate(request_).ok());
  auto shared = SharedFramedBroker()(environment);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ(FallbackReasonOf((*shared)->Negotiate(request_).status()),
            FallbackReason::kBrokerMissing);
}

}  // namespace
}  // namespace zcbroker::client
