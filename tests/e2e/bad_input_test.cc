// What a broker must survive from its peers and from its user's files: each has
// its named refusal or a close, is counted, and holds up nobody else.
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/frame/envelope.h"
#include "ipc/socket.h"
#include "ipc/testing/wait_for.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

namespace upstream = running_process::broker::v1;

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string Header(uint32_t body_bytes) {
  std::string header(1, '\x01');
  for (int shift = 0; shift < 32; shift += 8) {
    header.push_back(static_cast<char>(body_bytes >> shift & 0xff));
  }
  return header;
}

std::string Evidence(const GrpcAnswer& answer) {
  return answer.refusal.has_value()
             ? absl::StrJoin(answer.refusal->evidence(), "\n")
             : "";
}

class BadInputTest : public BrokerTest {
 protected:
  BadInputTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
  }
  std::vector<ipc::UniqueFd> HoldDescriptors(GrpcClient& client);
};

// --- Peers

struct BadPeer {
  const char* name;
  std::string bytes;
  // Finish after them: the broker need not wait for more.
  bool half_close;
  // 0: closed without a word.
  int code;
  std::string reason;
  std::string counter;
};

// For gtest's output.
void PrintTo(const BadPeer& peer, std::ostream* out) { *out << peer.name; }

std::vector<BadPeer> BadPeers() {
  upstream::Hello mismatch = HelloFor("demo", "1.0.0");
  mismatch.set_peer_pid(1);
  upstream::Hello newer = HelloFor("demo", "1.0.0");
  newer.set_client_min_protocol(2);
  newer.set_client_max_protocol(3);
  upstream::Hello long_version = HelloFor("demo", "1.0.0");
  long_version.set_client_version(std::string(129, 'v'));
  const std::string whole = HelloFrame(HelloFor("demo", "1.0.0"));
  const auto frame = [](upstream::FrameKind kind, uint32_t protocol,
                        std::string payload) {
    return ipc::EncodeFrame(
               ipc::MakeFrame(kind, protocol, 7, std::move(payload)))
        .value();
  };
  const std::string hello = HelloFor("demo", "1.0.0").SerializeAsString();
  return {
      {"OneByteOverTheHelloCap", Header(65537), false,
       upstream::ERROR_PEER_REJECTED, "initial Hello frame exceeds 64 KiB",
       "bad_frames.too_large"},
      {"OneByteOverTheFrameCap", Header(16 * 1024 * 1024 + 1), false,
       upstream::ERROR_PEER_REJECTED, "initial Hello frame exceeds 64 KiB",
       "bad_frames.too_large"},
      {"WrongFramingByte", absl::StrCat("\x02", Header(4)), false,
       upstream::ERROR_VERSION_UNSUPPORTED, "unsupported framing version",
       "bad_frames.framing_version"},
      {"AnotherProtocol", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", false,
       upstream::ERROR_VERSION_UNSUPPORTED, "unsupported framing version",
       "bad_frames.framing_version"},
      {"TruncatedFrame", whole.substr(0, whole.size() - 3), true,
       upstream::ERROR_PEER_REJECTED, "incomplete Hello frame",
       "bad_frames.incomplete"},
      {"TruncatedHeader", Header(9).substr(0, 3), true,
       upstream::ERROR_PEER_REJECTED, "incomplete Hello frame",
       "bad_frames.incomplete"},
      {"StalledFrame", whole.substr(0, whole.size() - 3), false,
       upstream::ERROR_PEER_REJECTED, "incomplete Hello frame",
       "bad_frames.incomplete"},
      {"Silence", "", false, 0, "", "silent_peers"},
      {"HalfAPreface", std::string(kPreface, 11), false, 0, "", "silent_peers"},
      {"MalformedFrame", Header(4) + "\xff\xff\xff\xff", false,
       upstream::ERROR_PEER_REJECTED, "malformed broker Frame",
       "bad_frames.malformed_frame"},
      {"MalformedHello",
       frame(upstream::FRAME_KIND_REQUEST, ipc::kControlProtocol, "\xff\xff"),
       false, upstream::ERROR_PEER_REJECTED, "malformed Hello payload",
       "bad_frames.malformed_payload"},
      {"ResponseInsteadOfRequest",
       frame(upstream::FRAME_KIND_RESPONSE, ipc::kControlProtocol, hello),
       false, upstream::ERROR_PEER_REJECTED, "Hello frame kind must be REQUEST",
       "bad_frames.kind"},
      {"AnotherLane",
       frame(upstream::FRAME_KIND_REQUEST, ipc::kZccacheProtocol, hello), false,
       upstream::ERROR_PEER_REJECTED,
       "Hello frame payload_protocol must be control-plane",
       "bad_frames.payload_protocol"},
      {"AdminFrameOfNonsense",
       frame(upstream::FRAME_KIND_REQUEST, ipc::kAdminProtocol, "\xff\xff"),
       false, 0, "", "bad_frames.admin"},
      {"AnotherProcessesPid", HelloFrame(mismatch), false,
       upstream::ERROR_PEER_REJECTED, "peer_pid does not match verified peer",
       "bad_hellos"},
      {"NewerProtocolOnly", HelloFrame(newer), false,
       upstream::ERROR_VERSION_UNSUPPORTED,
       "client protocol range does not include v1", "bad_hellos"},
      {"LongClientVersion", HelloFrame(long_version), false,
       upstream::ERROR_PEER_REJECTED, "client_version exceeds 128 bytes",
       "bad_hellos"},
  };
}

