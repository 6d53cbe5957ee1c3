#include "service/core/machine.h"

#include <chrono>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/zcbroker/v1/refusals.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

v1::World OurWorld() {
  v1::World world;
  world.set_cache_root("/home/u/.zccache");
  world.set_daemon_namespace("default");
  world.set_mount_namespace("mnt:[1]");
  return world;
}

Catalog MakeCatalog(const std::vector<std::string>& versions = {"1.11.22"}) {
  Catalog catalog;
  CatalogService& service = catalog.services["zccache"];
  service.definition.set_name("zccache");
  service.definition.set_endpoint_rule(v1::ENDPOINT_RULE_ZCCACHE);
  service.source = "built-in";
  for (const std::string& version : versions) {
    service.versions.push_back({version,
                                absl::StrCat("/opt/zccache-", version),
                                absl::StrCat("id-", version),
                                {v1::WIRE_LANE_FRAME_V1}});
  }
  return catalog;
}

v1::NegotiateRequest Want(const std::string& version = "1.11.22") {
  v1::NegotiateRequest request;
  request.set_service("zccache");
  request.set_wanted_version(version);
  return request;
}

StartedBackend Started(const std::string& endpoint = "/run/b.sock") {
  StartedBackend backend;
  backend.endpoint = endpoint;
  backend.pid = 42;
  backend.start_time = 7;
  backend.boot_id = "boot";
  return backend;
}

class MachineTest : public ::testing::Test {
 protected:
  explicit MachineTest(Limits limits = {})
      : machine_(limits, OurWorld(), &counters_, /*seed=*/1) {}

  void Load(Catalog catalog = MakeCatalog()) {
    machine_.CatalogLoaded(std::move(catalog), /*forgive=*/false, now_,
                           &effects_);
  }

  NegotiationId Ask(const v1::NegotiateRequest& request,
                    absl::optional<Time> deadline = absl::nullopt) {
    machine_.Negotiate(++last_id_, request, deadline, now_, &effects_);
    return last_id_;
  }

  template <typename T>
  std::vector<T> Take() {
    std::vector<T> taken;
    Effects kept;
    for (Effect& effect : effects_) {
      if (auto* found = std::get_if<T>(&effect)) {
        taken.push_back(std::move(*found));
      } else {
        kept.push_back(std::move(effect));
      }
    }
    effects_ = std::move(kept);
    return taken;
  }

  StartId OnlyStart() {
    const auto starts = Take<StartBackend>();
    EXPECT_THAT(starts, SizeIs(1));
    return starts.empty() ? 0 : starts.front().plan.id;
  }

  // The refusal of the one answer there is; REFUSAL_UNSPECIFIED for a route.
  Refused OnlyRefusal() {
    const auto answers = Take<Answer>();
    EXPECT_THAT(answers, SizeIs(1));
    if (answers.empty()) return {};
    const auto* refused = std::get_if<Refused>(&answers.front().outcome);
    return refused != nullptr ? *refused : Refused{};
  }

  void FailOnce() {
    Ask(Want());
    machine_.StartFailed(OnlyStart(), {"exited with status 3", {"boom"}, "/l"},
                         now_, &effects_);
    Take<Answer>();
  }

  Counters counters_;
  Machine machine_;
  Time now_ = Time() + seconds(1000);
  Effects effects_;
  NegotiationId last_id_ = 0;
};

struct RefusalCase {
  const char* name;
  const char* service;
  const char* version;
  void (*change)(v1::NegotiateRequest*, Catalog*);
  v1::Refusal refusal;
  const char* says;
};

class RefusalTest : public MachineTest,
                    public ::testing::WithParamInterface<RefusalCase> {};

