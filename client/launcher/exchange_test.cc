#include "client/launcher/exchange.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/socket.h"
#include "ipc/testing/fake_server.h"
#include "ipc/testing/latch.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/wire/lane_codec.h"

namespace zcbroker::client {
namespace {

using zccache::v1::Request;
using zccache::v1::Response;

constexpr ipc::WireLane kLane = ipc::WireLane::kFrameV1;
constexpr Patience kShort = {absl::Milliseconds(30), absl::Milliseconds(30)};

Request Compile() {
  Request request;
  request.mutable_compile_ephemeral()->mutable_working_dir();
  request.mutable_compile_ephemeral()->mutable_compiler();
  request.mutable_compile_ephemeral()->mutable_cwd();
  return request;
}

std::string ReplyBytes() {
  Response response;
  response.mutable_compile_result()->set_stdout_data(std::string(9000, 'x'));
  return *ipc::Encode(kLane, response, 1);
}

std::string PongBytes() {
  Response response;
  response.mutable_pong();
  return *ipc::Encode(kLane, response, 1);
}

void Write(const ipc::UniqueFd& fd, const std::string& bytes) {
  (void)ipc::WriteAll(fd, bytes, ipc::Deadline::After(absl::Seconds(10)));
}

void ReadRequest(const ipc::UniqueFd& fd) {
  char buffer[4096];
  (void)ipc::ReadSome(fd, buffer, sizeof(buffer),
                      ipc::Deadline::After(absl::Seconds(10)));
}

class ExchangeTest : public testing::Test {
 protected:
  // The first connection is the compile's, all others are pings.
  void Serve(ipc::FakeServer::Script script) {
    server_ =
        std::make_unique<ipc::FakeServer>(dir_.Entry("d"), std::move(script));
  }

  absl::StatusOr<Response> Ask(const IsGone& is_gone,
                               const Request& request = Compile()) {
    const ipc::Endpoint endpoint = *ipc::Endpoint::Parse(server_->path());
    const ipc::UniqueFd fd =
        *ipc::Connect(endpoint, ipc::Deadline::After(absl::Seconds(10)));
    return Exchange(fd, endpoint, kLane, request, is_gone, kShort);
  }

  ipc::ScopedRuntimeDir dir_;
  // Before the server: its threads may still wait at it when a test ends.
  ipc::Latch latch_;
  std::unique_ptr<ipc::FakeServer> server_;
};

bool Never() {
  ADD_FAILURE() << "nobody should have asked";
  return false;
}

TEST_F(ExchangeTest, ReadsAReplyThatComesInPieces) {
  Serve([](ipc::UniqueFd& fd, int) {
    ReadRequest(fd);
    const std::string bytes = ReplyBytes();
    Write(fd, bytes.substr(0, 3));
    Write(fd, bytes.substr(3, 5000));
    Write(fd, bytes.substr(5003));
  });
  const auto reply = Ask(Never);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->compile_result().stdout_data().size(), 9000U);
}

TEST_F(ExchangeTest, WaitsAsLongAsPingsAreAnswered) {
  Serve([&](ipc::UniqueFd& fd, int index) {
    ReadRequest(fd);
    if (index > 0) {
      Write(fd, PongBytes());
      if (index == 3) latch_.Open();
      return;
    }
    EXPECT_TRUE(latch_.Wait());
    Write(fd, ReplyBytes());
  });
  EXPECT_TRUE(Ask([] { return false; }).ok());
  EXPECT_GE(server_->connections(), 4);
}

TEST_F(ExchangeTest, BusyIsNotGone) {
  Serve([&](ipc::UniqueFd& fd, int index) {
    if (index > 0) {
      ipc::StayMute(fd);
      return;
    }
    ReadRequest(fd);
    EXPECT_TRUE(latch_.Wait());
    Write(fd, ReplyBytes());
  });
  int questions = 0;
  EXPECT_TRUE(Ask([&] {
                if (++questions == 2) latch_.Open();
                return false;
              }).ok());
  EXPECT_GE(questions, 2);
}

TEST_F(ExchangeTest, GoneIsUnavailable) {
  Serve([](ipc::UniqueFd& fd, int) { ipc::StayMute(fd); });
  EXPECT_EQ(Ask([] { return true; }).status().code(),
            absl::StatusCode::kUnavailable);
}

// More than a socket holds, so that writing it ends only with a reader.
Request LargeCompile() {
  Request request = Compile();
  request.mutable_compile_ephemeral()->add_args(std::string(4 << 20, 'x'));
  return request;
}

TEST_F(ExchangeTest, GoneWhileItIsWrittenToIsUnavailable) {
  Serve([&](ipc::UniqueFd&, int) { EXPECT_TRUE(latch_.Wait()); });
  EXPECT_EQ(Ask([] { return true; }, LargeCompile()).status().code(),
            absl::StatusCode::kUnavailable);
  latch_.Open();
}

TEST_F(ExchangeTest, WritesOnWhenItIsReadAgain) {
  Serve([&](ipc::UniqueFd& fd, int index) {
    EXPECT_TRUE(latch_.Wait());
    if (index > 0) return;
    const ipc::Deadline deadline = ipc::Deadline::After(absl::Seconds(10));
    EXPECT_TRUE(ipc::ReadExactly(fd, 4 << 20, deadline).ok());
    Write(fd, ReplyBytes());
  });
  EXPECT_TRUE(Ask(
                  [&] {
                    latch_.Open();
                    return false;
                  },
                  LargeCompile())
                  .ok());
}

TEST_F(ExchangeTest, AnEndWithoutAReplyIsAborted) {
  Serve([](ipc::UniqueFd& fd, int) {
    ReadRequest(fd);
    Write(fd, ReplyBytes().substr(0, 100));
    fd.reset();
  });
  EXPECT_EQ(Ask(Never).status().code(), absl::StatusCode::kAborted);
}

TEST_F(ExchangeTest, NonsenseIsDataLoss) {
  Serve([](ipc::UniqueFd& fd, int) {
    ReadRequest(fd);
    Write(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
  });
  EXPECT_EQ(Ask(Never).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace zcbroker::client