class BadPeerTest : public BadInputTest,
                    public ::testing::WithParamInterface<BadPeer> {};

INSTANTIATE_TEST_SUITE_P(Table, BadPeerTest, ::testing::ValuesIn(BadPeers()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST_P(BadPeerTest, IsRefusedCountedAndHoldsUpNobody) {
  const BadPeer& peer = GetParam();
  StartBroker();
  const ipc::UniqueFd fd = ConnectTo(socket());
  const absl::Status written =
      ipc::WriteAll(fd, peer.bytes, ipc::Deadline::After(kPatience));
  ASSERT_TRUE(written.ok()) << written;
  if (peer.half_close) {
    ASSERT_EQ(shutdown(fd.get(), SHUT_WR), 0);
  }
  ExpectServesOthers();
  const FramedAnswer answer = ReadFramedAnswer(fd);
  EXPECT_TRUE(answer.closed);
  if (peer.code == 0) {
    EXPECT_FALSE(answer.refused.has_value());
  } else {
    ASSERT_TRUE(answer.refused.has_value());
    EXPECT_EQ(answer.refused->reason(), peer.reason);
    EXPECT_EQ(answer.refused->code(), peer.code);
    EXPECT_EQ(answer.refused->daemon_min_protocol(), 1u);
    EXPECT_EQ(answer.refused->daemon_max_protocol(), 1u);
  }
  EXPECT_FALSE(answer.negotiated.has_value());
  EXPECT_EQ(Counter(peer.counter), 1u);
  const bool is_limit = peer.counter == "silent_peers" ||
                        peer.counter == "bad_frames.too_large" ||
                        peer.counter == "bad_frames.incomplete";
  EXPECT_EQ(TellsOfLimit(peer.counter), is_limit);
  ExpectServesOthers();
}

TEST_F(BadInputTest, AHelloFullToTheCapIsRead) {
  StartBroker();
  upstream::Hello hello = HelloFor("demo", "1.0.0");
  const size_t bare = HelloFrame(hello).size() - ipc::kFrameHeaderBytes;
  // The padding's own tag and length, and longer lengths around it, take some
  // bytes more.
  std::string frame;
  for (size_t less = 0; less < 16; ++less) {
    hello.set_request_id(
        std::string(ipc::kMaxHelloBodyBytes - bare - less, 'p'));
    frame = HelloFrame(hello);
    if (frame.size() <= ipc::kFrameHeaderBytes + ipc::kMaxHelloBodyBytes) break;
  }
  ASSERT_EQ(frame.size(), ipc::kFrameHeaderBytes + ipc::kMaxHelloBodyBytes);
  const ipc::UniqueFd fd = ConnectTo(socket());
  ASSERT_TRUE(ipc::WriteAll(fd, frame, ipc::Deadline::After(kPatience)).ok());
  EXPECT_TRUE(ReadFramedAnswer(fd).negotiated.has_value());
}

TEST_F(BadInputTest, ManySilentPeersHoldUpNobody) {
  StartBroker();
  std::vector<ipc::UniqueFd> silent;
  for (int i = 0; i < 200; ++i) silent.push_back(ConnectTo(socket()));
  ExpectServesOthers();
  for (const ipc::UniqueFd& fd : silent) {
    bool closed = false;
    EXPECT_EQ(ReadToEnd(fd, &closed), "");
    EXPECT_TRUE(closed);
  }
  EXPECT_EQ(Counter("silent_peers"), 200u);
}

TEST_F(BadInputTest, AProcessHasSoManyConnectionsAndNoMore) {
  home_.Define("slow", ReferenceDefinition("slow", {"1.0.0"},
                                           {"--start-delay-ms", "60000"},
                                           "start_timeout { seconds: 60 }"));
  StartBroker();
  // Each is held until its start is given up.
  const std::string hello = HelloFrame(HelloFor("slow", "1.0.0"));
  const auto ask = [&] {
    ipc::UniqueFd fd = ConnectTo(socket());
    // Closed already, it is no failure here.
    ipc::WriteAll(fd, hello, ipc::Deadline::After(kPatience)).IgnoreError();
    return fd;
  };
  std::vector<ipc::UniqueFd> waiting;
  for (int i = 0; i < 256; ++i) waiting.push_back(ask());
  const ipc::UniqueFd one_more = ask();
  bool closed = false;
  EXPECT_EQ(ReadToEnd(one_more, &closed), "");
  EXPECT_TRUE(closed);
  // Another process is served, and tells.
  const Finished status = RunToEnd({CommandLineProgram(), "status"},
                                   home_.environment(), home_.Entry("work"));
  EXPECT_EQ(status.status, 0) << status.err;
  EXPECT_TRUE(absl::StrContains(status.out, "connections.too_many_of_one 1\n"))
      << status.out;
  for (const ipc::UniqueFd& fd : waiting) {
    EXPECT_TRUE(ReadFramedAnswer(fd).refused.has_value());
  }
  // And so is this one again.
  ExpectServesOthers();
}

// Not 256 of one, and more than its descriptors.
Broker::Options FewDescriptors() {
  Broker::Options options;
  options.descriptor_limit = 160;
  // Without a descriptor ThreadSanitizer cannot start what names the frames,
  // and so cannot tell gRPC's own (third_party/grpc/tsan_suppressions.cc).
  options.environment["TSAN_OPTIONS"] =
      "ignore_noninstrumented_modules=1:exitcode=0";
  return options;
}

// Uses up the descriptors of a broker that serves "opaque", all but the
// reserve. At a public name nobody is told anything: what was not accepted
// waits, as long as nobody is idle there, and nobody is who has said something
// that the broker does not understand.
std::vector<ipc::UniqueFd> BadInputTest::HoldDescriptors(GrpcClient& client) {
  const std::string name = home_.Entry("run/zcbroker/routes/opaque/1.0.0.sock");
  std::vector<ipc::UniqueFd> at_work;
  for (int i = 0; i < 200; ++i) {
    at_work.push_back(ConnectTo(name));
    EXPECT_EQ(send(at_work.back().get(), "\x01", 1, MSG_NOSIGNAL), 1);
  }
  EXPECT_TRUE(ipc::WaitFor(
      [&] { return client.Status().counters().count("accept_failures") > 0; },
      "the descriptors to be used up", kPatience));
  return at_work;
}

TEST_F(BadInputTest, OutOfDescriptorsItGoesOn) {
  if (kChecksNeedPipes) GTEST_SKIP() << "the sanitizer needs descriptors";
  StartBroker(FewDescriptors());
  ExpectServesOthers();
  // More than it can hold; those it cannot accept wait until others are gone.
  std::vector<ipc::UniqueFd> silent;
  for (int i = 0; i < 200; ++i) silent.push_back(ConnectTo(socket()));
  ExpectServesOthers();
  EXPECT_GT(Counter("accept_failures"), 0u);
  for (const ipc::UniqueFd& fd : silent) {
    bool closed = false;
    EXPECT_EQ(ReadToEnd(fd, &closed), "");
  }
  ExpectServesOthers();
}

TEST_F(BadInputTest, WhoComesWithoutDescriptorsIsToldSo) {
  if (kChecksNeedPipes) GTEST_SKIP() << "the sanitizer needs descriptors";
  home_.Define("other", ReferenceDefinition("other", {"1.0.0"}));
  home_.Define("opaque",
               PlainDefinition("opaque", BackendProgram(),
                               "args: \"--endpoint\" args: \"{endpoint}\"\n"));
  StartBroker(FewDescriptors());
  ExpectServesOthers();
  GrpcClient before = Client();
  EXPECT_EQ(before.Status().counters().count("connections.of_reserve"), 0u);
  ASSERT_TRUE(before.Negotiate("opaque", "1.0.0").ok());
  std::vector<ipc::UniqueFd> at_work = HoldDescriptors(before);
  const auto counter = [&](const std::string& counted) {
    const auto counters = before.Status().counters();
    const auto found = counters.find(counted);
    return found != counters.end() ? found->second : 0;
  };
  // More often than there are descriptors in the reserve.
  constexpr int kHellos = 40;
  for (int i = 0; i < kHellos; ++i) {
    const FramedAnswer hello = NegotiateFramed(socket(), "other", "1.0.0");
    ASSERT_TRUE(hello.refused.has_value());
    EXPECT_EQ(hello.refused->code(), upstream::ERROR_FD_PRESSURE);
    EXPECT_EQ(hello.refused->details().at("refusal"), "FD_PRESSURE");
    EXPECT_GT(hello.refused->retry_after_ms(), 0u);
  }
  for (int i = 0; i < kHellos; ++i) {
    const GrpcAnswer call = Client().Negotiate("other", "1.0.0");
    EXPECT_EQ(call.reason, "FD_PRESSURE") << call.status.error_message();
    EXPECT_TRUE(call.retry.has_value());
  }
  EXPECT_EQ(before.Negotiate("other", "1.0.0").reason, "FD_PRESSURE");
  EXPECT_EQ(counter("refused.FD_PRESSURE"), 2u * kHellos + 1);
  EXPECT_GE(counter("connections.of_reserve"), 2u * kHellos);
  EXPECT_EQ(counter("start_failures"), 0u);
  // What takes no descriptor is answered as ever.
  ExpectServesOthers();
  EXPECT_TRUE(before.Negotiate("demo", "1.0.0").ok());
  EXPECT_EQ(Client().Negotiate("nosuch", "1.0.0").reason, "SERVICE_UNKNOWN");

  at_work.clear();
  EXPECT_TRUE(
      ipc::WaitFor([&] { return before.Negotiate("other", "1.0.0").ok(); },
                   "descriptors to be free again", kPatience));
}

// Silence has little of the reserve, so that others are told all the same.
TEST_F(BadInputTest, WhoIsSilentHoldsTheReserveForAMomentOnly) {
  if (kChecksNeedPipes) GTEST_SKIP() << "the sanitizer needs descriptors";
  home_.Define("opaque",
               PlainDefinition("opaque", BackendProgram(),
                               "args: \"--endpoint\" args: \"{endpoint}\"\n"));
  StartBroker(FewDescriptors());
  ExpectServesOthers();
  GrpcClient before = Client();
  ASSERT_TRUE(before.Negotiate("opaque", "1.0.0").ok());
  std::vector<ipc::UniqueFd> at_work = HoldDescriptors(before);
  // One after the other, five reserves full of the slowest there are: a begun
  // frame has 5 s without the rule, so 25 s in all.
  const absl::Time begin = absl::Now();
  std::vector<ipc::UniqueFd> silent;
  for (int i = 0; i < 160; ++i) {
    silent.push_back(ConnectTo(socket()));
    ASSERT_EQ(send(silent.back().get(), "\x01", 1, MSG_NOSIGNAL), 1);
  }
  ExpectServesOthers();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(15));
  EXPECT_GE(Counter("connections.of_reserve"), silent.size());
}

// Connects as another user, says Hello and counts what comes back: what a
// forked copy of this process may do is system calls only.
int BytesForUid(uid_t uid, const std::string& socket_path,
                const std::string& hello) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const pid_t child = fork();
  if (child == 0) {
    alarm(50);
    if (setgroups(0, nullptr) != 0 || setgid(uid) != 0 || setuid(uid) != 0) {
      _exit(101);
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) != 0) {
      _exit(102);
    }
    // It may be closed already.
    static_cast<void>(send(fd, hello.data(), hello.size(), MSG_NOSIGNAL));
    char buffer[100];
    const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
    _exit(n > 0 ? static_cast<int>(n) : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(BadInputTest, AnotherUserIsClosedUnread) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  StartBroker();
  // The directories keep others out; open them, to meet the second check.
  ASSERT_EQ(chmod(home_.path().c_str(), 0711), 0);
  ASSERT_EQ(chmod(home_.runtime_dir().c_str(), 0711), 0);
  ASSERT_EQ(chmod(home_.Entry("run/zcbroker").c_str(), 0711), 0);
  ASSERT_EQ(chmod(socket().c_str(), 0666), 0);
  EXPECT_EQ(BytesForUid(65534, socket(), HelloFrame(HelloFor("demo", "1.0.0"))),
            0);
  EXPECT_EQ(Counter("refused.PEER_REJECTED"), 1u);
  EXPECT_EQ(Counter("connections.framed"), 0u);
  ASSERT_EQ(chmod(home_.Entry("run/zcbroker").c_str(), 0700), 0);
  ASSERT_EQ(chmod(home_.runtime_dir().c_str(), 0700), 0);
  ExpectServesOthers();
}

// --- Requests

struct BadRequest {
  const char* name;
  std::string service;
  std::string version;
  v1::Refusal refusal;
};

void PrintTo(const BadRequest& request, std::ostream* out) {
  *out << request.name;
}

class BadRequestTest : public BadInputTest,
                       public ::testing::WithParamInterface<BadRequest> {};

INSTANTIATE_TEST_SUITE_P(
    Table, BadRequestTest,
    ::testing::Values(
        BadRequest{"UnknownService", "nosuch", "1.0.0",
                   v1::REFUSAL_SERVICE_UNKNOWN},
        BadRequest{"EmptyService", "", "1.0.0",
                   v1::REFUSAL_SERVICE_NAME_INVALID},
        BadRequest{"UpperCaseService", "Demo", "1.0.0",
                   v1::REFUSAL_SERVICE_NAME_INVALID},
        BadRequest{"PathAsService", "../../etc/passwd", "1.0.0",
                   v1::REFUSAL_SERVICE_NAME_INVALID},
        BadRequest{"LongService", std::string(65, 'a'), "1.0.0",
                   v1::REFUSAL_SERVICE_NAME_INVALID},
        BadRequest{"EmptyVersion", "demo", "", v1::REFUSAL_VERSION_INVALID},
        BadRequest{"TwoGroups", "demo", "1.0", v1::REFUSAL_VERSION_INVALID},
        BadRequest{"Range", "demo", ">=1.0.0", v1::REFUSAL_VERSION_INVALID},
        BadRequest{"LongVersion", "demo",
                   absl::StrCat("1.0.0-", std::string(60, 'a')),
                   v1::REFUSAL_VERSION_INVALID},
        BadRequest{"VersionNobodyHas", "demo", "9.9.9",
                   v1::REFUSAL_VERSION_NOT_INSTALLED}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BadRequestTest, IsRefusedByNameOnBothProtocols) {
  const BadRequest& bad = GetParam();
  StartBroker();
  const std::string name =
      v1::Refusal_Name(bad.refusal).substr(strlen("REFUSAL_"));
  const GrpcAnswer grpc = Client().Negotiate(bad.service, bad.version);
  EXPECT_EQ(grpc.reason, name) << grpc.status.error_message();
  const FramedAnswer framed =
      NegotiateFramed(socket(), bad.service, bad.version);
  ASSERT_TRUE(framed.refused.has_value());
  EXPECT_EQ(framed.refused->details().at("refusal"), name);
  EXPECT_EQ(Counter("refused." + name), 2u);
  ExpectServesOthers();
}

TEST_F(BadInputTest, AMissingVersionNamesThoseThatAreThere) {
  home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "1.2.0"}));
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("demo", "9.9.9");
  ASSERT_TRUE(answer.refusal.has_value());
  EXPECT_EQ(absl::StrJoin(answer.refusal->installed_versions(), " "),
            "1.2.0 1.0.0");
}

