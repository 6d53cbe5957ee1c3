// A caller's place in a distributed trace reaches events and backends.
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/zcbroker/v1/admin.grpc.pb.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kTraceparent[] =
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
constexpr char kAnother[] =
    "00-1bf7651916cd43dd8448eb211c80319c-a7ad6b7169203331-00";

class TraceContextTest : public BrokerTest {
 protected:
  TraceContextTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0"}));
    home_.Define("failing",
                 PlainDefinition("failing", home_.Script("failing", "exit 3")));
    StartBroker();
  }

  // With the metadata `traceparent`, where not empty.
  GrpcAnswer Negotiate(const v1::NegotiateRequest& request,
                       const std::string& traceparent) {
    GrpcClient client = Client();
    grpc::ClientContext context;
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    v1::NegotiateResponse response;
    const grpc::Status status =
        client.broker().Negotiate(&context, request, &response);
    return ReadAnswer(status, response);
  }
  // Of the events about a service, in order.
  std::vector<std::string> TracesOf(const std::string& service) {
    std::vector<std::string> traces;
    for (const v1::Event& event : Client().Events()) {
      if (event.service() == service) traces.push_back(event.traceparent());
    }
    return traces;
  }
  static std::vector<std::string> EnvironmentOf(uint32_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/environ");
    std::vector<std::string> variables;
    std::string variable;
    while (std::getline(file, variable, '\0')) variables.push_back(variable);
    return variables;
  }
};

TEST_F(TraceContextTest, ByMetadataItReachesEventsAndTheBackendItStarted) {
  const GrpcAnswer answer =
      Negotiate(RequestFor("demo", "1.0.0"), kTraceparent);
  ASSERT_TRUE(answer.ok());
  EXPECT_THAT(TracesOf("demo"), ElementsAre(kTraceparent, kTraceparent));
  EXPECT_THAT(EnvironmentOf(answer.response.route().pid()),
              Contains(std::string("TRACEPARENT=") + kTraceparent));
}

TEST_F(TraceContextTest, TheRequestsOwnFieldCountsMore) {
  v1::NegotiateRequest request = RequestFor("demo", "1.0.0");
  request.set_traceparent(kAnother);
  ASSERT_TRUE(Negotiate(request, kTraceparent).ok());
  EXPECT_THAT(TracesOf("demo"), ElementsAre(kAnother, kAnother));
}

TEST_F(TraceContextTest, ARefusalAndAFailedStartHaveIt) {
  ASSERT_FALSE(Negotiate(RequestFor("failing", "1.0.0"), kTraceparent).ok());
  EXPECT_THAT(TracesOf("failing"),
              ElementsAre(kTraceparent, kTraceparent, kTraceparent));
}

// What a client sends there is an environment variable of the backend's.
TEST_F(TraceContextTest, AMalformedOneIsTakenForNone) {
  v1::NegotiateRequest request = RequestFor("demo", "1.0.0");
  request.set_traceparent(std::string(kTraceparent) + "\nLD_PRELOAD=/evil.so");
  const GrpcAnswer answer = Negotiate(request, "");
  ASSERT_TRUE(answer.ok());
  EXPECT_THAT(TracesOf("demo"), ElementsAre("", ""));
  const std::vector<std::string> environment =
      EnvironmentOf(answer.response.route().pid());
  EXPECT_THAT(environment, Contains(StartsWith("PATH=")));
  EXPECT_THAT(environment, Not(Contains(StartsWith("TRACEPARENT"))));
  EXPECT_THAT(environment, Not(Contains(StartsWith("LD_PRELOAD"))));
}

// The command line passes on what it was given, as any client of ours.
TEST_F(TraceContextTest, OursTellTheirOwn) {
  Environment environment = home_.environment();
  environment["TRACEPARENT"] = kTraceparent;
  const Finished route =
      RunToEnd({CommandLineProgram(), "route", "demo", "1.0.0"}, environment,
               home_.Entry("work"));
  ASSERT_EQ(route.status, 0) << route.err;
  EXPECT_THAT(TracesOf("demo"), ElementsAre(kTraceparent, kTraceparent));
}

}  // namespace
}  // namespace zcbroker::testing
