// Starts the real zcb-reference-backend (its path is the first argument) and
// speaks to it over every lane.
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/socket.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/testing/wait_for.h"
#include "ipc/unique_fd.h"
#include "ipc/wire/lane_choice.h"
#include "ipc/wire/lane_codec.h"
#include "ipc/wire_lane.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::client {
namespace {

using ipc::Deadline;
using ipc::Endpoint;
using ipc::UniqueFd;
using ipc::WaitFor;
using ipc::WireLane;
using zccache::v1::Request;
using zccache::v1::Response;

std::string* binary_path = nullptr;

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

// A started program; ended with the object.
class Process {
 public:
  explicit Process(std::vector<std::string> argv, int stdout_fd = -1) {
    std::vector<char*> pointers;
    for (std::string& arg : argv) pointers.push_back(arg.data());
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (stdout_fd >= 0) {
      posix_spawn_file_actions_adddup2(&actions, stdout_fd, STDOUT_FILENO);
    }
    const int error = posix_spawn(&pid_, argv[0].c_str(), &actions, nullptr,
                                  pointers.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    EXPECT_EQ(error, 0) << argv[0];
    if (error != 0) pid_ = -1;
  }
  ~Process() {
    if (pid_ > 0 && !reaped_) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }

  // Waits for it to exit; its exit status, -1 if a signal ended it, -2 if it
  // does not end.
  int ExitStatus() {
    int status = 0;
    const bool ended = WaitFor(
        [&] {
          if (!reaped_) reaped_ = waitpid(pid_, &status, WNOHANG) == pid_;
          return reaped_;
        },
        "the backend to exit", absl::Seconds(20));
    if (!ended) return -2;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
  bool reaped_ = false;
};

class Connection {
 public:
  explicit Connection(const std::string& endpoint) {
    auto fd = ipc::Connect(Endpoint::Parse(endpoint).value(), Soon());
    EXPECT_TRUE(fd.ok()) << fd.status();
    if (fd.ok()) fd_ = *std::move(fd);
  }

  void Send(absl::string_view bytes) {
    EXPECT_TRUE(ipc::WriteAll(fd_, bytes, Soon()).ok());
  }

  // The next reply and the lane it came on.
  ipc::Decoded<Response> Receive() {
    for (;;) {
      auto decoded = ipc::DecodeResponse(buffer_);
      if (decoded.result != ipc::DecodeResult::kNeedMore) {
        buffer_.erase(0, decoded.consumed_bytes);
        return decoded;
      }
      if (!ReadMore()) return decoded;
    }
  }

  Response Call(WireLane lane, Request request, uint64_t frame_id = 1) {
    const absl::string_view id = ipc::CanonicalRequestId(request);
    request.set_request_id(std::string(id));
    Send(ipc::Encode(lane, request, frame_id).value());
    const auto reply = Receive();
    EXPECT_EQ(reply.result, ipc::DecodeResult::kMessage) << reply.error;
    EXPECT_EQ(reply.lane, lane);
    if (lane != WireLane::kBincodeV15) {
      EXPECT_EQ(reply.message.request_id(), id);
    }
    if (lane == WireLane::kFrameV1) {
      EXPECT_EQ(reply.frame_request_id, frame_id);
    }
    return reply.message;
  }

  // Everything up to the end of the stream.
  std::string ReadToEnd() {
    while (ReadMore()) {
    }
    return std::move(buffer_);
  }

 private:
  bool ReadMore() {
    char chunk[4096];
    const auto got = ipc::ReadSome(fd_, chunk, sizeof(chunk), Soon());
    EXPECT_TRUE(got.ok()) << got.status();
    if (!got.ok() || *got == 0) return false;
    buffer_.append(chunk, *got);
    return true;
  }

  UniqueFd fd_;
  std::string buffer_;
};

class ReferenceBackendTest : public ::testing::Test {
 protected:
  void Start(std::initializer_list<std::string> more = {}) {
    process_ = Spawn(more);
    ASSERT_TRUE(WaitFor([&] { return Answers(); }, "the backend to listen"));
  }

  std::unique_ptr<Process> Spawn(std::initializer_list<std::string> more) {
    std::vector<std::string> argv = {*binary_path, "--foreground", "--endpoint",
                                     endpoint_,    "--log-file",   log_};
    argv.insert(argv.end(), more);
    return std::make_unique<Process>(argv);
  }

  bool Answers() {
    return ipc::Connect(Endpoint::Parse(endpoint_).value(), Soon()).ok();
  }

  bool Exists(const std::string& path) {
    return access(path.c_str(), F_OK) == 0;
  }

  std::string Read(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  // `sh -c script`, in the test's directory, with our environment.
  Request Shell(const std::string& script) {
    Request request;
    auto* compile = request.mutable_compile_ephemeral();
    compile->set_client_pid(getpid());
    compile->mutable_working_dir()->set_value(dir_.path());
    compile->mutable_cwd()->set_value(dir_.path());
    compile->mutable_compiler()->set_value("/bin/sh");
    compile->add_args("-c");
    compile->add_args(script);
    return request;
  }

  ipc::ScopedRuntimeDir dir_;
  const std::string endpoint_ = dir_.Entry("b.sock");
  const std::string log_ = dir_.Entry("log");
  std::unique_ptr<Process> process_;
};

class ReferenceBackendLaneTest
    : public ReferenceBackendTest,
      public ::testing::WithParamInterface<WireLane> {};

INSTANTIATE_TEST_SUITE_P(EveryLane, ReferenceBackendLaneTest,
                         ::testing::Values(WireLane::kBincodeV15,
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

TEST_P(ReferenceBackendLaneTest, AnswersControlRequests) {
  Start({"--report-version", "1.2.3"});
  Connection connection(endpoint_);
  Request ping, status, clear, lookup;
  ping.mutable_ping();
  status.mutable_status();
  clear.mutable_clear();
  lookup.mutable_lookup();
  EXPECT_TRUE(connection.Call(GetParam(), ping, 7).has_pong());
  const Response answer = connection.Call(GetParam(), status, 8);
  EXPECT_EQ(answer.status().version(), "1.2.3");
  EXPECT_EQ(answer.status().endpoint(), endpoint_);
  EXPECT_TRUE(connection.Call(GetParam(), clear).has_cleared());
  EXPECT_TRUE(connection.Call(GetParam(), lookup).has_error());
}

TEST_P(ReferenceBackendLaneTest, CompilesInASession) {
  Start();
  Write(dir_.Entry("good.c"), "int f(void) { return 1; }\n");
  Write(dir_.Entry("bad.c"), "int f(void) { return undeclared; }\n");
  Connection connection(endpoint_);
  Request start;
  start.mutable_session_start()->mutable_working_dir()->set_value(dir_.path());
  start.mutable_session_start()->set_track_stats(true);
  const std::string session =
      connection.Call(GetParam(), start).session_started().session_id();
  EXPECT_EQ(session.size(), 36u);

  Request compile;
  auto* body = compile.mutable_compile();
  body->set_session_id(session);
  body->mutable_cwd()->set_value(dir_.path());
  body->mutable_compiler()->set_value("gcc");  // found on PATH
  for (const char* arg : {"-c", "good.c", "-o", "good.o"}) body->add_args(arg);
  const Response good = connection.Call(GetParam(), compile);
  EXPECT_TRUE(good.has_compile_result()) << good.error().message();
  EXPECT_EQ(good.compile_result().exit_code(), 0);
  EXPECT_FALSE(good.compile_result().cached());
  EXPECT_TRUE(Exists(dir_.Entry("good.o")));

  body->set_args(1, "bad.c");
  const Response bad = connection.Call(GetParam(), compile);
  EXPECT_EQ(bad.compile_result().exit_code(), 1);
  EXPECT_TRUE(
      absl::StrContains(bad.compile_result().stderr_data(), "undeclared"));

  Request stats, end;
  stats.mutable_session_stats()->set_session_id(session);
  end.mutable_session_end()->set_session_id(session);
  const Response counted = connection.Call(GetParam(), stats);
  EXPECT_EQ(counted.session_stats_result().stats().compilations(), 2u);
  EXPECT_EQ(counted.session_stats_result().stats().errors(), 1u);
  EXPECT_EQ(
      connection.Call(GetParam(), end).session_ended().stats().compilations(),
      2u);
  EXPECT_TRUE(connection.Call(GetParam(), stats).has_error());
  EXPECT_FALSE(connection.Call(GetParam(), end).session_ended().has_stats());

  body->set_session_id("no-uuid");
  EXPECT_EQ(connection.Call(GetParam(), compile).error().message(),
            "invalid session ID: no-uuid");
}

TEST_P(ReferenceBackendLaneTest, LinksWithoutASession) {
  Start();
  Request request;
  auto* link = request.mutable_link_ephemeral();
  link->mutable_tool()->set_value("/bin/sh");
  link->mutable_cwd()->set_value(dir_.path());
  link->add_args("-c");
  link->add_args("printf linked; printf noise >&2; exit 3");
  const Response answer = Connection(endpoint_).Call(GetParam(), request);
  EXPECT_EQ(answer.link_result().exit_code(), 3);
  EXPECT_EQ(answer.link_result().stdout_data(), "linked");
  EXPECT_EQ(answer.link_result().stderr_data(), "noise");
  EXPECT_FALSE(answer.link_result().has_warning());
}

TEST_P(ReferenceBackendLaneTest, ShutdownIsAnsweredThenDone) {
  Start();
  Connection idle(endpoint_);
  Request shutdown;
  shutdown.mutable_shutdown();
  Connection connection(endpoint_);
  EXPECT_TRUE(connection.Call(GetParam(), shutdown).has_shutting_down());
  EXPECT_EQ(connection.ReadToEnd(), "");
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_EQ(process_->ExitStatus(), 0);
  EXPECT_FALSE(Exists(endpoint_));
}

TEST_F(ReferenceBackendTest, ToolSeesWhatTheRequestSays) {
  Start();
  Connection connection(endpoint_);
  const auto output = [&](const Request& request) {
    return connection.Call(WireLane::kFrameV1, request)
        .compile_result()
        .stdout_data();
  };
  EXPECT_EQ(output(Shell("pwd")), dir_.path() + "\n");
  EXPECT_EQ(output(Shell("cat")), "");

  Request with_stdin = Shell("cat");
  with_stdin.mutable_compile_ephemeral()->set_stdin_data("int x;");
  EXPECT_EQ(output(with_stdin), "int x;");

  // Inherited, set and empty are three different environments.
  const std::string show = "echo \"${ZCB_TEST-none} ${HOME-none} $MAKEFLAGS\"";
  const char* const home = getenv("HOME");
  EXPECT_EQ(output(Shell(show)),
            absl::StrCat("none ", home == nullptr ? "none" : home, " \n"));
  Request with_env = Shell(show);
  with_env.mutable_compile_ephemeral()->set_env_is_set(true);
  EXPECT_EQ(output(with_env), "none none \n");
  for (const char* name : {"ZCB_TEST", "MAKEFLAGS"}) {
    auto* variable = with_env.mutable_compile_ephemeral()->add_env();
    variable->set_name(name);
    variable->set_value("set");
  }
  EXPECT_EQ(output(with_env), "set none \n");

  const Response killed =
      connection.Call(WireLane::kFrameV1, Shell("kill -9 $$"));
  EXPECT_EQ(killed.compile_result().exit_code(), -1);

  Request no_tool = Shell("");
  no_tool.mutable_compile_ephemeral()->mutable_compiler()->set_value(
      "zcb-no-such-compiler");
  const Response failed = connection.Call(WireLane::kFrameV1, no_tool);
  EXPECT_TRUE(absl::StartsWith(failed.error().message(),
                               "failed to run compiler: run "
                               "zcb-no-such-compiler in "))
      << failed.error().message();
}

TEST_F(ReferenceBackendTest, AnswersTheIdentityProbeAndCloses) {
  Start({"--namespace", "ns"});
  ipc::ProbeNonce nonce;
  std::fill(nonce.begin(), nonce.end(), 0x5a);
  Connection connection(endpoint_);
  connection.Send(ipc::EncodeProbeRequest(nonce));
  const std::string reply = connection.ReadToEnd();
  ASSERT_GT(reply.size(), ipc::kFrameHeaderBytes);
  const auto process = ipc::ParseProbeReply(
      ipc::DecodeFrame(absl::string_view(reply).substr(ipc::kFrameHeaderBytes))
          .value(),
      nonce);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(process->pid(), static_cast<uint32_t>(process_->pid()));
  EXPECT_EQ(process->ipc_endpoint().namespace_id(), "ns");
  EXPECT_EQ(process->ipc_endpoint().path(), endpoint_);
  EXPECT_TRUE(absl::EndsWith(process->exe_path(), "/zcb-reference-backend"));
  EXPECT_EQ(process->exe_hash_algorithm(), "blake3");
  EXPECT_EQ(process->exe_hash().size(), 32u);
}

TEST_F(ReferenceBackendTest, BadBytesAreAnsweredAsUpstreamDoes) {
  Start();
  // An unknown version: the mismatch text on bincode, then the end.
  Connection newer(endpoint_);
  newer.Send(absl::string_view("\x08\0\0\0\x12\0\0\0\0\0\0\0", 12));
  EXPECT_EQ(newer.ReadToEnd(), ipc::MismatchAnswer("1.0.0", 18));

  // Missing content: an error on the same lane, and the connection lives.
  Request ping;
  ping.mutable_ping();
  Connection careless(endpoint_);
  careless.Send(absl::string_view("\x04\0\0\0\x10\0\0\0", 8));
  EXPECT_EQ(careless.Receive().message.error().message(),
            "v16 prost request is missing its request body");
  EXPECT_TRUE(careless.Call(WireLane::kProstV16, ping).has_pong());

  // What cannot be understood is not answered.
  for (const absl::string_view bytes :
       {absl::string_view("\x03\0\0\0\x0f\0\0\0", 8),
        absl::string_view("\x08\0\0\0\x0f\0\0\0\xff\0\0\0", 12),
        absl::string_view("\x01\x04\0\0\0\x08\x01\x28\x01", 9)}) {
    Connection connection(endpoint_);
    connection.Send(bytes);
    EXPECT_EQ(connection.ReadToEnd(), "");
  }
  EXPECT_TRUE(Connection(endpoint_).Call(WireLane::kFrameV1, ping).has_pong());
}

TEST_F(ReferenceBackendTest, SigtermLetsACompileFinish) {
  Start();
  const std::string started = dir_.Entry("started");
  const std::string go = dir_.Entry("go");
  ASSERT_EQ(mkfifo(go.c_str(), 0600), 0);
  Connection connection(endpoint_);
  connection.Send(ipc::Encode(WireLane::kBincodeV15,
                              Shell(": > started; read line < go; echo $line"),
                              0)
                      .value());
  ASSERT_TRUE(WaitFor([&] { return Exists(started); }, "the tool to start"));
  kill(process_->pid(), SIGTERM);
  Write(go, "finished\n");  // blocks until the tool reads
  EXPECT_EQ(connection.Receive().message.compile_result().stdout_data(),
            "finished\n");
  EXPECT_EQ(process_->ExitStatus(), 0);
  EXPECT_FALSE(Exists(endpoint_));
  EXPECT_TRUE(absl::StrContains(Read(log_), "serving " + endpoint_));
  EXPECT_TRUE(absl::StrContains(Read(log_), "stopped: signal"));
}

TEST_F(ReferenceBackendTest, SocketOfASuccessorIsLeftAlone) {
  Start();
  Process* const first = process_.get();
  ASSERT_EQ(rename(endpoint_.c_str(), dir_.Entry("old.sock").c_str()), 0);
  const std::unique_ptr<Process> successor = Spawn({});
  ASSERT_TRUE(WaitFor([&] { return Answers(); }, "the successor to listen"));
  kill(first->pid(), SIGTERM);
  EXPECT_EQ(first->ExitStatus(), 0);
  EXPECT_TRUE(Answers());
}

TEST_F(ReferenceBackendTest, SecondOneLeavesThePlaceToTheFirst) {
  Start();
  EXPECT_EQ(Spawn({})->ExitStatus(), 0);
  EXPECT_TRUE(absl::StrContains(Read(log_), "somebody serves"));
  EXPECT_TRUE(Answers());
}

TEST_F(ReferenceBackendTest, StaleSocketIsReplaced) {
  Start();
  kill(process_->pid(), SIGKILL);
  EXPECT_EQ(process_->ExitStatus(), -1);
  EXPECT_TRUE(Exists(endpoint_));
  Start();
}

TEST_F(ReferenceBackendTest, StopsWhenIdle) {
  Start({"--idle-timeout-secs", "1"});
  EXPECT_EQ(process_->ExitStatus(), 0);
  EXPECT_TRUE(absl::StrContains(Read(log_), "stopped: idle"));
}

TEST_F(ReferenceBackendTest, KnobsForTests) {
  EXPECT_EQ(Spawn({"--exit-at-once", "7"})->ExitStatus(), 7);

  Start({"--start-delay-ms", "20"});
  EXPECT_TRUE(absl::StrContains(Read(log_), "waiting before it binds"));
  kill(process_->pid(), SIGTERM);
  EXPECT_EQ(process_->ExitStatus(), 0);

  Write(log_, "");
  const std::unique_ptr<Process> mute = Spawn({"--never-listen"});
  ASSERT_TRUE(WaitFor([&] { return !Read(log_).empty(); }, "its log line"));
  EXPECT_FALSE(Exists(endpoint_));
  kill(mute->pid(), SIGTERM);
  EXPECT_EQ(mute->ExitStatus(), 0);
}

TEST_F(ReferenceBackendTest, CommandLine) {
  const std::string out = dir_.Entry("out");
  const auto run = [&](std::vector<std::string> args) {
    args.insert(args.begin(), *binary_path);
    std::FILE* file = std::fopen(out.c_str(), "w");
    const int status = Process(args, fileno(file)).ExitStatus();
    std::fclose(file);
    return status;
  };
  EXPECT_EQ(run({"--version"}), 0);
  EXPECT_EQ(Read(out), "zcb-reference-backend 1.0.0\n");
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_TRUE(absl::StrContains(Read(out), "--never-listen"));
  EXPECT_EQ(run({}), 2);
  EXPECT_EQ(run({"--endpoint", endpoint_, "--no-such-flag"}), 2);
  EXPECT_EQ(run({"--endpoint", "relative.sock"}), 1);
  EXPECT_EQ(run({"--endpoint", dir_.Entry("no/such/dir.sock")}), 1);
}

}  // namespace
}  // namespace zcbroker::client

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s zcb-reference-backend\n", argv[0]);
    return 2;
  }
  // execve wants a path that works from any directory.
  char* absolute = realpath(argv[1], nullptr);
  zcbroker::client::binary_path = new std::string(absolute ? absolute : "");
  free(absolute);
  return RUN_ALL_TESTS();
}