// --- Worlds and lanes

TEST_F(BadInputTest, AClientOfAWorldThatCannotBeServedIsTurnedAway) {
  home_.Define("cache",
               ReferenceDefinition("cache", {"1.0.0"}, {},
                                   "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n"));
  StartBroker();
  v1::NegotiateRequest request = RequestFor("cache", "1.0.0");
  request.mutable_world()->set_cache_root("somewhere/else");
  const GrpcAnswer grpc = Client().Negotiate(request);
  EXPECT_EQ(grpc.reason, "WORLD_MISMATCH");
  EXPECT_TRUE(absl::StrContains(Evidence(grpc), "somewhere/else"))
      << Evidence(grpc);

  request.mutable_world()->set_cache_root(home_.Entry(".zccache"));
  EXPECT_TRUE(Client().Negotiate(request).ok());
  // Ready by now, and still not for everybody.
  request.mutable_world()->set_mount_namespace("mnt:[1]");
  EXPECT_EQ(Client().Negotiate(request).reason, "WORLD_MISMATCH");
  EXPECT_EQ(Counter("refused.WORLD_MISMATCH"), 2u);
  ExpectServesOthers();
}

TEST_F(BadInputTest, ALaneNobodySpeaksIsRefused) {
  home_.Define(
      "frames",
      absl::StrCat("name: \"frames\"\nbinaries { path: \"", BackendProgram(),
                   "\" version: \"1.0.0\" }\nargs: \"--endpoint\" "
                   "args: \"{endpoint}\"\nlanes: WIRE_LANE_FRAME_V1\n"));
  StartBroker();
  v1::NegotiateRequest request = RequestFor("frames", "1.0.0");
  request.add_accepted_lanes(v1::WIRE_LANE_BINCODE_V15);
  const GrpcAnswer answer = Client().Negotiate(request);
  EXPECT_EQ(answer.reason, "LANE_UNSUPPORTED");
  EXPECT_EQ(Evidence(answer), "WIRE_LANE_FRAME_V1");
  EXPECT_EQ(Counter("refused.LANE_UNSUPPORTED"), 1u);
  EXPECT_EQ(Counter("backends_started"), 0u);
  request.add_accepted_lanes(v1::WIRE_LANE_FRAME_V1);
  EXPECT_TRUE(Client().Negotiate(request).ok());
}