TEST_P(RefusalTest, IsNamedAndCounted) {
  const RefusalCase& row = GetParam();
  v1::NegotiateRequest request;
  request.set_service(row.service);
  request.set_wanted_version(row.version);
  Catalog catalog = MakeCatalog({"1.15.8", "1.11.22"});
  if (row.change != nullptr) row.change(&request, &catalog);
  Load(std::move(catalog));
  Take<RoutesChanged>();
  Ask(request);
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), row.refusal) << refused.text;
  EXPECT_THAT(refused.text, HasSubstr(row.says));
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  EXPECT_EQ(
      counters_
          .Snapshot()[absl::StrCat("refused.", TraitsOf(row.refusal).name)],
      1);
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusalTest,
    ::testing::Values(
        RefusalCase{"EmptyName", "", "1.11.22", nullptr,
                    v1::REFUSAL_SERVICE_NAME_INVALID, "service name"},
        RefusalCase{"UpperCaseName", "Zccache", "1.11.22", nullptr,
                    v1::REFUSAL_SERVICE_NAME_INVALID, "a-z"},
        RefusalCase{"BadVersion", "zccache", "1.11", nullptr,
                    v1::REFUSAL_VERSION_INVALID, "1.11"},
        RefusalCase{"UnknownService", "fbuild", "1.11.22", nullptr,
                    v1::REFUSAL_SERVICE_UNKNOWN, "zcbroker service add fbuild"},
        RefusalCase{"VersionNobodyHas", "zccache", "9.9.9", nullptr,
                    v1::REFUSAL_VERSION_NOT_INSTALLED,
                    "installed: 1.15.8, 1.11.22"},
        RefusalCase{"BlockedVersion", "zccache", "1.11.22",
                    [](v1::NegotiateRequest*, Catalog* catalog) {
                      catalog->services["zccache"].allowed_versions = {
                          "1.15.8"};
                    },
                    v1::REFUSAL_VERSION_BLOCKED, "allows only 1.15.8"},
        RefusalCase{"OtherCache", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_cache_root("/other");
                    },
                    v1::REFUSAL_WORLD_MISMATCH,
                    "cache directory: yours is /other"},
        RefusalCase{"OtherNamespace", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_daemon_namespace("ci");
                    },
                    v1::REFUSAL_WORLD_MISMATCH, "daemon namespace"},
        RefusalCase{"OtherMounts", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_mount_namespace("mnt:[2]");
                    },
                    v1::REFUSAL_WORLD_MISMATCH, "mount namespace"},
        RefusalCase{"NoCommonLane", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->add_accepted_lanes(v1::WIRE_LANE_BINCODE_V15);
                    },
                    v1::REFUSAL_LANE_UNSUPPORTED, "WIRE_LANE_FRAME_V1"},
        RefusalCase{"NothingRunsAndNothingMayStart", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->set_start_policy(
                          v1::START_POLICY_ONLY_IF_RUNNING);
                    },
                    v1::REFUSAL_BACKEND_START_FAILED, "none is running"}),
    [](const auto& info) { return info.param.name; });

TEST_F(MachineTest, TheOrderOfChecksIsTheDocumentedOne) {
  // Everything is wrong with it; the first check speaks.
  Load();
  v1::NegotiateRequest request;
  request.set_service("NO");
  request.set_wanted_version("x");
  request.mutable_world()->set_cache_root("/other");
  Ask(request);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SERVICE_NAME_INVALID);
  request.set_service("nobody");
  Ask(request);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_VERSION_INVALID);
  request.set_wanted_version("9.9.9");
  Ask(request);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SERVICE_UNKNOWN);
  request.set_service("zccache");
  Ask(request);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_VERSION_NOT_INSTALLED);
  request.set_wanted_version("1.11.22");
  Ask(request);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_WORLD_MISMATCH);
}

TEST_F(MachineTest, ManyCallersShareOneStart) {
  Load();
  for (int i = 0; i < 24; ++i) Ask(Want());
  const StartId start = OnlyStart();
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  machine_.StartSucceeded(start, Started(), now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(24));
  std::set<NegotiationId> ids;
  for (size_t i = 0; i < answers.size(); ++i) {
    ids.insert(answers[i].id);
    const auto& response = std::get<v1::NegotiateResponse>(answers[i].outcome);
    EXPECT_EQ(response.origin(),
              i == 0 ? v1::ROUTE_ORIGIN_STARTED : v1::ROUTE_ORIGIN_JOINED);
    EXPECT_EQ(response.route().endpoint(), "/run/b.sock");
    EXPECT_EQ(response.route().version(), "1.11.22");
    EXPECT_EQ(response.route().generation(), 1);
  }
  EXPECT_THAT(ids, SizeIs(24));
  EXPECT_THAT(Take<RoutesChanged>(), SizeIs(2));
  // And the next is answered at once, here and from the snapshot.
  Ask(Want());
  EXPECT_EQ(std::get<v1::NegotiateResponse>(Take<Answer>()[0].outcome).origin(),
            v1::ROUTE_ORIGIN_REUSED);
  EXPECT_TRUE(machine_.Routes().Find(Want()).has_value());
}

