#include "service/framed/framed_adapter.h"

#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "ipc/peer_identity.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/refusals.h"
#include "service/core/broker_port.h"
#include "tests/testdata/vectors.h"

namespace zcbroker::service {
namespace {

namespace upstream = running_process::broker::v1;
using testing::Bytes;
using testing::Member;
using testing::ReadVectors;
using testing::Text;

constexpr int kPid = 4242;  // as in the vectors

// Answers by script and remembers what was asked.
class FakePort : public BrokerPort {
 public:
  absl::optional<v1::NegotiateResponse> TryRoute(
      const v1::NegotiateRequest& request) override {
    asked = request;
    return ready;
  }
  bool KnowsService(const std::string& name) override {
    return name == "zccache";
  }
  NegotiationId Negotiate(v1::NegotiateRequest request,
                          absl::optional<Time> deadline,
                          std::function<void(Outcome)> done) override {
    asked = std::move(request);
    EXPECT_FALSE(deadline.has_value());
    waiting.push_back(std::move(done));
    return waiting.size();
  }
  void Cancel(NegotiationId) override { FAIL() << "nobody cancels"; }
  void LookUp(v1::NegotiateRequest request,
              std::function<void(LookupOutcome)> done) override {
    asked = std::move(request);
    done(lookup);
  }
  void ReportBackend(v1::ReportBackendRequest report, absl::optional<Time>,
                     std::function<void(ReportOutcome)> done) override {
    reported = std::move(report);
    v1::ReportBackendResponse response;
    response.set_verdict(v1::BACKEND_VERDICT_GONE);
    done(std::move(response));
  }
  LeaseId Register(v1::RegisterRequest,
                   std::function<void(v1::RegisterResponse)>,
                   std::function<void(absl::optional<Refused>)>) override {
    ADD_FAILURE() << "the framed protocol has no such question";
    return 0;
  }
  void EndLease(LeaseId) override { FAIL() << "nobody has a lease"; }
  void StartBackend(BackendName, absl::optional<Time>,
                    std::function<void(BackendOutcome)>) override {
    FAIL() << "the framed protocol has no such question";
  }
  void StopBackend(BackendName, absl::optional<Time>,
                   std::function<void(BackendOutcome)>) override {
    FAIL() << "the framed protocol has no such question";
  }
  void DrainBackend(BackendName, absl::optional<Time>,
                    std::function<void(BackendOutcome)>) override {
    FAIL() << "the framed protocol has no such question";
  }
  void GetStatus(std::function<void(v1::GetStatusResponse)> done) override {
    v1::GetStatusResponse status;
    status.set_connections(3);
    status.mutable_uptime()->set_seconds(17);
    done(std::move(status));
  }
  void ListBackends(
      std::function<void(v1::ListBackendsResponse)> done) override {
    done(backends);
  }
  void ReloadDefinitions(
      std::function<void(v1::ReloadDefinitionsResponse)>) override {
    FAIL() << "the framed protocol has no such question";
  }
  void Shutdown(const v1::ShutdownRequest& request,
                std::function<void(v1::ShutdownResponse)> done) override {
    EXPECT_NE(request.backends(), v1::ShutdownRequest::BACKENDS_STOP);
    ++shutdowns;
    done(v1::ShutdownResponse());
  }
  void GetMetrics(std::function<void(v1::GetMetricsResponse)>) override {
    FAIL() << "the framed protocol has metrics of its own";
  }
  EventLog::ReadId ReadEvents(uint64_t after, bool wait,
                              EventLog::Done done) override {
    EXPECT_EQ(after, 0u);
    EXPECT_FALSE(wait);
    done({});
    return 1;
  }
  void ForgetEvents(EventLog::ReadId) override { FAIL() << "nobody waits"; }
  RouteWatch::ReadId ReadRoutes(RouteWatch::Table, RouteWatch::Done) override {
    ADD_FAILURE() << "the framed protocol has no such question";
    return 0;
  }
  void ForgetRoutes(RouteWatch::ReadId) override { FAIL() << "nobody waits"; }
  Counters& counters() override { return counters_; }

  uint64_t Count(const std::string& name) const {
    const auto all = counters_.Snapshot();
    const auto found = all.find(name);
    return found == all.end() ? 0 : found->second;
  }