// --- Definitions

TEST_F(BadInputTest, ATypoIsShownWithItsPlace) {
  home_.Define("typo", "name: \"typo\"\nbinaries { pth: \"/bin/true\" }\n");
  StartBroker();
  const std::string where =
      absl::StrCat(home_.services_dir(), "/typo.textproto:2:");
  const v1::GetStatusResponse status = Client().Status();
  // There may be others: of the machine's own framed names.
  const auto problem =
      std::find_if(status.problems().begin(), status.problems().end(),
                   [&](const v1::Problem& candidate) {
                     return absl::StartsWith(candidate.where(), where);
                   });
  ASSERT_NE(problem, status.problems().end()) << status.DebugString();
  EXPECT_TRUE(absl::StrContains(problem->what(), "pth")) << problem->what();

  const GrpcAnswer answer = Client().Negotiate("typo", "1.0.0");
  EXPECT_EQ(answer.reason, "SERVICE_UNKNOWN");
  EXPECT_TRUE(absl::StrContains(Evidence(answer), where)) << Evidence(answer);

  const Finished check =
      RunToEnd({CommandLineProgram(), "service", "check"}, home_.environment());
  EXPECT_EQ(check.status, 1) << check.err;
  EXPECT_TRUE(absl::StrContains(check.out, where)) << check.out;
  ExpectServesOthers();
}

