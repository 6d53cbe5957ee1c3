#include "client/daemon_connection.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/testing/fake_daemon.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/socket.h"
#include "ipc/testing/fake_server.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/unique_fd.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"

namespace zcbroker::client {
namespace {

using ipc::Deadline;
using ipc::WireLane;
using zccache::v1::Request;
using zccache::v1::Response;

Deadline Plenty() { return Deadline::After(absl::Seconds(20)); }

DaemonConnection ConnectTo(const std::string& path, WireLane lane) {
  return DaemonConnection(*ipc::Connect(*ipc::Endpoint::Parse(path), Plenty()),
                          lane);
}

// What a real daemon would answer, in outline.
Response Answer(const Request& request) {
  Response response;
  switch (request.body_case()) {
    case Request::kSessionStart:
      response.mutable_session_started()->set_session_id("s-1");
      return response;
    case Request::kSessionEnd:
      response.mutable_session_ended()->mutable_stats()->set_hits(3);
      return response;
    case Request::kCompile:
      response.mutable_compile_result()->set_exit_code(1);
      response.mutable_compile_result()->set_stderr_data("no such file");
      return response;
    case Request::kCompileEphemeral:
      response.mutable_compile_result()->set_cached(true);
      return response;
    case Request::kLinkEphemeral:
      response.mutable_link_result()->set_warning("slow");
      return response;
    case Request::kClear:
      response.mutable_cleared()->set_artifacts_removed(7);
      return response;
    case Request::kShutdown:
      response.mutable_shutting_down();
      return response;
    default:
      return FakeDaemon::Answering("1.11.22")(request);
  }
}

class DaemonConnectionTest : public testing::TestWithParam<WireLane> {
 protected:
  std::string Path() const { return dir_.Entry("d"); }
  ipc::ScopedRuntimeDir dir_;
};

INSTANTIATE_TEST_SUITE_P(Lanes, DaemonConnectionTest,
                         testing::Values(WireLane::kBincodeV15,
                                         WireLane::kProstV16,
                                         WireLane::kFrameV1),
                         [](const auto& info) {
                           switch (info.param) {
                             case WireLane::kBincodeV15:
                               return "BincodeV15";
                             case WireLane::kProstV16:
                               return "ProstV16";
                             default:
                               return "FrameV1";
                           }
                         });

TEST_P(DaemonConnectionTest, EveryCallGetsItsReply) {
  const FakeDaemon daemon(Path(), Answer);
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_TRUE(connection.Ping(Plenty()).ok());
  const auto status = connection.GetStatus(Plenty());
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "1.11.22");

  zccache::v1::SessionStart start;
  start.set_client_pid(1);
  start.mutable_working_dir()->set_value("/w");
  const auto session = connection.StartSession(start, Plenty());
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->session_id(), "s-1");

  zccache::v1::Compile compile;
  compile.set_session_id("s-1");
  compile.mutable_cwd()->set_value("/w");
  compile.mutable_compiler()->set_value("/usr/bin/gcc");
  const auto failed = connection.Compile(compile, Plenty());
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_EQ(failed->exit_code(), 1);
  EXPECT_EQ(failed->stderr_data(), "no such file");

  zccache::v1::CompileEphemeral ephemeral;
  ephemeral.mutable_working_dir()->set_value("/w");
  ephemeral.mutable_cwd()->set_value("/w");
  ephemeral.mutable_compiler()->set_value("/usr/bin/gcc");
  const auto cached = connection.CompileEphemeral(ephemeral, Plenty());
  ASSERT_TRUE(cached.ok()) << cached.status();
  EXPECT_TRUE(cached->cached());

  zccache::v1::LinkEphemeral link;
  link.mutable_tool()->set_value("/usr/bin/ar");
  link.mutable_cwd()->set_value("/w");
  const auto linked = connection.LinkEphemeral(link, Plenty());
  ASSERT_TRUE(linked.ok()) << linked.status();
  EXPECT_EQ(linked->warning(), "slow");

  const auto ended = connection.EndSession("s-1", Plenty());
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(ended->stats().hits(), 3U);
  const auto cleared = connection.Clear(Plenty());
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->artifacts_removed(), 7U);
  EXPECT_TRUE(connection.Shutdown(Plenty()).ok());

  const std::vector<Request> seen = daemon.requests();
  ASSERT_EQ(seen.size(), 9U);
  EXPECT_EQ(seen[4].compile_ephemeral().compiler().value(), "/usr/bin/gcc");
  if (GetParam() != WireLane::kBincodeV15) {
    EXPECT_EQ(seen[0].request_id(), "control-ping");
    EXPECT_EQ(seen[4].request_id(), "compile-ephemeral");
  }
  EXPECT_EQ(daemon.connections(), 1);
}