TEST_F(MachineTest, AnAdoptedBackendIsCalledSo) {
  Load();
  Ask(Want());
  StartedBackend backend = Started();
  backend.adopted = true;
  machine_.StartSucceeded(OnlyStart(), backend, now_, &effects_);
  EXPECT_EQ(std::get<v1::NegotiateResponse>(Take<Answer>()[0].outcome).origin(),
            v1::ROUTE_ORIGIN_ADOPTED);
  EXPECT_EQ(counters_.Snapshot()["backends_adopted"], 1);
}

TEST_F(MachineTest, TheSnapshotAnswersOnlyWhatTheRulesWouldAllow) {
  Load();
  Ask(Want());
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  const RouteTable routes = machine_.Routes();
  EXPECT_TRUE(routes.KnowsService("zccache"));
  EXPECT_FALSE(routes.KnowsService("fbuild"));
  EXPECT_TRUE(routes.Find(Want()).has_value());
  EXPECT_FALSE(routes.Find(Want("1.15.8")).has_value());
  v1::NegotiateRequest other_world = Want();
  other_world.mutable_world()->set_cache_root("/other");
  EXPECT_FALSE(routes.Find(other_world).has_value());
  v1::NegotiateRequest other_lane = Want();
  other_lane.add_accepted_lanes(v1::WIRE_LANE_PROST_V16);
  EXPECT_FALSE(routes.Find(other_lane).has_value());
  other_lane.add_accepted_lanes(v1::WIRE_LANE_FRAME_V1);
  EXPECT_TRUE(routes.Find(other_lane).has_value());
}

TEST_F(MachineTest, AFailedStartAnswersAllWaitersWithItsEvidence) {
  Load();
  Ask(Want());
  Ask(Want());
  machine_.StartFailed(OnlyStart(),
                       {"exited with status 3 before it was ready",
                        {"cannot open cache"},
                        "/log"},
                       now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(2));
  for (const Answer& answer : answers) {
    const auto& refused = std::get<Refused>(answer.outcome);
    EXPECT_EQ(refused.refusal(), v1::REFUSAL_BACKEND_START_FAILED);
    EXPECT_THAT(refused.text, HasSubstr("exited with status 3"));
    EXPECT_THAT(refused.detail.evidence(), ElementsAre("cannot open cache"));
    EXPECT_GE(refused.detail.retry_after_ms(), 100);
    EXPECT_LE(refused.detail.retry_after_ms(), 120);
  }
}

TEST_F(MachineTest, NothingIsStartedDuringBackoffAndSomethingAfterIt) {
  Load();
  FailOnce();
  Ask(Want());
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_BACKEND_START_FAILED);
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  now_ += milliseconds(refused.detail.retry_after_ms() + 1);
  Ask(Want());
  EXPECT_NE(OnlyStart(), 0);
}

TEST_F(MachineTest, BackoffDoubles) {
  Load();
  uint64_t last = 0;
  for (int i = 0; i < 4; ++i) {
    Ask(Want());
    machine_.StartFailed(OnlyStart(), {"no", {}, ""}, now_, &effects_);
    const Refused refused = OnlyRefusal();
    const uint64_t delay = refused.detail.retry_after_ms();
    EXPECT_GE(delay, static_cast<uint64_t>(100 << i));
    EXPECT_LE(delay, static_cast<uint64_t>(120 << i));
    EXPECT_GT(delay, last);
    last = delay;
    now_ += milliseconds(delay + 1);
  }
}

TEST_F(MachineTest, FiveFailuresWithinAMinuteAreBroken) {
  Load();
  for (int i = 0; i < 5; ++i) {
    FailOnce();
    now_ += seconds(3);
  }
  Load();  // as fresh as can be: nothing is looked up again
  Take<Answer>();
  Ask(Want());
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_BACKEND_BROKEN);
  EXPECT_THAT(refused.text, HasSubstr("5 times within a minute"));
  EXPECT_THAT(refused.detail.evidence(), ElementsAre("boom"));
  now_ += seconds(3600);
  Load();
  Ask(Want());
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_BACKEND_BROKEN);
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
}

TEST_F(MachineTest, WhoAsksForAReadingForgivesWhatIsBroken) {
  Load();
  for (int i = 0; i < 5; ++i) {
    FailOnce();
    now_ += seconds(3);
  }
  machine_.CatalogLoaded(MakeCatalog(), /*forgive=*/true, now_, &effects_);
  Ask(Want());
  EXPECT_NE(OnlyStart(), 0);
}

