// Routes as they come, move and go, for who watches them.
#include <signal.h>

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/zcbroker/v1/admin.grpc.pb.h"
#include "proto/zcbroker/v1/broker.grpc.pb.h"
#include "tests/e2e/broker_fixture.h"

namespace zcbroker::testing {
namespace {

// A call that has been answered at least once.
class Watcher {
 public:
  Watcher(const std::string& socket, const std::string& service)
      : client_(socket) {
    v1::WatchRoutesRequest request;
    request.set_service(service);
    reader_ = client_.broker().WatchRoutes(&context_, request);
  }
  ~Watcher() {
    if (reader_ == nullptr) return;
    context_.TryCancel();
    reader_->Finish();
  }

  bool Next() { return reader_->Read(&response_); }
  const v1::WatchRoutesResponse& response() const { return response_; }
  // Reads until a change of that version comes.
  v1::RouteChange AwaitChange(const std::string& version) {
    while (Next()) {
      for (const v1::RouteChange& change : response_.changes()) {
        if (change.version() == version) return change;
      }
    }
    ADD_FAILURE() << "the stream ended";
    return {};
  }
  grpc::Status Finish() { return std::exchange(reader_, nullptr)->Finish(); }

 private:
  GrpcClient client_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchRoutesResponse>> reader_;
  v1::WatchRoutesResponse response_;
};

class WatchRoutesTest : public BrokerTest {
 protected:
  WatchRoutesTest() {
    home_.Define("demo", ReferenceDefinition("demo", {"1.0.0", "2.0.0"}));
    home_.Define("other", ReferenceDefinition("other", {"1.0.0"}));
    StartBroker();
  }
};

TEST_F(WatchRoutesTest, TheFirstAnswerHasAllThereAre) {
  const GrpcAnswer answer = Client().Negotiate("demo", "1.0.0");
  ASSERT_TRUE(answer.ok());
  Watcher watcher(socket(), "");
  ASSERT_TRUE(watcher.Next());
  ASSERT_EQ(watcher.response().changes_size(), 1);
  const v1::RouteChange& change = watcher.response().changes(0);
  EXPECT_EQ(change.service(), "demo");
  EXPECT_EQ(change.route().SerializeAsString(),
            answer.response.route().SerializeAsString());
}

TEST_F(WatchRoutesTest, WhereThereAreNoneThatIsTold) {
  Watcher watcher(socket(), "");
  ASSERT_TRUE(watcher.Next());
  EXPECT_EQ(watcher.response().changes_size(), 0);
}

TEST_F(WatchRoutesTest, ARouteComesGoesAndComesBack) {
  Watcher watcher(socket(), "demo");
  ASSERT_TRUE(watcher.Next());
  ASSERT_TRUE(Client().Negotiate("other", "1.0.0").ok());
  ASSERT_TRUE(Client().Negotiate("demo", "2.0.0").ok());
  const v1::RouteChange came = watcher.AwaitChange("2.0.0");
  EXPECT_EQ(came.service(), "demo");
  EXPECT_EQ(came.route().generation(), 1u);
  ASSERT_EQ(kill(static_cast<pid_t>(came.route().pid()), SIGKILL), 0);
  EXPECT_FALSE(watcher.AwaitChange("2.0.0").has_route());
  const GrpcAnswer next = Client().Negotiate("demo", "2.0.0");
  ASSERT_TRUE(next.ok());
  const v1::RouteChange back = watcher.AwaitChange("2.0.0");
  EXPECT_EQ(back.route().generation(), 2u);
  EXPECT_EQ(back.route().pid(), next.response.route().pid());
}

TEST_F(WatchRoutesTest, WatchingStartsNothing) {
  Watcher watcher(socket(), "");
  ASSERT_TRUE(watcher.Next());
  EXPECT_EQ(Counter("backends_started"), 0u);
}

TEST_F(WatchRoutesTest, ANameThatIsNoneIsRefused) {
  Watcher watcher(socket(), "No Service");
  EXPECT_FALSE(watcher.Next());
  EXPECT_EQ(ReadAnswer(watcher.Finish(), {}).reason, "SERVICE_NAME_INVALID");
}

TEST_F(WatchRoutesTest, TheBrokersEndIsToldAndTakesNoRouteAway) {
  ASSERT_TRUE(Client().Negotiate("demo", "1.0.0").ok());
  Watcher watcher(socket(), "");
  ASSERT_TRUE(watcher.Next());
  StopBroker();
  EXPECT_FALSE(watcher.Next());
  EXPECT_EQ(ReadAnswer(watcher.Finish(), {}).reason, "SHUTTING_DOWN");
}

TEST_F(WatchRoutesTest, WhoDoesNotReadHoldsNobodyUp) {
  Watcher silent(socket(), "");
  GrpcClient client = Client();
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(client.Negotiate("demo", "1.0.0").ok());
    grpc::ClientContext context;
    v1::StopBackendRequest stop;
    stop.set_service("demo");
    stop.set_version("1.0.0");
    v1::StopBackendResponse stopped;
    ASSERT_TRUE(client.admin().StopBackend(&context, stop, &stopped).ok());
  }
  ExpectServesOthers();
}

}  // namespace
}  // namespace zcbroker::testing
