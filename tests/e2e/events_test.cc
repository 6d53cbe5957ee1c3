// What the broker notes of what happens, and who reads it.
#include <signal.h>

#include <algorithm>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ipc/testing/wait_for.h"
#include "proto/zcbroker/v1/admin.grpc.pb.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class EventsTest : public BrokerTest {
 protected:
  EventsTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
    home_.Define("failing",
                 PlainDefinition("failing", home_.Script("failing", "exit 3")));
  }

  std::vector<v1::Event> All(uint64_t after = 0) {
    return client_->Events(after);
  }
  std::vector<v1::EventKind> KindsOf(const std::string& service) {
    std::vector<v1::EventKind> kinds;
    for (const v1::Event& event : All()) {
      if (event.service() == service) kinds.push_back(event.kind());
    }
    return kinds;
  }
  void Start() {
    StartBroker();
    client_ = std::make_unique<GrpcClient>(socket());
  }

  std::unique_ptr<GrpcClient> client_;
};

TEST_F(EventsTest, TheLifeOfABackendIsTold) {
  Start();
  const GrpcAnswer answer = client_->Negotiate("demo", "1.0.0");
  ASSERT_TRUE(answer.ok());
  ASSERT_EQ(kill(static_cast<pid_t>(answer.response.route().pid()), SIGKILL),
            0);
  ASSERT_TRUE(ipc::WaitFor([&] { return Counter("backends_ended") == 1; },
                           "its end", kPatience));
  const std::vector<v1::Event> events = All();
  ASSERT_GE(events.size(), 5u);
  EXPECT_EQ(events[0].kind(), v1::EVENT_KIND_BROKER_STARTED);
  EXPECT_EQ(events[1].kind(), v1::EVENT_KIND_DEFINITIONS_CHANGED);
  EXPECT_THAT(events[1].text(), HasSubstr("demo (1.0.0)"));
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].sequence(), i + 1);
    EXPECT_GT(events[i].time().seconds(), 0);
  }
  EXPECT_THAT(KindsOf("demo"), ElementsAre(v1::EVENT_KIND_BACKEND_STARTING,
                                           v1::EVENT_KIND_BACKEND_READY,
                                           v1::EVENT_KIND_BACKEND_ENDED));
  const v1::Event& ready = events[3];
  EXPECT_EQ(ready.pid(), answer.response.route().pid());
  EXPECT_EQ(ready.origin(), v1::ROUTE_ORIGIN_STARTED);
  EXPECT_EQ(ready.steps_size(), answer.response.steps_size());
  EXPECT_EQ(events[4].pid(), answer.response.route().pid());
  EXPECT_THAT(events[4].text(), HasSubstr("signal 9"));
  EXPECT_THAT(All(events.back().sequence()), IsEmpty());
}

TEST_F(EventsTest, WhoAsksWhatRunsMakesNoEvents) {
  Start();
  v1::NegotiateRequest request = RequestFor("demo", "1.0.0");
  request.set_start_policy(v1::START_POLICY_ONLY_IF_RUNNING);
  ASSERT_FALSE(client_->Negotiate(request).ok());
  EXPECT_THAT(KindsOf("demo"), IsEmpty());
}

TEST_F(EventsTest, ADrainedBackendIsToldWithItsReason) {
  Start();
  ASSERT_TRUE(client_->Negotiate("demo", "1.0.0").ok());
  grpc::ClientContext context;
  v1::DrainBackendRequest request;
  request.set_service("demo");
  request.set_version("1.0.0");
  v1::DrainBackendResponse response;
  ASSERT_TRUE(client_->admin().DrainBackend(&context, request, &response).ok());
  EXPECT_THAT(KindsOf("demo"), ElementsAre(v1::EVENT_KIND_BACKEND_STARTING,
                                           v1::EVENT_KIND_BACKEND_READY,
                                           v1::EVENT_KIND_BACKEND_DRAINING,
                                           v1::EVENT_KIND_BACKEND_ENDED));
  EXPECT_THAT(All()[4].text(), Not(IsEmpty()));
}