TEST_F(MachineTest, WhatIsNotTheBinarysFaultNeverBreaksIt) {
  Load();
  for (int i = 0; i < 20; ++i) {
    Ask(Want());
    StartFailure failure{"a mute process is there", {}, "", true};
    machine_.StartFailed(OnlyStart(), failure, now_, &effects_);
    EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_BACKEND_START_FAILED);
    now_ += seconds(1);
  }
}

TEST_F(MachineTest, FourFailuresOrFiveSlowOnesAreNot) {
  Load();
  for (int i = 0; i < 9; ++i) {
    FailOnce();
    now_ += seconds(16);
  }
  Ask(Want());
  EXPECT_NE(OnlyStart(), 0);
}

class HealingTest : public MachineTest,
                    public ::testing::WithParamInterface<bool> {};

TEST_P(HealingTest, AChangeIsANewChanceForWhatWasBroken) {
  Load();
  for (int i = 0; i < 5; ++i) {
    FailOnce();
    now_ += seconds(3);
  }
  Catalog catalog = MakeCatalog();
  if (GetParam()) {
    catalog.services["zccache"].versions[0].binary_identity = "rebuilt";
  } else {
    catalog.services["zccache"].definition.add_args("--other");
  }
  Load(std::move(catalog));
  Ask(Want());
  EXPECT_NE(OnlyStart(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, HealingTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Binary" : "Definition";
                         });

TEST_F(MachineTest, AMissingVersionIsLookedForOnceMoreBeforeSayingNo) {
  Load();
  now_ += seconds(2);
  Ask(Want("1.15.8"));
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  EXPECT_THAT(Take<RefreshCatalog>(), SizeIs(1));
  Load(MakeCatalog({"1.15.8", "1.11.22"}));
  EXPECT_NE(OnlyStart(), 0);
}

TEST_F(MachineTest, SoIsAnUnknownService) {
  Load(Catalog());
  now_ += seconds(2);
  Ask(Want());
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  EXPECT_THAT(Take<RefreshCatalog>(), SizeIs(1));
  Load();
  EXPECT_NE(OnlyStart(), 0);
}

TEST_F(MachineTest, AFreshCatalogIsNotReadAgainForEveryMissingVersion) {
  Load();
  Take<RefreshCatalog>();
  for (int i = 0; i < 100; ++i) Ask(Want("9.9.9"));
  EXPECT_THAT(Take<RefreshCatalog>(), IsEmpty());
  EXPECT_THAT(Take<Answer>(), SizeIs(100));
}

TEST_F(MachineTest, CallersWaitForTheFirstCatalog) {
  Ask(Want());
  Ask(Want("9.9.9"));
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  EXPECT_THAT(Take<RefreshCatalog>(), SizeIs(1));
  Load();
  EXPECT_NE(OnlyStart(), 0);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_VERSION_NOT_INSTALLED);
}

TEST_F(MachineTest, ADeathIsNoticedAndTheNextCallerStartsAnother) {
  Load();
  Ask(Want());
  const StartId first = OnlyStart();
  machine_.StartSucceeded(first, Started(), now_, &effects_);
  Take<RoutesChanged>();
  machine_.BackendGone(first, {"process 42 was ended by signal 9"}, now_,
                       &effects_);
  EXPECT_THAT(Take<RoutesChanged>(), SizeIs(1));
  EXPECT_FALSE(machine_.Routes().Find(Want()).has_value());
  const auto backends = machine_.ListBackends(now_, absl::Now());
  ASSERT_EQ(backends.backends_size(), 1);
  EXPECT_EQ(backends.backends(0).state(), v1::BACKEND_STATE_GONE);
  EXPECT_THAT(backends.backends(0).evidence(0), HasSubstr("signal 9"));
  Take<Answer>();
  Ask(Want());
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  EXPECT_EQ(std::get<v1::NegotiateResponse>(Take<Answer>()[0].outcome)
                .route()
                .generation(),
            2);
}