TEST_P(DaemonConnectionTest, AnErrorReplyLeavesTheConnectionUsable) {
  const FakeDaemon daemon(Path(), FakeDaemon::Answering("1.11.22"));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  const absl::Status refused = connection.Clear(Plenty()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(), "not served here");
  EXPECT_TRUE(connection.Ping(Plenty()).ok());
}

TEST_P(DaemonConnectionTest, AReplyToSomethingElseIsDataLoss) {
  const FakeDaemon daemon(Path(), [](const Request&) {
    Response response;
    response.mutable_shutting_down();
    return response;
  });
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_EQ(connection.GetStatus(Plenty()).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(connection.Ping(Plenty()).code(), absl::StatusCode::kAborted);
}

TEST_P(DaemonConnectionTest, BackpressureIsResourceExhausted) {
  const FakeDaemon daemon(Path(), [](const Request&) {
    Response response;
    response.mutable_backpressure()->set_reason("queue");
    return response;
  });
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_EQ(connection.Ping(Plenty()).code(),
            absl::StatusCode::kResourceExhausted);
}

// A daemon that reads a request and then does as the script says.
class ScriptedDaemonTest : public DaemonConnectionTest {
 protected:
  using Script = std::function<void(ipc::UniqueFd&)>;
  static ipc::FakeServer::Script AfterOneRequest(const Script& script) {
    return [script](ipc::UniqueFd& fd, int) {
      char byte;
      if (ipc::ReadSome(fd, &byte, 1, Plenty()).ok()) script(fd);
    };
  }
  static std::string Pong(WireLane lane, std::uint64_t frame_id = 1) {
    Response response;
    response.mutable_pong();
    return *ipc::Encode(lane, response, frame_id);
  }
  static void Write(const ipc::UniqueFd& fd, absl::string_view bytes) {
    (void)ipc::WriteAll(fd, bytes, Plenty());
  }
};

INSTANTIATE_TEST_SUITE_P(Lanes, ScriptedDaemonTest,
                         testing::Values(WireLane::kBincodeV15,
                                         WireLane::kProstV16,
                                         WireLane::kFrameV1));

TEST_P(ScriptedDaemonTest, ASplitReplyIsPutTogether) {
  const std::string pong = Pong(GetParam());
  const ipc::FakeServer daemon(Path(), AfterOneRequest([&](ipc::UniqueFd& fd) {
                                 for (const char c : pong) Write(fd, {&c, 1});
                                 ipc::StayMute(fd);
                               }));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  const absl::Status status = connection.Ping(Plenty());
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(ScriptedDaemonTest, AnEndBetweenRepliesIsClean) {
  const ipc::FakeServer daemon(Path(), AfterOneRequest([](ipc::UniqueFd&) {}));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  Request ping;
  ping.mutable_ping();
  ASSERT_TRUE(connection.Send(ping, Plenty()).ok());
  // The unread rest of the request may turn the end into a reset.
  const auto end = connection.Receive(Plenty());
  if (end.ok()) {
    EXPECT_FALSE(end->has_value());
  } else {
    EXPECT_EQ(end.status().code(), absl::StatusCode::kAborted);
  }
}

TEST_P(ScriptedDaemonTest, AnEndWithoutAReplyIsAbortedNeverATimeout) {
  const ipc::FakeServer daemon(Path(), AfterOneRequest([](ipc::UniqueFd&) {}));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_EQ(connection.Ping(Plenty()).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(connection.Ping(Plenty()).code(), absl::StatusCode::kAborted);
}

TEST_P(ScriptedDaemonTest, AnEndWithinAReplyIsDataLoss) {
  const std::string half = Pong(GetParam()).substr(0, 9);
  const ipc::FakeServer daemon(Path(), [&](ipc::UniqueFd& fd, int) {
    Request ping;
    ping.mutable_ping();
    ping.set_request_id("control-ping");
    const std::size_t size = ipc::Encode(GetParam(), ping, 1)->size();
    ASSERT_TRUE(ipc::ReadExactly(fd, size, Plenty()).ok());
    Write(fd, half);
  });
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_EQ(connection.Ping(Plenty()).code(), absl::StatusCode::kDataLoss);
}

TEST_P(ScriptedDaemonTest, SilenceIsATimeout) {
  const ipc::FakeServer daemon(
      Path(), [](ipc::UniqueFd& fd, int) { ipc::StayMute(fd); });
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_EQ(connection.Ping(Deadline::After(absl::Milliseconds(30))).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_P(ScriptedDaemonTest, ATrickleDoesNotExtendTheDeadline) {
  // The header of a reply of 1 MiB, then a byte now and then.
  Response big;
  big.mutable_error()->set_message(std::string(1 << 20, 'x'));
  const std::string reply = *ipc::Encode(GetParam(), big, 1);
  const ipc::FakeServer daemon(
      Path(), AfterOneRequest([&](ipc::UniqueFd& fd) {
        char byte;
        for (const char c : reply) {
          if (!ipc::WriteAll(fd, {&c, 1}, Plenty()).ok()) return;
          // The pace: reads what the client sends, which is soon nothing.
          const auto n = ipc::ReadSome(fd, &byte, 1,
                                       Deadline::After(absl::Milliseconds(2)));
          if (n.ok() && *n == 0) return;
        }
      }));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  const absl::Time start = absl::Now();
  EXPECT_EQ(connection.Ping(Deadline::After(absl::Milliseconds(60))).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST_P(ScriptedDaemonTest, RepliesThatCannotBe) {
  const struct {
    const char* what;
    std::string bytes;
    absl::StatusCode code;
  } kRows[] = {
      {"a length over 16 MiB", std::string("\x01\x00\x00\x01\x0f\0\0\0", 8),
       absl::StatusCode::kDataLoss},
      {"another version", std::string("\x08\0\0\0\x63\0\0\0\0\0\0\0", 12),
       absl::StatusCode::kUnimplemented},
      {"a length without room", std::string("\x02\0\0\0\x0f\0\0\0", 8),
       absl::StatusCode::kDataLoss},
      {"an unknown variant", std::string("\x08\0\0\0\x0f\0\0\0\xff\0\0\0", 12),
       absl::StatusCode::kDataLoss},
  };
  for (const auto& row : kRows) {
    const ipc::FakeServer daemon(Path(), AfterOneRequest([&](auto& fd) {
                                   Write(fd, row.bytes);
                                   ipc::StayMute(fd);
                                 }));
    DaemonConnection connection = ConnectTo(Path(), GetParam());
    EXPECT_EQ(connection.Ping(Plenty()).code(), row.code) << row.what;
    EXPECT_EQ(connection.Ping(Plenty()).code(), absl::StatusCode::kAborted);
  }
}

TEST_P(ScriptedDaemonTest, AReplyMayComeOnAnotherLane) {
  const ipc::FakeServer daemon(Path(), AfterOneRequest([](ipc::UniqueFd& fd) {
                                 Write(fd, Pong(WireLane::kBincodeV15));
                                 ipc::StayMute(fd);
                               }));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_TRUE(connection.Ping(Plenty()).ok());
}

TEST_P(ScriptedDaemonTest, AFrameForAnotherRequestIsRefused) {
  const ipc::FakeServer daemon(Path(), AfterOneRequest([](ipc::UniqueFd& fd) {
                                 Write(fd, Pong(WireLane::kFrameV1, 99));
                                 ipc::StayMute(fd);
                               }));
  DaemonConnection connection = ConnectTo(Path(), GetParam());
  EXPECT_EQ(connection.Ping(Plenty()).code(), absl::StatusCode::kDataLoss);
}

TEST(DaemonConnectionRequestTest, ABadRequestIsNotSent) {
  ipc::ScopedRuntimeDir dir;
  const FakeDaemon daemon(dir.Entry("d"), FakeDaemon::Answering("1.11.22"));
  DaemonConnection connection = ConnectTo(dir.Entry("d"), WireLane::kProstV16);
  EXPECT_EQ(connection.Compile({}, Plenty()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(connection.Ping(Plenty()).ok());
  EXPECT_EQ(daemon.requests().size(), 1U);
}

TEST(DaemonConnectionRequestTest, LanesMayBeMixed) {
  ipc::ScopedRuntimeDir dir;
  const FakeDaemon daemon(dir.Entry("d"), FakeDaemon::Answering("1.11.22"));
  DaemonConnection connection = ConnectTo(dir.Entry("d"), WireLane::kFrameV1);
  for (const WireLane lane :
       {WireLane::kFrameV1, WireLane::kBincodeV15, WireLane::kFrameV1,
        WireLane::kProstV16, WireLane::kFrameV1}) {
    connection.set_lane(lane);
    const absl::Status status = connection.Ping(Plenty());
    EXPECT_TRUE(status.ok()) << ipc::WireLaneName(lane) << status;
  }
}

}  // namespace
}  // namespace zcbroker::client