TEST_F(EventsTest, AFailedStartAndItsRefusalAreTold) {
  Start();
  const GrpcAnswer answer = client_->Negotiate("failing", "1.0.0");
  ASSERT_FALSE(answer.ok());
  EXPECT_THAT(
      KindsOf("failing"),
      ElementsAre(v1::EVENT_KIND_BACKEND_STARTING,
                  v1::EVENT_KIND_BACKEND_START_FAILED, v1::EVENT_KIND_REFUSED));
  const v1::Event refused = All().back();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_BACKEND_START_FAILED);
  EXPECT_EQ(refused.text(), answer.status.error_message());
}

// What a peer sends cannot write into somebody's terminal.
TEST_F(EventsTest, WhatAPeerSentIsEscaped) {
  Start();
  ASSERT_FALSE(client_->Negotiate("\x1b[31mred", "1.0.0").ok());
  const v1::Event refused = All().back();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_SERVICE_NAME_INVALID);
  for (const std::string& text : {refused.service(), refused.text()}) {
    EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) {
      return c >= ' ' && c < 0x7f;
    })) << text;
  }
}

TEST_F(EventsTest, WhoFollowsSeesEachAsItHappensAndTheEnd) {
  Start();
  grpc::ClientContext context;
  v1::StreamEventsRequest request;
  request.set_follow(true);
  GrpcClient follower(socket());
  const auto reader = follower.admin().StreamEvents(&context, request);
  std::vector<v1::EventKind> seen;
  v1::StreamEventsResponse response;
  // What was there already; definitions may be read meanwhile.
  while (seen.empty() || seen.back() != v1::EVENT_KIND_DEFINITIONS_CHANGED) {
    ASSERT_TRUE(reader->Read(&response));
    for (const v1::Event& event : response.events()) {
      seen.push_back(event.kind());
    }
  }
  ASSERT_TRUE(client_->Negotiate("demo", "1.0.0").ok());
  while (seen.back() != v1::EVENT_KIND_BACKEND_READY) {
    ASSERT_TRUE(reader->Read(&response));
    for (const v1::Event& event : response.events()) {
      seen.push_back(event.kind());
    }
  }
  auto rest = std::async(std::launch::async, [&] {
    while (reader->Read(&response)) {
      for (const v1::Event& event : response.events()) {
        seen.push_back(event.kind());
      }
    }
    return reader->Finish();
  });
  StopBroker();
  const grpc::Status status = rest.get();
  EXPECT_EQ(ReadAnswer(status, {}).reason, "SHUTTING_DOWN")
      << status.error_message();
  EXPECT_EQ(seen.back(), v1::EVENT_KIND_BROKER_STOPPING);
}

// A follower that reads nothing costs nobody anything, its broker's end
// included.
TEST_F(EventsTest, WhoFollowsAndDoesNotReadHoldsNobodyUp) {
  Start();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::StreamEventsResponse>>>
      readers;
  GrpcClient follower(socket());
  for (int i = 0; i < 10; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    v1::StreamEventsRequest request;
    request.set_follow(true);
    readers.push_back(
        follower.admin().StreamEvents(contexts.back().get(), request));
  }
  for (int i = 0; i < 6000; ++i) {
    ASSERT_FALSE(client_->Negotiate("nobody", "1.0.0").ok());
  }
  const std::vector<v1::Event> kept = All();
  EXPECT_EQ(kept.size(), 4096u);
  EXPECT_GT(kept.front().sequence(), 1u);
  StopBroker();
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& reader : readers) reader->Finish();
}

TEST_F(EventsTest, AFollowerThatLeavesIsForgotten) {
  Start();
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    v1::StreamEventsRequest request;
    request.set_follow(true);
    const auto reader = client_->admin().StreamEvents(&context, request);
    v1::StreamEventsResponse response;
    ASSERT_TRUE(reader->Read(&response));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(client_->Negotiate("demo", "1.0.0").ok());
}

}  // namespace
}  // namespace zcbroker::testing