TEST_F(MachineTest, WhoAsksWhileABackendEndsWaitsForTheNextOne) {
  Load();
  Ask(Want());
  const StartId first = OnlyStart();
  machine_.StartSucceeded(first, Started(), now_, &effects_);
  Take<Answer>();
  machine_.BackendEnding(first, now_, &effects_);
  EXPECT_FALSE(machine_.Routes().Find(Want()).has_value());
  Ask(Want());
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  // A cache has one writer: not before the last of the old group is gone.
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  machine_.BackendGone(first, {"gone"}, now_, &effects_);
  machine_.StartSucceeded(OnlyStart(), Started("/run/c.sock"), now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(
      std::get<v1::NegotiateResponse>(answers[0].outcome).route().endpoint(),
      "/run/c.sock");
}

TEST_F(MachineTest, ACallerIsAnsweredBeforeItsDeadlineAndTheStartGoesOn) {
  Load();
  Ask(Want(), now_ + seconds(2));
  const StartId start = OnlyStart();
  ASSERT_TRUE(machine_.NextDeadline().has_value());
  EXPECT_EQ(*machine_.NextDeadline(), now_ + milliseconds(1750));
  now_ += milliseconds(1749);
  machine_.Tick(now_, &effects_);
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  now_ += milliseconds(1);
  machine_.Tick(now_, &effects_);
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_BACKEND_START_FAILED);
  EXPECT_THAT(refused.text, HasSubstr("still starting"));
  machine_.StartSucceeded(start, Started(), now_, &effects_);
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  EXPECT_TRUE(machine_.Routes().Find(Want()).has_value());
}

TEST_F(MachineTest, NobodyWaitsLongerThanTenSeconds) {
  Load();
  Ask(Want());
  EXPECT_EQ(*machine_.NextDeadline(), now_ + seconds(10));
  Ask(Want(), now_ + seconds(60));
  EXPECT_EQ(*machine_.NextDeadline(), now_ + seconds(10));
}

TEST_F(MachineTest, ACallerThatGivesUpIsNotAnswered) {
  Load();
  const NegotiationId id = Ask(Want());
  machine_.Cancel(id);
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  EXPECT_FALSE(machine_.NextDeadline().has_value());
}

TEST_F(MachineTest, ShutdownRefusesWaitersAndLaterCallersAndLeavesBackends) {
  Load(MakeCatalog({"1.15.8", "1.11.22"}));
  Ask(Want());
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  Take<Answer>();
  Ask(Want("1.15.8"));
  machine_.Shutdown(/*stop_backends=*/false, now_, &effects_);
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_SHUTTING_DOWN);
  EXPECT_GT(refused.detail.retry_after_ms(), 0);
  EXPECT_THAT(Take<StopBackend>(), IsEmpty());
  Ask(Want());
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SHUTTING_DOWN);
  EXPECT_FALSE(machine_.Routes().Find(Want()).has_value());
}

TEST_F(MachineTest, ShutdownCanStopWhatRunsAndWhatStarts) {
  Load(MakeCatalog({"1.15.8", "1.11.22"}));
  Ask(Want());
  const StartId ready = OnlyStart();
  machine_.StartSucceeded(ready, Started(), now_, &effects_);
  Ask(Want("1.15.8"));
  const StartId starting = OnlyStart();
  machine_.Shutdown(/*stop_backends=*/true, now_, &effects_);
  std::set<StartId> stopped;
  for (const StopBackend& stop : Take<StopBackend>()) stopped.insert(stop.id);
  EXPECT_EQ(stopped, (std::set<StartId>{ready, starting}));
}

class MachineLimitTest : public MachineTest {
 protected:
  static Limits Small() {
    Limits limits;
    limits.waiters_per_start = 3;
    limits.concurrent_starts = 2;
    return limits;
  }
  MachineLimitTest() : MachineTest(Small()) {}
};

TEST_F(MachineLimitTest, WaitersPerStart) {
  Load();
  for (int i = 0; i < 3; ++i) Ask(Want());
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  Ask(Want());
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_RATE_LIMITED);
  EXPECT_THAT(refused.text, HasSubstr("waiters per starting backend"));
  EXPECT_GT(refused.detail.retry_after_ms(), 0);
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  EXPECT_THAT(Take<Answer>(), SizeIs(3));
}

TEST_F(MachineLimitTest, ConcurrentStarts) {
  Load(MakeCatalog({"3.0.0", "2.0.0", "1.0.0"}));
  Ask(Want("1.0.0"));
  Ask(Want("2.0.0"));
  EXPECT_THAT(Take<StartBackend>(), SizeIs(2));
  Ask(Want("3.0.0"));
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_RATE_LIMITED);
  EXPECT_THAT(refused.text, HasSubstr("concurrent starts"));
}