TEST_F(BadInputTest, AMistakeKeepsTheLastGoodFormInForce) {
  StartBroker();
  ASSERT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  home_.Define("demo", "name: \"demo\"\nbinaries {");
  const v1::ReloadDefinitionsResponse reloaded = Client().Reload();
  EXPECT_EQ(reloaded.problems_size(), 1);
  ExpectServesOthers();
}

TEST_F(BadInputTest, ADefinitionThatOthersMayWriteIsNotRead) {
  ASSERT_EQ(chmod((home_.services_dir() + "/demo.textproto").c_str(), 0666), 0);
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
  EXPECT_EQ(answer.reason, "SERVICE_UNKNOWN");
  EXPECT_TRUE(absl::StrContains(Evidence(answer), "chmod go-w"))
      << Evidence(answer);
}

// --- Binaries

struct BadBinary {
  const char* name;
  std::function<std::string(const Home&)> definition;
  const char* reason;
  // Found in the message or its evidence.
  std::vector<std::string> told;
};

void PrintTo(const BadBinary& binary, std::ostream* out) {
  *out << binary.name;
}

class BadBinaryTest : public BadInputTest,
                      public ::testing::WithParamInterface<BadBinary> {};

INSTANTIATE_TEST_SUITE_P(
    Table, BadBinaryTest,
    ::testing::Values(
        BadBinary{"Missing",
                  [](const Home&) {
                    return PlainDefinition("bad", "/nonexistent/daemon");
                  },
                  "VERSION_NOT_INSTALLED",
                  {"/nonexistent/daemon: No such file"}},
        BadBinary{"NotExecutable",
                  [](const Home& home) {
                    WriteFile(home.Entry("work/plain"), "not a program");
                    return PlainDefinition("bad", home.Entry("work/plain"));
                  },
                  "VERSION_NOT_INSTALLED",
                  {"is not an executable file"}},
        BadBinary{"NoProgramInside",
                  [](const Home& home) {
                    WriteFile(home.Entry("work/junk"),
                              "\x7f"
                              "ELFjunk",
                              true);
                    return PlainDefinition("bad", home.Entry("work/junk"));
                  },
                  "BACKEND_START_FAILED",
                  {"work/junk"}},
        BadBinary{"ExitsAtOnce",
                  [](const Home& home) {
                    return PlainDefinition(
                        "bad", home.Script("exits",
                                           "echo the disk is on fire\n"
                                           "echo really >&2\nexit 3"));
                  },
                  "BACKEND_START_FAILED",
                  {"exited with status 3 before it was ready",
                   "the disk is on fire", "really"}},
        BadBinary{"ExitsInPeace",
                  [](const Home& home) {
                    return PlainDefinition("bad",
                                           home.Script("ends", "exit 0"));
                  },
                  "BACKEND_START_FAILED",
                  {"exited with status 0 before it was ready, and nobody else "
                   "serves"}},
        BadBinary{"KillsItself",
                  [](const Home& home) {
                    return PlainDefinition(
                        "bad", home.Script("killed", "kill -SEGV $$"));
                  },
                  "BACKEND_START_FAILED",
                  {"was ended by signal 11"}},
        BadBinary{"NeverListens",
                  [](const Home&) {
                    return ReferenceDefinition(
                        "bad", {"1.0.0"}, {"--never-listen"},
                        "start_timeout { seconds: 1 }\n");
                  },
                  "BACKEND_START_FAILED",
                  {"was not ready within 1000 ms", "waiting before it binds"}},
        BadBinary{"AnswersWithAnotherVersion",
                  [](const Home&) {
                    return absl::StrCat(
                        "name: \"bad\"\nbinaries { path: \"", BackendProgram(),
                        "\" version: \"1.0.0\" }\n"
                        "args: \"--endpoint\" args: \"{endpoint}\"\n"
                        "args: \"--report-version\" args: \"9.9.9\"\n"
                        "probe: PROBE_ZCCACHE_PING\n");
                  },
                  "BACKEND_START_FAILED",
                  {"it calls itself version 9.9.9"}},
        BadBinary{"HasNoVersion",
                  [](const Home& home) {
                    return absl::StrCat(
                        "name: \"bad\"\nbinaries { path: \"",
                        home.Script("versionless", "echo what version"),
                        "\" }\n");
                  },
                  "VERSION_NOT_INSTALLED",
                  {"printed no version"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BadBinaryTest, IsToldWithEvidence) {
  const BadBinary& bad = GetParam();
  home_.Define("bad", bad.definition(home_));
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("bad", "1.0.0");
  EXPECT_EQ(answer.reason, bad.reason) << answer.status.error_message();
  const std::string all =
      absl::StrCat(answer.status.error_message(), "\n", Evidence(answer));
  for (const std::string& told : bad.told) {
    EXPECT_TRUE(absl::StrContains(all, told)) << "no '" << told << "' in\n"
                                              << all;
  }
  EXPECT_EQ(Counter(absl::StrCat("refused.", bad.reason)), 1u);
  const bool tried = bad.reason == std::string("BACKEND_START_FAILED");
  EXPECT_EQ(Counter("start_failures"), tried ? 1u : 0u);
  EXPECT_EQ(answer.retry.has_value(), tried);
  ExpectServesOthers();
}

// Sequences that colour or move are left out, all other bytes are escaped.
TEST_F(BadInputTest, OutputOfAnyBytesIsShownEscaped) {
  home_.Define(
      "bad",
      PlainDefinition("bad", home_.Script("bytes",
                                          "printf 'a\\377\\033[2Jz\\033]0'\n"
                                          "exit 3")));
  StartBroker();
  const GrpcAnswer answer = Client().Negotiate("bad", "1.0.0");
  EXPECT_TRUE(absl::StrContains(Evidence(answer), "a\\xffz\\x1b]0"))
      << Evidence(answer);
  const std::vector<v1::Backend> backends = Client().Backends();
  ASSERT_EQ(backends.size(), 1u);
  ASSERT_FALSE(backends[0].evidence().empty());
  EXPECT_EQ(*backends[0].evidence().rbegin(), "a\\xffz\\x1b]0");
}

TEST_F(BadInputTest, WhatAFailedStartLeftBehindIsEnded) {
  home_.Define("bad", PlainDefinition("bad", home_.Script("forks",
                                                          "sleep 1000 &\n"
                                                          "echo child $!\n"
                                                          "exit 3")));
  StartBroker();
  const std::string all = Evidence(Client().Negotiate("bad", "1.0.0"));
  const size_t at = all.find("child ");
  ASSERT_NE(at, std::string::npos) << all;
  EXPECT_FALSE(IsRunning(std::stoi(all.substr(at + strlen("child ")))));
}

TEST_F(BadInputTest, FiveFailuresBreakItAndAChangedDefinitionHealsIt) {
  const std::string script =
      home_.Script("exits", "echo the disk is on fire\nexit 3");
  home_.Define("bad", PlainDefinition("bad", script));
  StartBroker();
  GrpcClient client = Client();
  GrpcAnswer answer;
  // Callers who come too early are told when to come again.
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        answer = client.Negotiate("bad", "1.0.0");
        if (answer.reason == "BACKEND_START_FAILED") {
          EXPECT_TRUE(answer.retry.has_value());
          EXPECT_GT(*answer.retry, absl::ZeroDuration());
        }
        return answer.reason != "BACKEND_START_FAILED";
      },
      "the service to be broken", kPatience));
  EXPECT_EQ(answer.reason, "BACKEND_BROKEN");
  EXPECT_FALSE(answer.retry.has_value());
  EXPECT_TRUE(
      absl::StrContains(answer.status.error_message(), "exited with status 3"))
      << answer.status.error_message();
  EXPECT_TRUE(absl::StrContains(Evidence(answer), "the disk is on fire"));
  EXPECT_EQ(Counter("start_failures"), 5u);
  EXPECT_EQ(Counter("backends_broken"), 1u);
  const std::vector<v1::Backend> backends = client.Backends();
  ASSERT_EQ(backends.size(), 1u);
  EXPECT_EQ(backends[0].state(), v1::BACKEND_STATE_BROKEN);
  EXPECT_EQ(backends[0].failed_starts(), 5u);
  EXPECT_NE(backends[0].log_file(), "");

  // Nobody tells the broker: it watches the directory.
  home_.Define("bad", ReferenceDefinition("bad", {"1.0.0"}));
  EXPECT_TRUE(
      ipc::WaitFor([&] { return client.Negotiate("bad", "1.0.0").ok(); },
                   "the service to be mended", kPatience));
}

TEST_F(BadInputTest, AMendedBinaryHealsIt) {
  const std::string script = home_.Script("daemon", "exit 3");
  home_.Define("bad",
               PlainDefinition("bad", script,
                               "args: \"--endpoint\" args: \"{endpoint}\"\n"));
  StartBroker();
  GrpcClient client = Client();
  ASSERT_TRUE(ipc::WaitFor(
      [&] {
        return client.Negotiate("bad", "1.0.0").reason == "BACKEND_BROKEN";
      },
      "the service to be broken", kPatience));
  home_.Script("daemon", absl::StrCat("exec ", BackendProgram(), " \"$@\""));
  // What is broken is looked at again when it is asked for.
  EXPECT_TRUE(
      ipc::WaitFor([&] { return client.Negotiate("bad", "1.0.0").ok(); },
                   "the binary to be seen", kPatience));
}

}  // namespace
}  // namespace zcbroker::testing