  absl::optional<v1::NegotiateResponse> ready;
  v1::NegotiateRequest asked;
  std::deque<std::function<void(Outcome)>> waiting;
  int shutdowns = 0;
  LookupOutcome lookup;
  v1::ListBackendsResponse backends;
  v1::ReportBackendRequest reported;

 private:
  Counters counters_;
};

class FramedAdapterTest : public ::testing::Test {
 protected:
  FramedAdapterTest()
      : vectors_(ReadVectors("broker-v1-vectors.json")),
        adapter_(port_,
                 [this](int pid) {
                   worlds_asked_.push_back(pid);
                   v1::World world;
                   world.set_cache_root("/theirs");
                   return world;
                 },
                 {"/upstream", false}) {
    peer_.pid = kPid;
  }

  // The bytes of a vector, header and body.
  std::string Wire(const std::string& name) const {
    for (const auto& vector :
         Member(vectors_, "vectors").list_value().values()) {
      if (Text(vector, "name") == name) return Bytes(vector);
    }
    ADD_FAILURE() << "no vector " << name;
    return "";
  }

  static std::string Body(const std::string& wire) {
    return wire.substr(ipc::kFrameHeaderBytes);
  }

  // What is answered at once; nothing while the negotiation waits.
  absl::optional<std::string> Handle(const std::string& body) {
    const auto answer = std::make_shared<absl::optional<std::string>>();
    adapter_.Handle(body, peer_, [answer](std::string bytes) {
      EXPECT_FALSE(answer->has_value()) << "answered twice";
      *answer = std::move(bytes);
    });
    last_ = answer;
    return *answer;
  }

  static std::string HelloBody(const upstream::Hello& hello) {
    return Body(
        ipc::EncodeFrame(ipc::MakeFrame(upstream::FRAME_KIND_REQUEST,
                                        ipc::kControlProtocol, 1,
                                        ipc::SerializeDeterministically(hello)))
            .value());
  }

  static upstream::Hello GoodHello() {
    upstream::Hello hello;
    hello.set_client_min_protocol(1);
    hello.set_client_max_protocol(1);
    hello.set_service_name("zccache");
    hello.set_wanted_version("1.11.20");
    hello.set_peer_pid(kPid);
    return hello;
  }

  static upstream::HelloReply ReplyIn(const std::string& wire) {
    const auto frame = ipc::DecodeFrame(Body(wire));
    upstream::HelloReply reply;
    EXPECT_TRUE(frame.ok() && reply.ParseFromString(frame->payload()));
    return reply;
  }

  static v1::NegotiateResponse RouteOfVector() {
    v1::NegotiateResponse response;
    response.mutable_route()->set_version("1.11.20");
    response.mutable_route()->set_endpoint(
        "/run/user/1000/running-process/broker/"
        "rpb-v1-deadbeefdeadbeef-be-abababababababababababababababab.sock");
    return response;
  }