// Seeded histories of everything that can happen, in any order; after every
// step what must always hold is checked.
class MachineHistoryTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(MachineHistoryTest, KeepsItsInvariants) {
  std::mt19937_64 random(GetParam());
  const auto pick = [&](uint64_t n) { return random() % n; };
  Counters counters;
  Machine machine(Limits(), OurWorld(), &counters, GetParam());
  Time now = Time() + seconds(1000);
  NegotiationId last = 0;
  std::map<NegotiationId, Time> unanswered;
  std::set<NegotiationId> cancelled;
  // What runs behind each version: start id, and whether it was proven.
  std::map<StartId, std::pair<std::string, bool>> running;
  std::set<StartId> ending;
  bool down = false;
  for (int step = 0; step < 400; ++step) {
    Effects effects;
    now += milliseconds(pick(4) == 0 ? pick(2000) : pick(20));
    switch (pick(9)) {
      case 0:
      case 1:
      case 2: {
        v1::NegotiateRequest request =
            Want(absl::StrCat("1.0.", pick(3), pick(20) == 0 ? "x" : ""));
        if (pick(10) == 0) request.mutable_world()->set_cache_root("/x");
        const Time deadline = now + milliseconds(pick(5000));
        unanswered[++last] = deadline;
        machine.Negotiate(last, request, deadline, now, &effects);
        break;
      }
      case 3:
        if (!unanswered.empty() && pick(4) == 0) {
          const NegotiationId id = unanswered.begin()->first;
          machine.Cancel(id);
          unanswered.erase(id);
          cancelled.insert(id);
        }
        break;
      case 4:
        machine.CatalogLoaded(MakeCatalog({"1.0.2", "1.0.1", "1.0.0"}),
                              pick(4) == 0, now, &effects);
        break;
      case 5:
      case 6:
      case 7: {
        if (running.empty()) break;
        auto it = running.begin();
        std::advance(it, static_cast<int64_t>(pick(running.size())));
        const StartId id = it->first;
        if (it->second.second) {
          if (pick(3) != 0) break;
          if (pick(2) == 0) {
            // Its process is gone, its group is not: no route to it any more.
            machine.BackendEnding(id, now, &effects);
            ending.insert(id);
            break;
          }
          running.erase(it);
          machine.BackendGone(id, {"gone"}, now, &effects);
        } else if (pick(3) == 0) {
          running.erase(it);
          machine.StartFailed(id, {"failed", {}, ""}, now, &effects);
        } else {
          it->second.second = true;
          machine.StartSucceeded(
              id, Started(absl::StrCat("/run/", id, ".sock")), now, &effects);
        }
        break;
      }
      default:
        if (step > 380 && pick(4) == 0) {
          down = true;
          machine.Shutdown(pick(2) == 0, now, &effects);
        }
        break;
    }
    machine.Tick(now, &effects);
    for (const Effect& effect : effects) {
      if (const auto* start = std::get_if<StartBackend>(&effect)) {
        for (const auto& [id, what] : running) {
          ASSERT_NE(what.first, start->plan.version.version)
              << "two backends behind one key, step " << step;
        }
        ASSERT_FALSE(down) << "started while shutting down, step " << step;
        running[start->plan.id] = {start->plan.version.version, false};
      } else if (const auto* answer = std::get_if<Answer>(&effect)) {
        ASSERT_EQ(cancelled.count(answer->id), 0) << "step " << step;
        ASSERT_EQ(unanswered.erase(answer->id), 1)
            << "answered twice or never asked, step " << step;
        const auto* route =
            std::get_if<v1::NegotiateResponse>(&answer->outcome);
        if (route != nullptr) {
          bool alive = false;
          for (const auto& [id, what] : running) {
            alive |=
                what.second && ending.count(id) == 0 &&
                absl::StrCat("/run/", id, ".sock") == route->route().endpoint();
          }
          ASSERT_TRUE(alive) << "a route to nowhere, step " << step;
        }
      } else if (const auto* stop = std::get_if<StopBackend>(&effect)) {
        ASSERT_EQ(running.count(stop->id), 1) << "step " << step;
      }
    }
    for (const auto& [id, deadline] : unanswered) {
      ASSERT_GE(deadline, now) << "not answered in time, step " << step;
    }
    for (int v = 0; v < 3; ++v) {
      const auto found = machine.Routes().Find(Want(absl::StrCat("1.0.", v)));
      if (!found.has_value()) continue;
      bool alive = false;
      for (const auto& [id, what] : running) {
        alive |=
            what.second && ending.count(id) == 0 &&
            absl::StrCat("/run/", id, ".sock") == found->route().endpoint();
      }
      ASSERT_TRUE(alive) << "published a route to nowhere, step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MachineHistoryTest,
                         ::testing::Range<uint64_t>(1, 201));

}  // namespace
}  // namespace zcbroker::service
