#include "service/core/route_watch.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "service/core/route_table.h"

namespace zcbroker::service {
namespace {

v1::BackendRoute RouteOf(const std::string& version, uint64_t generation) {
  v1::BackendRoute route;
  route.set_version(version);
  route.set_generation(generation);
  return route;
}

RouteTable TableOf(
    const std::vector<std::pair<std::string, v1::BackendRoute>>& routes) {
  RouteTable table;
  for (const auto& [service, route] : routes) {
    table.Add(service, v1::ENDPOINT_RULE_NONE, route);
  }
  return table;
}

// "+service version generation" for a route that is there, "-service version"
// for one that is not.
std::vector<std::string> Told(const v1::WatchRoutesResponse& response) {
  std::vector<std::string> told;
  for (const v1::RouteChange& change : response.changes()) {
    const std::string name = change.service() + " " + change.version();
    told.push_back(change.has_route()
                       ? "+" + name + " " +
                             std::to_string(change.route().generation())
                       : "-" + name);
  }
  return told;
}

TEST(ChangesSinceTest, TellsWhatCameChangedAndWent) {
  const RouteTable before = TableOf({{"a", RouteOf("1.0.0", 1)},
                                     {"a", RouteOf("2.0.0", 1)},
                                     {"b", RouteOf("1.0.0", 1)}});
  const RouteTable now = TableOf({{"a", RouteOf("1.0.0", 1)},
                                  {"a", RouteOf("2.0.0", 2)},
                                  {"c", RouteOf("1.0.0", 1)}});
  EXPECT_EQ(Told(now.ChangesSince(before, "")),
            (std::vector<std::string>{"-b 1.0.0", "+a 2.0.0 2", "+c 1.0.0 1"}));
  EXPECT_EQ(Told(now.ChangesSince(before, "a")),
            std::vector<std::string>{"+a 2.0.0 2"});
  EXPECT_TRUE(Told(now.ChangesSince(now, "")).empty());
}

class RouteWatchTest : public testing::Test {
 protected:
  void Read(const RouteWatch::Table& seen) {
    watch_.Read(++last_id_, seen, [this](RouteWatch::Table table) {
      ++answers_;
      got_ = std::move(table);
    });
  }

  const RouteWatch::Table first_ = std::make_shared<RouteTable>();
  RouteWatch watch_{first_};
  RouteWatch::ReadId last_id_ = 0;
  int answers_ = 0;
  RouteWatch::Table got_;
};

TEST_F(RouteWatchTest, WhoKnowsNothingIsToldAtOnce) {
  Read(nullptr);
  EXPECT_EQ(answers_, 1);
  EXPECT_EQ(got_, first_);
}

TEST_F(RouteWatchTest, WhoKnowsItAllWaitsForTheNext) {
  Read(first_);
  EXPECT_EQ(answers_, 0);
  const auto next = std::make_shared<RouteTable>();
  watch_.Publish(next);
  EXPECT_EQ(answers_, 1);
  EXPECT_EQ(got_, next);
  watch_.Publish(std::make_shared<RouteTable>());
  EXPECT_EQ(answers_, 1) << "asked once, answered once";
}

TEST_F(RouteWatchTest, WhoIsSlowSkipsWhatWasBetween) {
  watch_.Publish(std::make_shared<RouteTable>());
  const auto latest = std::make_shared<RouteTable>();
  watch_.Publish(latest);
  Read(first_);
  EXPECT_EQ(got_, latest);
}

TEST_F(RouteWatchTest, WhoIsForgottenIsNotTold) {
  Read(first_);
  watch_.Forget(last_id_);
  watch_.Publish(std::make_shared<RouteTable>());
  EXPECT_EQ(answers_, 0);
}

TEST_F(RouteWatchTest, TheEndIsToldToThoseWhoWaitAndThoseWhoCome) {
  Read(first_);
  got_ = first_;
  watch_.End();
  EXPECT_EQ(answers_, 1);
  EXPECT_EQ(got_, nullptr);
  got_ = first_;
  Read(nullptr);
  EXPECT_EQ(answers_, 2);
  EXPECT_EQ(got_, nullptr);
}

}  // namespace
}  // namespace zcbroker::service