  const google::protobuf::Value vectors_;
  FakePort port_;
  std::vector<int> worlds_asked_;
  FramedAdapter adapter_;
  ipc::PeerIdentity peer_;
  std::shared_ptr<absl::optional<std::string>> last_;
};

TEST_F(FramedAdapterTest, AnswersUpstreamsHelloWithUpstreamsBytes) {
  port_.ready = RouteOfVector();
  EXPECT_EQ(Handle(Body(Wire("client_hello_wire"))),
            Wire("broker_negotiated_wire"));
  EXPECT_EQ(port_.asked.service(), "zccache");
  EXPECT_EQ(port_.asked.wanted_version(), "1.11.20");
  EXPECT_EQ(port_.asked.client_name(), "running-process");
  EXPECT_EQ(port_.asked.world().cache_root(), "/theirs");
  EXPECT_EQ(worlds_asked_, std::vector<int>{kPid});
}

TEST_F(FramedAdapterTest, AFramesTraceContextIsTheQuestions) {
  port_.ready = RouteOfVector();
  upstream::Frame frame =
      ipc::MakeFrame(upstream::FRAME_KIND_REQUEST, ipc::kControlProtocol, 1,
                     ipc::SerializeDeterministically(GoodHello()));
  frame.set_traceparent(
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  ASSERT_TRUE(Handle(Body(ipc::EncodeFrame(frame).value())).has_value());
  EXPECT_EQ(port_.asked.traceparent(), frame.traceparent());
}

v1::LauncherReply LauncherReplyIn(const std::string& wire) {
  const auto frame =
      ipc::DecodeFrame(absl::string_view(wire).substr(ipc::kFrameHeaderBytes));
  v1::LauncherReply reply;
  EXPECT_TRUE(
      frame.ok() && frame->payload_protocol() == ipc::kLauncherProtocol &&
      frame->kind() == upstream::FRAME_KIND_RESPONSE &&
      frame->request_id() == 7 && reply.ParseFromString(frame->payload()));
  return reply;
}

std::string LauncherBody(const v1::LauncherRequest& request) {
  return ipc::MakeFrame(upstream::FRAME_KIND_REQUEST, ipc::kLauncherProtocol, 7,
                        request.SerializeAsString())
      .SerializeAsString();
}

TEST_F(FramedAdapterTest, LooksUpForTheLauncher) {
  v1::RouteInfo info;
  info.set_endpoint("/run/backend.sock");
  info.set_group(77);
  port_.lookup = info;
  v1::LauncherRequest request;
  request.mutable_lookup()->set_service("zccache");
  request.mutable_lookup()->add_lanes(3);
  request.mutable_lookup()->set_cache_root("/mine");
  const auto reply = LauncherReplyIn(*Handle(LauncherBody(request)));
  EXPECT_EQ(reply.route().endpoint(), "/run/backend.sock");
  EXPECT_EQ(reply.route().group(), 77u);
  EXPECT_EQ(port_.asked.service(), "zccache");
  EXPECT_EQ(port_.asked.wanted_version(), "");
  EXPECT_EQ(port_.asked.accepted_lanes(0), v1::WIRE_LANE_FRAME_V1);
  EXPECT_EQ(port_.asked.world().cache_root(), "/mine");
}

TEST_F(FramedAdapterTest, TellsTheLauncherWhyNot) {
  port_.lookup = Refuse(v1::REFUSAL_RATE_LIMITED, "too many", "zccache", "",
                        {{}, {}, absl::Milliseconds(300)});
  v1::LauncherRequest request;
  request.mutable_lookup()->set_service("zccache");
  const auto reply = LauncherReplyIn(*Handle(LauncherBody(request)));
  EXPECT_EQ(reply.refusal().name(), "RATE_LIMITED");
  EXPECT_EQ(reply.refusal().text(), "too many");
  EXPECT_EQ(reply.refusal().retry_after_ms(), 300u);
}

TEST_F(FramedAdapterTest, PassesOnTheLaunchersReport) {
  v1::LauncherRequest request;
  request.mutable_report()->set_service("zccache");
  request.mutable_report()->set_version("1.11.22");
  request.mutable_report()->set_pid(12);
  request.mutable_report()->set_start_time(345);
  request.mutable_report()->set_reason("silent");
  EXPECT_EQ(LauncherReplyIn(*Handle(LauncherBody(request))).verdict(),
            v1::LauncherReply::VERDICT_GONE);
  EXPECT_EQ(port_.reported.pid(), 12u);
  EXPECT_EQ(port_.reported.start_time(), 345u);
  EXPECT_EQ(port_.reported.reason(), "silent");
}

// The verdicts of the two APIs are passed on by number.
static_assert(static_cast<int>(v1::LauncherReply::VERDICT_BUSY) ==
              static_cast<int>(v1::BACKEND_VERDICT_BUSY));
static_assert(static_cast<int>(v1::LauncherReply::VERDICT_GONE) ==
              static_cast<int>(v1::BACKEND_VERDICT_GONE));
static_assert(static_cast<int>(v1::LauncherReply::VERDICT_UNKNOWN) ==
              static_cast<int>(v1::BACKEND_VERDICT_UNKNOWN));

TEST_F(FramedAdapterTest, ClosesOnALauncherFrameThatMakesNoSense) {
  const auto response = ipc::MakeFrame(upstream::FRAME_KIND_RESPONSE,
                                       ipc::kLauncherProtocol, 7, "");
  EXPECT_EQ(*Handle(response.SerializeAsString()), "");
  const auto garbage = ipc::MakeFrame(upstream::FRAME_KIND_REQUEST,
                                      ipc::kLauncherProtocol, 7, "\xff\xff");
  EXPECT_EQ(*Handle(garbage.SerializeAsString()), "");
  EXPECT_EQ(port_.Count("bad_frames.launcher"), 2u);
  // Of the right form, but of a kind that a later launcher may have.
  EXPECT_EQ(LauncherReplyIn(*Handle(LauncherBody({}))).kind_case(),
            v1::LauncherReply::KIND_NOT_SET);
}

TEST_F(FramedAdapterTest, AnswersWhenTheNegotiationIsDecided) {
  EXPECT_FALSE(Handle(Body(Wire("client_hello_wire"))).has_value());
  ASSERT_EQ(port_.waiting.size(), 1u);
  port_.waiting.front()(RouteOfVector());
  EXPECT_EQ(*last_, Wire("broker_negotiated_wire"));
}

TEST_F(FramedAdapterTest, NumbersConnectionsAndEchoesTheKeepalive) {
  port_.ready = RouteOfVector();
  upstream::Hello hello = GoodHello();
  hello.set_client_keepalive_secs(60);
  for (uint64_t id = 1; id <= 3; ++id) {
    const auto reply = ReplyIn(*Handle(HelloBody(hello)));
    EXPECT_EQ(reply.negotiated().connection_id(), id);
    EXPECT_EQ(reply.negotiated().keepalive_interval_secs(), 60u);
  }
}

TEST_F(FramedAdapterTest, ReadsNoEnvironmentForAServiceItDoesNotKnow) {
  upstream::Hello hello = GoodHello();
  hello.set_service_name("nosuch");
  Handle(HelloBody(hello));
  EXPECT_TRUE(worlds_asked_.empty());
  EXPECT_FALSE(port_.asked.has_world());
}

TEST_F(FramedAdapterTest, FaultsAreAnsweredWithUpstreamsBytes) {
  const struct {
    ipc::FrameFault fault;
    const char* vector;
    const char* counter;
  } kRows[] = {
      {ipc::FrameFault::kFramingVersion,
       "refused_unsupported_framing_version_wire",
       "bad_frames.framing_version"},
      {ipc::FrameFault::kTooLarge, "refused_oversize_hello_wire",
       "bad_frames.too_large"},
      {ipc::FrameFault::kIncomplete, "refused_incomplete_hello_wire",
       "bad_frames.incomplete"},
      {ipc::FrameFault::kMalformedFrame, "refused_malformed_frame_wire",
       "bad_frames.malformed_frame"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(adapter_.AnswerFault(row.fault), Wire(row.vector)) << row.vector;
    EXPECT_EQ(port_.Count(row.counter), 1u) << row.counter;
  }
}

TEST_F(FramedAdapterTest, BadFramesAreAnsweredWithUpstreamsBytes) {
  const auto good = ipc::DecodeFrame(HelloBody(GoodHello()));
  ASSERT_TRUE(good.ok());
  const struct {
    std::function<void(upstream::Frame&)> spoil;
    const char* vector;
    const char* counter;
  } kRows[] = {
      {[](upstream::Frame& f) { f.set_envelope_version(2); },
       "refused_envelope_version_wire", "bad_frames.envelope_version"},
      {[](upstream::Frame& f) { f.set_kind(upstream::FRAME_KIND_RESPONSE); },
       "refused_frame_kind_wire", "bad_frames.kind"},
      {[](upstream::Frame& f) {
         f.set_payload_protocol(ipc::kZccacheProtocol);
       },
       "refused_frame_payload_protocol_wire", "bad_frames.payload_protocol"},
      {[](upstream::Frame& f) {
         f.set_payload_encoding(static_cast<upstream::PayloadEncoding>(1));
       },
       "refused_frame_encoding_wire", "bad_frames.payload_encoding"},
      {[](upstream::Frame& f) { f.set_payload("\xff\xff"); },
       "refused_malformed_hello_wire", "bad_frames.malformed_payload"},
  };
  for (const auto& row : kRows) {
    upstream::Frame frame = *good;
    row.spoil(frame);
    EXPECT_EQ(Handle(Body(ipc::EncodeFrame(frame).value())), Wire(row.vector))
        << row.vector;
    EXPECT_EQ(port_.Count(row.counter), 1u) << row.counter;
  }
  EXPECT_TRUE(port_.waiting.empty());
}

TEST_F(FramedAdapterTest, ABodyThatIsNoFrameIsMalformed) {
  EXPECT_EQ(ReplyIn(*Handle("\xff\xff\xff")).refused().reason(),
            "malformed broker Frame");
  EXPECT_EQ(port_.Count("bad_frames.malformed_frame"), 1u);
}

TEST_F(FramedAdapterTest, BadHellosAreRefusedInTheirOrder) {
  const struct {
    std::function<void(upstream::Hello&)> spoil;
    const char* reason;
  } kRows[] = {
      {[](upstream::Hello& h) { h.set_client_min_protocol(2); },
       "client protocol range does not include v1"},
      {[](upstream::Hello& h) {
         h.set_client_min_protocol(0);
         h.set_client_max_protocol(0);
       },
       "client protocol range does not include v1"},
      {[](upstream::Hello& h) { h.set_client_version(std::string(129, 'v')); },
       "client_version exceeds 128 bytes"},
      {[](upstream::Hello& h) { h.set_client_lib_name(std::string(65, 'l')); },
       "client_lib fields exceed 64 bytes"},
      {[](upstream::Hello& h) {
         h.set_client_lib_version(std::string(65, 'l'));
       },
       "client_lib fields exceed 64 bytes"},
      {[](upstream::Hello& h) { h.set_peer_pid(kPid + 1); },
       "peer_pid does not match verified peer"},
  };
  // Spoiled from the last to the first, all earlier ones stay spoiled: each
  // time the first check in the order speaks.
  upstream::Hello hello = GoodHello();
  uint64_t bad = 0;
  for (size_t i = std::size(kRows); i-- > 0;) {
    if (i == 1) continue;  // another spelling of the first
    kRows[i].spoil(hello);
    EXPECT_EQ(ReplyIn(*Handle(HelloBody(hello))).refused().reason(),
              kRows[i].reason);
    EXPECT_EQ(port_.Count("bad_hellos"), ++bad);
  }
  for (const auto& row : kRows) {
    upstream::Hello alone = GoodHello();
    row.spoil(alone);
    EXPECT_EQ(ReplyIn(*Handle(HelloBody(alone))).refused().reason(),
              row.reason);
  }
  EXPECT_TRUE(port_.waiting.empty());
}

TEST_F(FramedAdapterTest, LimitsAreInclusive) {
  upstream::Hello hello = GoodHello();
  hello.set_client_version(std::string(128, 'v'));
  hello.set_client_lib_name(std::string(64, 'l'));
  hello.set_client_lib_version(std::string(64, 'l'));
  hello.set_peer_pid(0);  // not stated
  EXPECT_FALSE(Handle(HelloBody(hello)).has_value());
  EXPECT_EQ(port_.waiting.size(), 1u);
}

TEST_F(FramedAdapterTest, RefusalsCarryTheTablesCodeAndTheirName) {
  for (const RefusalTraits& row : Refusals()) {
    if (row.framed_code == 0) continue;  // never sent
    Handle(HelloBody(GoodHello()));
    ASSERT_FALSE(port_.waiting.empty());
    const auto done = port_.waiting.front();
    port_.waiting.pop_front();
    RefusalFacts facts;
    facts.retry_after = absl::Milliseconds(1234);
    done(Refuse(row.refusal, "because", "zccache", "1.11.20", facts));
    const upstream::HelloReply reply = ReplyIn(last_->value());
    EXPECT_EQ(static_cast<uint32_t>(reply.refused().code()), row.framed_code);
    EXPECT_EQ(reply.refused().reason(), "because");
    EXPECT_EQ(reply.refused().details().at("refusal"), row.name);
    EXPECT_EQ(reply.refused().retry_after_ms(), 1234u);
    EXPECT_EQ(reply.refused().daemon_max_protocol(), 1u);
  }
}

// --- Admin

TEST_F(FramedAdapterTest, AdminVerbsAreAnsweredWithUpstreamsBytes) {
  const struct {
    const char* request;
    const char* reply;
  } kRows[] = {
      {"admin_healthz_request_wire", "admin_healthz_reply_wire"},
      {"admin_readyz_request_wire", "admin_readyz_ready_reply_wire"},
      {"admin_shutdown_request_wire", "admin_shutdown_ack_reply_wire"},
  };
  for (const auto& row : kRows) {
    const std::string request = Wire(row.request);
    const auto answer = Handle(Body(request));
    ASSERT_TRUE(answer.has_value()) << row.request;
    const auto got = ipc::DecodeFrame(Body(*answer));
    const auto wanted = ipc::DecodeFrame(Body(Wire(row.reply)));
    ASSERT_TRUE(got.ok() && wanted.ok());
    EXPECT_EQ(got->payload_protocol(), ipc::kAdminProtocol);
    EXPECT_EQ(got->request_id(), ipc::DecodeFrame(Body(request))->request_id());
    upstream::AdminReply reply;
    upstream::AdminReply wanted_reply;
    ASSERT_TRUE(reply.ParseFromString(got->payload()));
    ASSERT_TRUE(wanted_reply.ParseFromString(wanted->payload()));
    EXPECT_EQ(reply.body(), wanted_reply.body()) << row.request;
    EXPECT_EQ(reply.exit_code(), wanted_reply.exit_code()) << row.request;
    EXPECT_EQ(reply.content_type(), wanted_reply.content_type()) << row.request;
  }
  EXPECT_EQ(port_.shutdowns, 1);
}

TEST_F(FramedAdapterTest, AVerbThatNobodyKnowsIsRefused) {
  upstream::AdminRequest request;
  request.set_verb(static_cast<upstream::AdminVerb>(99));
  const auto answer =
      Handle(Body(ipc::EncodeFrame(ipc::MakeFrame(upstream::FRAME_KIND_REQUEST,
                                                  ipc::kAdminProtocol, 1,
                                                  request.SerializeAsString()))
                      .value()));
  ASSERT_TRUE(answer.has_value());
  upstream::AdminReply reply;
  ASSERT_TRUE(
      reply.ParseFromString(ipc::DecodeFrame(Body(*answer))->payload()));
  EXPECT_EQ(reply.body(), "unsupported admin verb\n");
  EXPECT_EQ(reply.exit_code(), 2u);
}

TEST_F(FramedAdapterTest, VerbsWithABodyOfTheirOwnHaveUpstreamsKind) {
  const struct {
    const char* request;
    upstream::AdminReplyKind kind;
    const char* content_type;
    const char* part;
  } kRows[] = {
      {"admin_status_json_request_wire", upstream::ADMIN_REPLY_KIND_JSON,
       "application/json", R"("command":"status")"},
      {"admin_dump_request_wire", upstream::ADMIN_REPLY_KIND_JSON,
       "application/json", R"("command":"dump")"},
      {"admin_list_instances_request_wire", upstream::ADMIN_REPLY_KIND_JSON,
       "application/json", R"("command":"list-instances")"},
      {"admin_backend_health_request_wire", upstream::ADMIN_REPLY_KIND_JSON,
       "application/json", R"("service_name":"zccache")"},
      {"admin_config_request_wire", upstream::ADMIN_REPLY_KIND_JSON,
       "application/json", R"("value":"/upstream")"},
      {"admin_diagnose_request_wire", upstream::ADMIN_REPLY_KIND_JSON,
       "application/json", R"("output":"bundle.tar.gz")"},
      {"admin_metrics_request_wire", upstream::ADMIN_REPLY_KIND_OPENMETRICS,
       "application/openmetrics-text", "_connections_open 3\n"},
  };
  for (const auto& row : kRows) {
    const auto answer = Handle(Body(Wire(row.request)));
    ASSERT_TRUE(answer.has_value()) << row.request;
    upstream::AdminReply reply;
    ASSERT_TRUE(
        reply.ParseFromString(ipc::DecodeFrame(Body(*answer))->payload()));
    EXPECT_EQ(reply.kind(), row.kind) << row.request;
    EXPECT_EQ(reply.content_type(), row.content_type) << row.request;
    EXPECT_EQ(reply.exit_code(), 0u) << row.request;
    EXPECT_NE(reply.body().find(row.part), std::string::npos) << reply.body();
  }
}

TEST_F(FramedAdapterTest, AnAdminFrameOfNonsenseIsClosedUnanswered) {
  const std::string body =
      Body(ipc::EncodeFrame(ipc::MakeFrame(upstream::FRAME_KIND_REQUEST,
                                           ipc::kAdminProtocol, 1, "\xff"))
               .value());
  EXPECT_EQ(Handle(body), "");
  EXPECT_EQ(port_.Count("bad_frames.admin"), 1u);
}

}  // namespace
}  // namespace zcbroker::service
