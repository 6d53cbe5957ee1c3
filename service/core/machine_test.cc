#include "service/core/machine.h"

#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/zcbroker/v1/refusals.h"
#include "service/core/outcome.h"

namespace zcbroker::service {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
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

// --- A policy that is none

class NoStartsTest : public MachineTest {
 protected:
  NoStartsTest() {
    catalog_ = MakeCatalog({"1.15.8", "1.11.22"});
    catalog_.versions.no_starts = "/etc/p:1:2: nonsense";
  }

  // As the host does where nothing runs.
  Refused AskInVain(const std::string& version = "1.11.22") {
    Ask(Want(version));
    const auto starts = Take<StartBackend>();
    EXPECT_THAT(starts, SizeIs(1));
    if (starts.empty()) return {};
    EXPECT_EQ(starts[0].plan.only_adopt, "/etc/p:1:2: nonsense");
    StartFailure failure;
    failure.text = starts[0].plan.only_adopt;
    failure.forbidden = true;
    machine_.StartFailed(starts[0].plan.id, failure, now_, &effects_);
    return OnlyRefusal();
  }

  Catalog catalog_;
};

TEST_F(NoStartsTest, NothingNewIsStarted) {
  Load(catalog_);
  // However often: it is no failure of the backend.
  for (int i = 0; i < 6; ++i) {
    const Refused refused = AskInVain();
    EXPECT_EQ(refused.refusal(), v1::REFUSAL_VERSION_BLOCKED);
    EXPECT_EQ(refused.text, "/etc/p:1:2: nonsense");
  }
  EXPECT_EQ(counters_.Snapshot().count("start_failures"), 0u);
  catalog_.versions.no_starts.clear();
  Load(catalog_);
  Ask(Want());
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_EQ(starts[0].plan.only_adopt, "");
}

TEST_F(NoStartsTest, WhatRunsIsAdopted) {
  Load(catalog_);
  Ask(Want());
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_TRUE(
      std::holds_alternative<v1::NegotiateResponse>(answers[0].outcome));
}

TEST_F(NoStartsTest, WhatRunsIsRoutedTo) {
  Load(MakeCatalog({"1.15.8", "1.11.22"}));
  Ask(Want());
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  Take<Answer>();
  Load(catalog_);
  Take<WithdrawBackend>();
  Ask(Want());
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_TRUE(
      std::holds_alternative<v1::NegotiateResponse>(answers[0].outcome));
  EXPECT_THAT(Take<StopBackend>(), IsEmpty());
}

// --- Limits that a policy lowers, at n-1, n and n+1

TEST_F(MachineTest, PolicyLowersTheStartsAtOnce) {
  Catalog catalog = MakeCatalog({"1.3.0", "1.2.0", "1.1.0"});
  catalog.versions.concurrent_starts = 2;
  Load(catalog);
  Ask(Want("1.1.0"));
  Ask(Want("1.2.0"));
  EXPECT_THAT(Take<StartBackend>(), SizeIs(2));
  Ask(Want("1.3.0"));
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_RATE_LIMITED);
}

TEST_F(MachineTest, PolicyRaisesNoLimit) {
  Catalog catalog = MakeCatalog({"1.5.0", "1.4.0", "1.3.0", "1.2.0", "1.1.0"});
  catalog.versions.concurrent_starts = 100;
  Load(catalog);
  for (int i = 1; i <= 5; ++i) Ask(Want(absl::StrCat("1.", i, ".0")));
  EXPECT_THAT(Take<StartBackend>(), SizeIs(4));
}

TEST_F(MachineTest, PolicyLowersTheWaitersOfAStart) {
  Catalog catalog = MakeCatalog();
  catalog.versions.waiters_per_start = 2;
  Load(catalog);
  Ask(Want());
  Ask(Want());
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  Ask(Want());
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_RATE_LIMITED);
}

class ReportTest : public MachineTest {
 protected:
  ReportTest() {
    Load();
    Ask(Want());
    start_ = OnlyStart();
    StartedBackend backend = Started("/run/one.sock");
    backend.pid = 42;
    backend.start_time = 4242;
    machine_.StartSucceeded(start_, backend, now_, &effects_);
    effects_.clear();
  }

  void Report(uint32_t pid = 42, absl::optional<Time> deadline = {}) {
    v1::ReportBackendRequest report;
    report.set_service(Want().service());
    report.set_version(Want().wanted_version());
    report.set_pid(pid);
    report.set_start_time(4242);
    machine_.Report(++last_report_, report, deadline, now_, &effects_);
  }

  // The verdicts given since the last call, by report.
  std::vector<std::pair<ReportId, v1::BackendVerdict>> Verdicts() {
    std::vector<std::pair<ReportId, v1::BackendVerdict>> verdicts;
    for (AnswerReport& answer : Take<AnswerReport>()) {
      verdicts.emplace_back(
          answer.id,
          std::get<v1::ReportBackendResponse>(answer.outcome).verdict());
    }
    return verdicts;
  }

  v1::BackendState State() {
    return machine_.ListBackends(now_, absl::UnixEpoch()).backends(0).state();
  }

  StartId start_ = 0;
  ReportId last_report_ = 0;
};

TEST_F(ReportTest, OneLookAnswersAllWhoReported) {
  Report();
  Report();
  EXPECT_THAT(Take<ExamineBackend>(), SizeIs(1));
  EXPECT_EQ(State(), v1::BACKEND_STATE_SUSPECT);
  EXPECT_TRUE(machine_.Routes().Find(Want()).has_value())
      << "busy is not wedged";
  EXPECT_THAT(Verdicts(), IsEmpty());
  machine_.Examined(start_, {"it answers"}, now_, &effects_);
  EXPECT_THAT(Verdicts(), ElementsAre(Pair(1, v1::BACKEND_VERDICT_BUSY),
                                      Pair(2, v1::BACKEND_VERDICT_BUSY)));
  EXPECT_EQ(State(), v1::BACKEND_STATE_READY);
  Report();
  EXPECT_THAT(Take<ExamineBackend>(), SizeIs(1)) << "a new report, a new look";
}

TEST_F(ReportTest, AWedgedOneIsWithdrawnAtOnceAndGoneWhenItsGroupIs) {
  Report();
  machine_.BackendEnding(start_, {"process 42 is stopped"}, now_, &effects_);
  EXPECT_EQ(State(), v1::BACKEND_STATE_WEDGED);
  EXPECT_FALSE(machine_.Routes().Find(Want()).has_value());
  Report();
  EXPECT_THAT(Verdicts(), IsEmpty()) << "its group may still write";
  machine_.BackendGone(start_, {"ended by signal 9"}, now_, &effects_);
  EXPECT_THAT(Verdicts(), ElementsAre(Pair(1, v1::BACKEND_VERDICT_GONE),
                                      Pair(2, v1::BACKEND_VERDICT_GONE)));
  EXPECT_EQ(counters_.Snapshot().at("backends_wedged"), 1u);
  const auto backends = machine_.ListBackends(now_, absl::UnixEpoch());
  EXPECT_THAT(backends.backends(0).evidence(),
              ElementsAre("process 42 is stopped", "ended by signal 9"));
}

TEST_F(ReportTest, OneThatHasEndedIsGoneAndAStrangerUnknown) {
  machine_.BackendGone(start_, {}, now_, &effects_);
  Report();
  Report(/*pid=*/43);
  EXPECT_THAT(Verdicts(), ElementsAre(Pair(1, v1::BACKEND_VERDICT_GONE),
                                      Pair(2, v1::BACKEND_VERDICT_UNKNOWN)));
  EXPECT_THAT(Take<ExamineBackend>(), IsEmpty());
}

TEST_F(ReportTest, TheSuccessorIsNotTheOneReported) {
  machine_.BackendGone(start_, {}, now_, &effects_);
  Ask(Want());
  StartedBackend next = Started("/run/two.sock");
  next.pid = 50;
  machine_.StartSucceeded(OnlyStart(), next, now_, &effects_);
  Report();
  EXPECT_THAT(Verdicts(), ElementsAre(Pair(1, v1::BACKEND_VERDICT_GONE)));
  EXPECT_THAT(Take<ExamineBackend>(), IsEmpty());
}

TEST_F(ReportTest, IsBusyByTheCallersDeadline) {
  Report(42, now_ + seconds(2));
  ASSERT_TRUE(machine_.NextDeadline().has_value());
  now_ += milliseconds(1749);
  machine_.Tick(now_, &effects_);
  EXPECT_THAT(Verdicts(), IsEmpty());
  now_ += milliseconds(1);
  machine_.Tick(now_, &effects_);
  EXPECT_THAT(Verdicts(), ElementsAre(Pair(1, v1::BACKEND_VERDICT_BUSY)));
  machine_.Examined(start_, {}, now_, &effects_);
  EXPECT_THAT(Verdicts(), IsEmpty()) << "answered twice";
}

TEST_F(ReportTest, RefusesNamesOutsideTheirGrammar) {
  v1::ReportBackendRequest report;
  report.set_service("No Such");
  report.set_version("1.0.0");
  machine_.Report(1, report, {}, now_, &effects_);
  report.set_service("zccache");
  report.set_version("newest");
  machine_.Report(2, report, {}, now_, &effects_);
  const auto answers = Take<AnswerReport>();
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_EQ(std::get<Refused>(answers[0].outcome).refusal(),
            v1::REFUSAL_SERVICE_NAME_INVALID);
  EXPECT_EQ(std::get<Refused>(answers[1].outcome).refusal(),
            v1::REFUSAL_VERSION_INVALID);
}

TEST_F(MachineTest, TheNewestVersionThatSpeaksALaneIsChosen) {
  Load(MakeCatalog({"1.0.2", "1.0.1"}));
  v1::NegotiateRequest request = Want("");
  machine_.NegotiateNewest(++last_id_, request, {}, now_, &effects_);
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_EQ(starts[0].plan.version.version, "1.0.2");
  // Nothing else may leave the version out.
  Ask(request);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_VERSION_INVALID);
  request.set_service("nobody");
  machine_.NegotiateNewest(++last_id_, request, {}, now_, &effects_);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SERVICE_UNKNOWN);
}

TEST_F(MachineTest, NoVersionThatSpeaksALaneIsARefusal) {
  Catalog catalog = MakeCatalog({"1.0.2"});
  catalog.services.begin()->second.versions[0].lanes = {v1::WIRE_LANE_FRAME_V1};
  Load(std::move(catalog));
  v1::NegotiateRequest request = Want("");
  request.add_accepted_lanes(v1::WIRE_LANE_BINCODE_V15);
  machine_.NegotiateNewest(++last_id_, request, {}, now_, &effects_);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_LANE_UNSUPPORTED);
}

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
  // What the caller wanted to hear is no fault.
  const bool wanted =
      request.start_policy() == v1::START_POLICY_ONLY_IF_RUNNING;
  EXPECT_EQ(refused.wanted, wanted);
  EXPECT_EQ(
      counters_
          .Snapshot()[absl::StrCat("refused.", TraitsOf(row.refusal).name)],
      wanted ? 0 : 1);
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
        RefusalCase{"CacheThatIsNoPath", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_cache_root("other");
                    },
                    v1::REFUSAL_WORLD_MISMATCH,
                    "cache directory: yours is other"},
        RefusalCase{"CacheSpelledOtherwise", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_cache_root("/a/../b");
                    },
                    v1::REFUSAL_WORLD_MISMATCH, "cache directory"},
        RefusalCase{"CacheWithALineBreak", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_cache_root("/a\nb");
                    },
                    v1::REFUSAL_WORLD_MISMATCH, "cache directory"},
        RefusalCase{"CacheThatIsNotUtf8", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_cache_root("/caf\xe9");
                    },
                    v1::REFUSAL_WORLD_MISMATCH, "cache directory"},
        RefusalCase{"NamespaceThatIsNone", "zccache", "1.11.22",
                    [](v1::NegotiateRequest* request, Catalog*) {
                      request->mutable_world()->set_daemon_namespace("c i");
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
        RefusalCase{"DefinitionWithAMistake", "typo", "1.11.22",
                    [](v1::NegotiateRequest*, Catalog* catalog) {
                      v1::Problem& problem = catalog->problems.emplace_back();
                      problem.set_where("/c/services/typo.textproto:2:9");
                      problem.set_what("no field is called \"nam\"");
                    },
                    v1::REFUSAL_SERVICE_UNKNOWN,
                    "the definition of typo has a mistake; mend it: "
                    "/c/services/typo.textproto:2:9: no field"},
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
  request.mutable_world()->set_cache_root("other");
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

TEST_F(MachineTest, AWorldThatCanBeServedIsPassedOnWhole) {
  Load();
  Take<RoutesChanged>();
  v1::NegotiateRequest request = Want();
  request.mutable_world()->set_cache_root("/other");
  Ask(request);
  const std::vector<PassOn> passed = Take<PassOn>();
  ASSERT_THAT(passed, SizeIs(1));
  EXPECT_THAT(effects_, IsEmpty());
  const v1::World world = passed[0].request.world();
  EXPECT_EQ(world.cache_root(), "/other");
  EXPECT_EQ(world.daemon_namespace(), "default");
  EXPECT_EQ(world.mount_namespace(), "mnt:[1]");

  Machine other({}, world, &counters_, 1, /*first_start=*/1000);
  other.CatalogLoaded(MakeCatalog(), false, now_, &effects_);
  Take<RoutesChanged>();
  other.PassedOn(passed[0].id, passed[0].request, passed[0].answer_by, now_,
                 &effects_);
  const std::vector<StartBackend> starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_EQ(starts[0].plan.id, 1000u);
  EXPECT_FALSE(other.idle());
  other.StartSucceeded(1000, Started(), now_, &effects_);
  const std::vector<Answer> answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].id, passed[0].id);
  EXPECT_EQ(counters_.Snapshot()["negotiations"], 1u);
}

TEST_F(MachineTest, TheNewestOfAnotherWorldIsPassedOnByItsVersion) {
  Load(MakeCatalog({"1.15.8", "1.11.22"}));
  v1::NegotiateRequest request = Want();
  request.clear_wanted_version();
  request.mutable_world()->set_daemon_namespace("ci");
  machine_.NegotiateNewest(7, request, absl::nullopt, now_, &effects_);
  const std::vector<PassOn> passed = Take<PassOn>();
  ASSERT_THAT(passed, SizeIs(1));
  EXPECT_EQ(passed[0].request.wanted_version(), "1.15.8");
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
  machine_.BackendEnding(first, {}, now_, &effects_);
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

TEST(OutcomeTest, EvidenceIsSoManyLinesTheLastOnes) {
  const auto evidence = [](size_t lines) {
    RefusalFacts facts;
    for (size_t i = 1; i <= lines; ++i) {
      facts.evidence.push_back(absl::StrCat(i));
    }
    return Refuse(v1::REFUSAL_BACKEND_START_FAILED, "", "s", "1.0.0", facts)
        .detail.evidence();
  };
  EXPECT_THAT(evidence(kMaxEvidenceLines - 1), SizeIs(kMaxEvidenceLines - 1));
  EXPECT_THAT(evidence(kMaxEvidenceLines), SizeIs(kMaxEvidenceLines));
  EXPECT_THAT(evidence(kMaxEvidenceLines + 1), SizeIs(kMaxEvidenceLines));
  EXPECT_EQ(evidence(kMaxEvidenceLines + 1)[0], "2");
}

TEST(OutcomeTest, EvidenceIsSoManyBytesTheLastOnes) {
  const auto evidence = [](std::vector<std::string> lines) {
    RefusalFacts facts;
    facts.evidence = std::move(lines);
    return Refuse(v1::REFUSAL_BACKEND_START_FAILED, "", "s", "1.0.0", facts)
        .detail.evidence();
  };
  const std::string half(kMaxEvidenceBytes / 2, 'h');
  EXPECT_THAT(evidence({"first", half, half}), ElementsAre(half, half));
  // As it is sent: what is escaped has four times the length.
  EXPECT_THAT(evidence({"first", std::string(kMaxEvidenceBytes / 4, '\1')}),
              ElementsAre(SizeIs(kMaxEvidenceBytes)));
  EXPECT_THAT(evidence({"first", std::string(kMaxEvidenceBytes, 'x') + "y"}),
              ElementsAre(std::string(kMaxEvidenceBytes, 'x')));
  // A character is not cut in two: the message could not be read.
  EXPECT_THAT(evidence({std::string(kMaxEvidenceBytes - 1, 'x') + "\u00e9"}),
              ElementsAre(std::string(kMaxEvidenceBytes - 1, 'x')));
}

TEST_F(MachineLimitTest, AStartWithoutDescriptorsIsNoFailure) {
  Load();
  Ask(Want());
  StartFailure failure;
  failure.text = "no descriptors";
  failure.short_of_descriptors = true;
  machine_.StartFailed(OnlyStart(), failure, now_, &effects_);
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_FD_PRESSURE);
  EXPECT_GT(refused.detail.retry_after_ms(), 0);
  // No backoff: the next one may start it.
  Ask(Want());
  machine_.StartSucceeded(OnlyStart(), Started(), now_, &effects_);
  EXPECT_THAT(Take<Answer>(), SizeIs(1));
}

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

// --- Backends that started themselves

class LeaseTest : public MachineTest {
 protected:
  LeaseTest() { Load(MakeCatalog({"1.15.8", "1.11.22"})); }

  NegotiationId Register() {
    v1::RegisterRequest request;
    request.set_service("zccache");
    request.set_version("1.11.22");
    request.set_endpoint("/own.sock");
    machine_.Register(++last_id_, request, now_, &effects_);
    return last_id_;
  }
  static StartedBackend Itself() {
    StartedBackend backend = Started("/own.sock");
    backend.adopted = true;
    backend.foreign = true;
    backend.registered = true;
    return backend;
  }
  // Registered and there.
  StartId Registered() {
    Register();
    const StartId start = OnlyStart();
    machine_.StartSucceeded(start, Itself(), now_, &effects_);
    effects_.clear();
    return start;
  }
};

TEST_F(LeaseTest, ItsStartNamesItAndWhoAsksMeanwhileJoins) {
  const NegotiationId lease = Register();
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  ASSERT_TRUE(starts[0].plan.registration.has_value());
  EXPECT_EQ(starts[0].plan.registration->lease, lease);
  EXPECT_EQ(starts[0].plan.registration->endpoint, "/own.sock");
  const NegotiationId asked = Ask(Want());
  machine_.StartSucceeded(starts[0].plan.id, Itself(), now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_EQ(answers[0].id, lease);
  EXPECT_EQ(answers[1].id, asked);
  EXPECT_EQ(
      std::get<v1::NegotiateResponse>(answers[1].outcome).route().endpoint(),
      "/own.sock");
}

// What somebody registers wrongly costs nobody who asks.
TEST_F(LeaseTest, AFailedOneIsRefusedAndWhoWaitedHasOneStarted) {
  const NegotiationId lease = Register();
  const StartId looked = OnlyStart();
  const NegotiationId asked = Ask(Want());
  machine_.StartFailed(looked, {"nobody listens there", {}, ""}, now_,
                       &effects_);
  auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].id, lease);
  EXPECT_EQ(std::get<Refused>(answers[0].outcome).refusal(),
            v1::REFUSAL_REGISTRATION_INVALID);
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_FALSE(starts[0].plan.registration.has_value());
  machine_.StartSucceeded(starts[0].plan.id, Started(), now_, &effects_);
  answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].id, asked);
}

TEST_F(LeaseTest, NeverDisplacesAnother) {
  Ask(Want());
  const StartId start = OnlyStart();
  Register();
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_BACKEND_EXISTS) << "starting";
  machine_.StartSucceeded(start, Started(), now_, &effects_);
  effects_.clear();
  Register();
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_BACKEND_EXISTS) << "ready";
  machine_.Drain(1, "zccache", "1.11.22", {}, now_, &effects_);
  Register();
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_BACKEND_EXISTS) << "draining";
  machine_.BackendEnding(start, {}, now_, &effects_);
  Register();
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_BACKEND_EXISTS) << "ending";
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  machine_.BackendGone(start, {}, now_, &effects_);
  effects_.clear();
  Register();
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
}

TEST_F(LeaseTest, IsForWhatBacksOffOrIsBroken) {
  FailOnce();
  Register();
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
}

TEST_F(LeaseTest, AFailedOneLiftsNeitherBackoffNorBroken) {
  for (size_t failed = 1; failed <= Limits().failures_until_broken; ++failed) {
    Ask(Want());
    machine_.StartFailed(OnlyStart(), {"exited with status 3", {}, ""}, now_,
                         &effects_);
    effects_.clear();
    Register();
    const StartId looked = OnlyStart();
    const NegotiationId joined = Ask(Want());
    machine_.StartFailed(looked, {"nobody listens there", {}, ""}, now_,
                         &effects_);
    EXPECT_THAT(Take<StartBackend>(), IsEmpty()) << failed;
    const auto answers = Take<Answer>();
    ASSERT_THAT(answers, SizeIs(2));
    EXPECT_EQ(answers[1].id, joined);
    EXPECT_EQ(std::get<Refused>(answers[1].outcome).refusal(),
              failed == Limits().failures_until_broken
                  ? v1::REFUSAL_BACKEND_BROKEN
                  : v1::REFUSAL_BACKEND_START_FAILED);
    // Past every backoff there is before it is broken; and nothing has changed.
    now_ += std::chrono::seconds(2);
    Load(MakeCatalog({"1.15.8", "1.11.22"}));
    effects_.clear();
  }
  // Another binary is a new chance, also one that came meanwhile.
  Register();
  const StartId looked = OnlyStart();
  Catalog catalog = MakeCatalog({"1.15.8", "1.11.22"});
  for (InstalledVersion& version : catalog.services["zccache"].versions) {
    version.binary_identity += " mended";
  }
  Load(catalog);
  machine_.StartFailed(looked, {"nobody listens there", {}, ""}, now_,
                       &effects_);
  Load(catalog);
  effects_.clear();
  Ask(Want());
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
}

// --- One that an earlier broker had, and that is to come back.

class ExpectedTest : public LeaseTest {
 protected:
  ExpectedTest() { machine_.Expect("zccache", "1.11.22"); }
};

TEST_F(ExpectedTest, WhoAsksWaitsForIt) {
  const NegotiationId asked = Ask(Want());
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  EXPECT_FALSE(machine_.idle());
  const NegotiationId lease = Register();
  machine_.StartSucceeded(OnlyStart(), Itself(), now_, &effects_);
  EXPECT_FALSE(machine_.Expects("zccache", "1.11.22"));
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_EQ(answers[0].id, asked);
  EXPECT_EQ(answers[1].id, lease);
}

TEST_F(ExpectedTest, SomebodyElsesRegistrationDoesNotEndTheWaiting) {
  Ask(Want());
  Register();
  const StartId looked = OnlyStart();
  machine_.StartFailed(looked, {"nobody listens there", {}, ""}, now_,
                       &effects_);
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  EXPECT_THAT(Take<Answer>(), SizeIs(1)) << "the one that registered";
  machine_.ExpectNoMore("zccache", "1.11.22", now_, &effects_);
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
}

TEST_F(ExpectedTest, WhileItRegistersThatDecides) {
  Ask(Want());
  Register();
  const StartId looked = OnlyStart();
  machine_.ExpectNoMore("zccache", "1.11.22", now_, &effects_);
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  machine_.StartFailed(looked, {"nobody listens there", {}, ""}, now_,
                       &effects_);
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
}

TEST_F(LeaseTest, GivenUpTheNextOneStartsWhenItHasNotEnded) {
  const StartId start = Registered();
  EXPECT_TRUE(machine_.GiveUpLease(start, now_, &effects_));
  EXPECT_FALSE(machine_.Routes().Find(Want()).has_value());
  v1::ReportBackendRequest report;
  report.set_service("zccache");
  report.set_version("1.11.22");
  report.set_pid(42);
  report.set_start_time(7);
  machine_.Report(1, report, {}, now_, &effects_);
  Ask(Want());
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  EXPECT_THAT(Take<StopBackend>(), IsEmpty()) << "it is not ours to end";
  machine_.LeaseEnded(start, now_, &effects_);
  const auto reports = Take<AnswerReport>();
  ASSERT_THAT(reports, SizeIs(1));
  // It lives: whoever compiled with it must not compile beside it.
  EXPECT_EQ(std::get<v1::ReportBackendResponse>(reports[0].outcome).verdict(),
            v1::BACKEND_VERDICT_UNKNOWN);
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
}

TEST_F(LeaseTest, OneThatIsBeingEndedCannotBeGivenUp) {
  const StartId start = Registered();
  machine_.Stop(1, "zccache", "1.11.22", {}, now_, &effects_);
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  EXPECT_FALSE(machine_.GiveUpLease(start, now_, &effects_));
  EXPECT_THAT(Take<AnswerRetire>(), IsEmpty());
  machine_.BackendGone(start, {}, now_, &effects_);
  EXPECT_THAT(Take<AnswerRetire>(), SizeIs(1));
}

TEST_F(LeaseTest, IsNotForUnderAPolicyThatIsNone) {
  Catalog catalog = MakeCatalog();
  catalog.versions.no_starts = "/etc/p:1:2: nonsense";
  Load(catalog);
  Register();
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_VERSION_BLOCKED);
}

// A broker that leaves makes no link to what comes again by itself.
TEST_F(LeaseTest, IsNotLeftToAnybody) {
  Registered();
  EXPECT_FALSE(machine_.EndpointToLeave("zccache", "1.11.22").has_value());
}

// A ready backend of 1.11.22, and what leaves it.
class LeavingTest : public MachineTest {
 protected:
  LeavingTest() {
    catalog_ = MakeCatalog({"1.15.8", "1.11.22"});
    catalog_.services["zccache"].definition.mutable_idle_stop()->set_seconds(
        3600);
    Load(catalog_);
    Ask(Want());
    start_ = OnlyStart();
    machine_.StartSucceeded(start_, Started(), now_, &effects_);
    effects_.clear();
  }

  RetireId Drain() {
    machine_.Drain(++last_retire_, "zccache", "1.11.22", {}, now_, &effects_);
    return last_retire_;
  }
  RetireId Stop() {
    machine_.Stop(++last_retire_, "zccache", "1.11.22", {}, now_, &effects_);
    return last_retire_;
  }
  // Answered since the last call.
  std::vector<RetireId> Retired() {
    std::vector<RetireId> ids;
    for (const AnswerRetire& answer : Take<AnswerRetire>()) {
      EXPECT_FALSE(answer.refused.has_value());
      ids.push_back(answer.id);
    }
    return ids;
  }
  // Lets time pass up to the next look and answers it.
  void Look(const InFlight& seen) {
    std::vector<LookAtBackend> looks;
    while (looks.empty()) {
      ASSERT_TRUE(machine_.NextDeadline().has_value());
      now_ = *machine_.NextDeadline();
      machine_.Tick(now_, &effects_);
      looks = Take<LookAtBackend>();
    }
    ASSERT_THAT(looks, SizeIs(1));
    EXPECT_EQ(looks[0].id, start_);
    EXPECT_EQ(looks[0].pid, 42u);
    EXPECT_FALSE(machine_.NextDeadline().has_value() &&
                 *machine_.NextDeadline() <= now_);
    machine_.Looked(start_, seen, now_, &effects_);
  }
  static InFlight Connections(size_t count) {
    InFlight seen;
    seen.connections = count;
    return seen;
  }
  bool IsRouted() { return machine_.Routes().Find(Want()).has_value(); }
  v1::Backend Row() {
    return machine_.DescribeBackend("zccache", "1.11.22", now_, absl::Now());
  }

  Catalog catalog_;
  StartId start_ = 0;
  RetireId last_retire_ = 0;
};

TEST_F(LeavingTest, ADrainWithdrawsWaitsAndStops) {
  const RetireId id = Drain();
  EXPECT_FALSE(IsRouted());
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
  EXPECT_THAT(Take<StopBackend>(), IsEmpty());
  EXPECT_THAT(Row().evidence(),
              ElementsAre("drain asked for", "not looked at yet"));
  InFlight seen = Connections(2);
  seen.running_children = true;
  Look(seen);
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_DRAINING);
  EXPECT_THAT(Row().evidence(),
              ElementsAre("drain asked for",
                          "in flight: 2 connections, running children"));
  EXPECT_EQ(Row().route().pid(), 42u);
  seen = {};
  seen.running_children = true;
  Look(seen);
  EXPECT_THAT(Take<StopBackend>(), IsEmpty()) << "its compiler still writes";
  Look({});
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  EXPECT_THAT(Retired(), IsEmpty());
  machine_.BackendGone(start_, {"exited"}, now_, &effects_);
  EXPECT_THAT(Retired(), ElementsAre(id));
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_GONE);
  EXPECT_EQ(Row().last_end(), "drain asked for");
}

TEST_F(LeavingTest, WhatCannotBeLookedAtIsInFlight) {
  Drain();
  InFlight seen;
  seen.unknown = "no UNIX_DIAG";
  Look(seen);
  EXPECT_THAT(Take<StopBackend>(), IsEmpty());
  EXPECT_THAT(Row().evidence(1), HasSubstr("no UNIX_DIAG"));
}

TEST_F(LeavingTest, WhoAsksWhileItDrainsWaitsForTheNextOne) {
  Drain();
  Ask(Want());
  Look(Connections(1));
  EXPECT_THAT(Take<Answer>(), IsEmpty());
  EXPECT_THAT(Take<StartBackend>(), IsEmpty()) << "a cache has one writer";
  Look({});
  machine_.BackendGone(start_, {}, now_, &effects_);
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  machine_.StartSucceeded(starts[0].plan.id, Started("/run/next.sock"), now_,
                          &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(
      std::get<v1::NegotiateResponse>(answers[0].outcome).route().endpoint(),
      "/run/next.sock");
  EXPECT_EQ(Row().last_end(), "drain asked for") << "why it was restarted";
}

TEST_F(LeavingTest, WhoWaitsTooLongHearsWhatIsInFlight) {
  Drain();
  Look(Connections(3));
  Ask(Want(), now_ + milliseconds(260));
  now_ += milliseconds(10);
  machine_.Tick(now_, &effects_);
  EXPECT_THAT(OnlyRefusal().text, HasSubstr("in flight: 3 connections"));
}

TEST_F(LeavingTest, LooksGetRareAndAWaiterMakesThemFrequent) {
  Drain();
  const Time begin = now_;
  for (int i = 0; i < 10; ++i) Look(Connections(1));
  EXPECT_EQ(*machine_.NextDeadline() - now_, seconds(5));
  EXPECT_GT(now_ - begin, seconds(20));
  Ask(Want());
  EXPECT_EQ(*machine_.NextDeadline() - now_, milliseconds(250));
}

TEST_F(LeavingTest, AStopDoesNotWait) {
  const RetireId id = Stop();
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  EXPECT_FALSE(IsRouted());
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_ENDING);
  Stop();
  EXPECT_THAT(Take<StopBackend>(), IsEmpty()) << "told once";
  machine_.BackendGone(start_, {}, now_, &effects_);
  EXPECT_THAT(Retired(), ElementsAre(id, id + 1));
}

TEST_F(LeavingTest, AStopEndsADrain) {
  Drain();
  Look(Connections(1));
  Stop();
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  EXPECT_FALSE(machine_.NextDeadline() < now_ + seconds(9));
}

TEST_F(LeavingTest, WhatTakesTooLongIsAnsweredByTheDeadline) {
  machine_.Drain(1, "zccache", "1.11.22", now_ + seconds(2), now_, &effects_);
  now_ += milliseconds(1749);
  machine_.Tick(now_, &effects_);
  EXPECT_THAT(Retired(), IsEmpty());
  now_ += milliseconds(1);
  machine_.Tick(now_, &effects_);
  EXPECT_THAT(Retired(), ElementsAre(1));
  machine_.BackendGone(start_, {}, now_, &effects_);
  EXPECT_THAT(Retired(), IsEmpty()) << "answered twice";
}

TEST_F(LeavingTest, WhatDoesNotRunIsGoneAtOnceAndASlipIsTold) {
  machine_.Stop(1, "zccache", "1.15.8", {}, now_, &effects_);
  EXPECT_THAT(Retired(), ElementsAre(1));
  machine_.Stop(2, "zccache", "9.9.9", {}, now_, &effects_);
  machine_.Drain(3, "zcache", "1.15.8", {}, now_, &effects_);
  machine_.Drain(4, "zccache", "newest", {}, now_, &effects_);
  const auto answers = Take<AnswerRetire>();
  ASSERT_THAT(answers, SizeIs(3));
  EXPECT_EQ(answers[0].refused->refusal(), v1::REFUSAL_VERSION_NOT_INSTALLED);
  EXPECT_EQ(answers[1].refused->refusal(), v1::REFUSAL_SERVICE_UNKNOWN);
  EXPECT_EQ(answers[2].refused->refusal(), v1::REFUSAL_VERSION_INVALID);
}

TEST_F(LeavingTest, OneThatStartsServesItsCallersBeforeItDrains) {
  Ask(Want("1.15.8"));
  const StartId starting = OnlyStart();
  machine_.Drain(1, "zccache", "1.15.8", {}, now_, &effects_);
  EXPECT_THAT(Retired(), IsEmpty());
  machine_.StartSucceeded(starting, Started("/run/b.sock"), now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_TRUE(
      std::holds_alternative<v1::NegotiateResponse>(answers[0].outcome));
  EXPECT_FALSE(machine_.Routes().Find(Want("1.15.8")).has_value());
}

TEST_F(LeavingTest, OneStoppedWhileItStartsHasNotFailed) {
  Ask(Want("1.15.8"));
  const StartId starting = OnlyStart();
  machine_.Stop(1, "zccache", "1.15.8", {}, now_, &effects_);
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  machine_.StartFailed(starting, {"was ended by signal 15", {}, ""}, now_,
                       &effects_);
  EXPECT_THAT(Retired(), ElementsAre(1));
  // Who waited still wants one, and there is no backoff.
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
  EXPECT_THAT(counters_.Snapshot().count("start_failures"), 0u);
}

TEST_F(LeavingTest, ShutdownRefusesWhoWantsAnEnd) {
  Drain();
  machine_.Shutdown(/*stop_backends=*/false, now_, &effects_);
  const auto answers = Take<AnswerRetire>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].refused->refusal(), v1::REFUSAL_SHUTTING_DOWN);
  EXPECT_FALSE(machine_.NextDeadline().has_value());
}

TEST_F(LeavingTest, WhatNobodyCanReachDrains) {
  machine_.BackendUnreachable(start_, "its socket was removed", now_,
                              &effects_);
  EXPECT_FALSE(IsRouted());
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
  Look(Connections(1));
  EXPECT_THAT(Take<StopBackend>(), IsEmpty());
  Look({});
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  machine_.BackendGone(start_, {"exited"}, now_, &effects_);
  EXPECT_EQ(Row().last_end(), "its socket was removed");
}

// A successor of this broker has to know, whatever the reason.
struct LeavingCase {
  const char* name;
  const char* noted;
  void (*event)(Machine&, StartId, const Catalog&, Time, Effects*);
};

class NotedTest : public LeavingTest,
                  public ::testing::WithParamInterface<LeavingCase> {};

TEST_P(NotedTest, TellsASuccessor) {
  GetParam().event(machine_, start_, catalog_, now_, &effects_);
  const auto notes = Take<NoteLeaving>();
  ASSERT_THAT(notes, SizeIs(1));
  EXPECT_EQ(notes[0].id, start_);
  EXPECT_EQ(notes[0].why, GetParam().noted);
}

INSTANTIATE_TEST_SUITE_P(
    All, NotedTest,
    ::testing::Values(
        LeavingCase{"Drain", "drain asked for",
                    [](Machine& machine, StartId, const Catalog&, Time now,
                       Effects* effects) {
                      machine.Drain(1, "zccache", "1.11.22", {}, now, effects);
                    }},
        LeavingCase{"Stop", "stop asked for",
                    [](Machine& machine, StartId, const Catalog&, Time now,
                       Effects* effects) {
                      machine.Stop(1, "zccache", "1.11.22", {}, now, effects);
                    }},
        LeavingCase{"Replaced", "binary replaced",
                    [](Machine& machine, StartId, const Catalog& catalog,
                       Time now, Effects* effects) {
                      Catalog changed = catalog;
                      changed.services["zccache"].versions[1].binary_identity =
                          "another";
                      machine.CatalogLoaded(changed, false, now, effects);
                    }},
        LeavingCase{"Removed", "gone",
                    [](Machine& machine, StartId id, const Catalog&, Time now,
                       Effects* effects) {
                      machine.BackendUnreachable(id, "gone", now, effects);
                    }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(LeavingTest, ADrainAskedForDuringTheStartIsToldASuccessorAtOnce) {
  Ask(Want("1.15.8"));
  const StartId starting = OnlyStart();
  machine_.Drain(1, "zccache", "1.15.8", {}, now_, &effects_);
  const auto notes = Take<NoteLeaving>();
  ASSERT_THAT(notes, SizeIs(1));
  EXPECT_EQ(notes[0].id, starting);
}

// What an earlier broker left.
class GoOnTest : public MachineTest {
 protected:
  static InstalledVersion Left(const std::string& version) {
    return {version, "/old", "id-old", {v1::WIRE_LANE_FRAME_V1}};
  }
  void GoOn(const std::string& version = "1.11.22",
            absl::optional<Leaving> leaving = absl::nullopt) {
    machine_.GoOnWith(MakeCatalog().services["zccache"].definition,
                      Left(version), std::move(leaving), now_, &effects_);
  }
  v1::Backend Row(const std::string& version = "1.11.22") {
    return machine_.DescribeBackend("zccache", version, now_, absl::Now());
  }
};

TEST_F(GoOnTest, NothingIsStartedForIt) {
  GoOn();
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_NE(starts[0].plan.only_adopt, "");
  EXPECT_EQ(starts[0].plan.version.binary, "/old");
  Load();
  // Who comes meanwhile waits for what becomes of it, and if it has ended gets
  // one of what is installed.
  Ask(Want());
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
  StartFailure failure;
  failure.forbidden = true;
  machine_.StartFailed(starts[0].plan.id, failure, now_, &effects_);
  const auto next = Take<StartBackend>();
  ASSERT_THAT(next, SizeIs(1));
  EXPECT_EQ(next[0].plan.only_adopt, "");
  EXPECT_EQ(next[0].plan.version.binary, "/opt/zccache-1.11.22");
  EXPECT_EQ(counters_.Snapshot().count("start_failures"), 0u);
}

TEST_F(GoOnTest, IsNoStartInProgress) {
  for (int i = 0; i < 4; ++i) GoOn(absl::StrCat("1.0.", i));
  EXPECT_THAT(Take<StartBackend>(), SizeIs(4));
  Load();
  Ask(Want());
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
  EXPECT_THAT(Take<Answer>(), IsEmpty());
}

TEST_F(GoOnTest, AVersionThatIsNotInstalledIsListedAndStopped) {
  GoOn("1.0.0");
  const StartId id = OnlyStart();
  Load();
  machine_.StartSucceeded(id, Started(), now_, &effects_);
  EXPECT_EQ(Row("1.0.0").state(), v1::BACKEND_STATE_READY);
  EXPECT_FALSE(machine_.Routes().Find(Want("1.0.0")).has_value());
  machine_.Shutdown(/*stop_backends=*/true, now_, &effects_);
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
}

TEST_F(GoOnTest, ABlockedVersionDrains) {
  GoOn();
  const StartId id = OnlyStart();
  Catalog catalog = MakeCatalog();
  catalog.versions.blocked.insert({"zccache", "1.11.22"});
  Load(catalog);
  machine_.StartSucceeded(id, Started(), now_, &effects_);
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_DRAINING);
}

TEST_F(GoOnTest, ADrainGoesOn) {
  Leaving leaving;
  leaving.backend = Started();
  leaving.why = "drain asked for";
  GoOn("1.11.22", leaving);
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_TRUE(starts[0].plan.leaving);
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
  EXPECT_THAT(Take<StopBackend>(), IsEmpty());
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_DRAINING);
  EXPECT_EQ(Row().evidence(0), "drain asked for");
  EXPECT_EQ(Row().route().pid(), 42u);
  Load();
  Ask(Want());
  EXPECT_THAT(Take<Answer>(), IsEmpty()) << "it has to wait";
  machine_.BackendGone(starts[0].plan.id, {"ended"}, now_, &effects_);
  EXPECT_THAT(Take<StartBackend>(), SizeIs(1));
  EXPECT_EQ(Row().last_end(), "drain asked for");
}

TEST_F(GoOnTest, AStopGoesOn) {
  Leaving leaving;
  leaving.backend = Started();
  leaving.why = "stop asked for";
  leaving.asked_to_end = true;
  GoOn("1.11.22", leaving);
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_ENDING);
}

// A successor is about to take over.
TEST_F(LeavingTest, InAHurryAllAreAnsweredAtOnce) {
  Ask(Want("1.15.8"));
  v1::ReportBackendRequest report;
  report.set_service("zccache");
  report.set_version("1.11.22");
  report.set_pid(42);
  report.set_start_time(7);
  machine_.Report(1, report, {}, now_, &effects_);
  machine_.Hurry(&effects_);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SHUTTING_DOWN);
  EXPECT_THAT(Take<AnswerReport>(), SizeIs(1));
  // Who comes now is served where that takes no time.
  EXPECT_TRUE(IsRouted());
  Ask(Want());
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_UNSPECIFIED);
  Ask(Want("1.15.8"));
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SHUTTING_DOWN);
  machine_.Report(2, report, {}, now_, &effects_);
  EXPECT_THAT(Take<AnswerReport>(), SizeIs(1));
  const RetireId id = Drain();
  EXPECT_THAT(Retired(), ElementsAre(id));
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_DRAINING);
  EXPECT_EQ(machine_.waiters(), 0u);
}

// However it comes, it is not kept waiting.
TEST_F(MachineTest, InAHurryNobodyWaitsWhoComesLater) {
  Load();
  machine_.Hurry(&effects_);
  EXPECT_TRUE(machine_.hurried());
  const auto expect_refused = [this](const char* way) {
    EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_SHUTTING_DOWN) << way;
    EXPECT_EQ(machine_.waiters(), 0u) << way;
  };
  Ask(Want());
  expect_refused("negotiated");
  machine_.NegotiateNewest(101, Want(), absl::nullopt, now_, &effects_);
  expect_refused("of the newest");
  machine_.PassedOn(102, Want(), now_ + seconds(10), now_, &effects_);
  expect_refused("passed on");
  Take<StartBackend>();
  v1::RegisterRequest request;
  request.set_service("zccache");
  request.set_version("1.11.22");
  request.set_endpoint("/run/theirs.sock");
  machine_.Register(103, request, now_, &effects_);
  expect_refused("registered");
  EXPECT_THAT(Take<StartBackend>(), IsEmpty());
}

TEST_F(LeavingTest, UnusedForAnHourItIsStoppedAfterOneLook) {
  const Time begin = now_;
  EXPECT_EQ(*machine_.NextDeadline(), now_ + seconds(3600));
  Look({});
  EXPECT_EQ(now_ - begin, seconds(3600));
  EXPECT_EQ(Row().state(), v1::BACKEND_STATE_DRAINING);
  EXPECT_EQ(Row().evidence(0), "unused for 1h");
  Look({});
  EXPECT_THAT(Take<StopBackend>(), SizeIs(1));
  EXPECT_EQ(counters_.Snapshot().at("backends_idle"), 1u);
}

struct UseCase {
  const char* name;
  InFlight seen;
};

class UseTest : public LeavingTest,
                public ::testing::WithParamInterface<UseCase> {};

TEST_P(UseTest, MakesItWaitAnotherHour) {
  Look(GetParam().seen);
  EXPECT_TRUE(IsRouted());
  EXPECT_THAT(effects_, IsEmpty());
  EXPECT_EQ(*machine_.NextDeadline(), now_ + seconds(3600));
}

INSTANTIATE_TEST_SUITE_P(
    All, UseTest,
    ::testing::Values(UseCase{"Connection", {1, false, false, ""}},
                      UseCase{"Child", {0, true, false, ""}},
                      UseCase{"CameAndWent", {0, false, true, ""}},
                      UseCase{"Unknown", {0, false, false, "no UNIX_DIAG"}}),
    [](const auto& info) { return info.param.name; });

TEST_F(LeavingTest, WhoHasLeftSinceTheLastLookHasUsedItUntilNow) {
  Look(Connections(1));
  Look({});
  EXPECT_TRUE(IsRouted()) << "it may have been in use a moment ago";
  Look({});
  EXPECT_FALSE(IsRouted());
}

TEST_F(LeavingTest, AStrangersDaemonIsEndedOnlyOnRequest) {
  Ask(Want("1.15.8"));
  StartedBackend theirs = Started("/theirs");
  theirs.adopted = true;
  theirs.foreign = true;
  machine_.StartSucceeded(OnlyStart(), theirs, now_, &effects_);
  catalog_.services["zccache"].versions[0].binary_identity = "rebuilt";
  catalog_.versions.blocked.insert({"zccache", "1.15.8"});
  Load(catalog_);
  EXPECT_THAT(Take<WithdrawBackend>(), IsEmpty());
  machine_.Drain(1, "zccache", "1.15.8", {}, now_, &effects_);
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
}

TEST_F(LeavingTest, AReplacedBinaryDrainsTheOldOneAndTheNextIsTheNew) {
  catalog_.services["zccache"].versions[1].binary_identity = "rebuilt";
  Load(catalog_);
  EXPECT_FALSE(IsRouted());
  EXPECT_EQ(Row().evidence(0), "binary replaced");
  Ask(Want());
  EXPECT_THAT(Take<StartBackend>(), IsEmpty()) << "two writers of one cache";
  Look({});
  machine_.BackendGone(start_, {}, now_, &effects_);
  const auto starts = Take<StartBackend>();
  ASSERT_THAT(starts, SizeIs(1));
  EXPECT_EQ(starts[0].plan.version.binary_identity, "rebuilt");
  EXPECT_EQ(Row().last_end(), "binary replaced");
}

TEST_F(LeavingTest, ABinaryReplacedDuringTheStartDrainsWhatCameOfIt) {
  Ask(Want("1.15.8"));
  const StartId starting = OnlyStart();
  catalog_.services["zccache"].versions[0].binary_identity = "rebuilt";
  Load(catalog_);
  effects_.clear();
  machine_.StartSucceeded(starting, Started("/run/b.sock"), now_, &effects_);
  EXPECT_THAT(Take<Answer>(), SizeIs(1));
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
}

TEST_F(LeavingTest, ARemovedBinaryEndsNobody) {
  catalog_.services["zccache"].versions.pop_back();
  Load(catalog_);
  EXPECT_THAT(Take<WithdrawBackend>(), IsEmpty());
}

TEST_F(LeavingTest, ABlockedVersionIsDrainedAndRefused) {
  catalog_.versions.blocked.insert({"zccache", "1.11.22"});
  Load(catalog_);
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
  Ask(Want());
  const Refused refused = OnlyRefusal();
  EXPECT_EQ(refused.refusal(), v1::REFUSAL_VERSION_BLOCKED);
  EXPECT_THAT(refused.text, HasSubstr("blocked by policy"));
}

TEST_F(LeavingTest, WhoWaitsForAVersionThatIsBlockedNowIsRefused) {
  Ask(Want("1.15.8"));
  catalog_.versions.blocked.insert({"zccache", "1.15.8"});
  Load(catalog_);
  EXPECT_EQ(OnlyRefusal().refusal(), v1::REFUSAL_VERSION_BLOCKED);
}

TEST_F(LeavingTest, TheNewestIsTheNewestThatIsNotBlocked) {
  catalog_.versions.blocked.insert({"zccache", "1.15.8"});
  Load(catalog_);
  effects_.clear();
  machine_.NegotiateNewest(++last_id_, Want(""), {}, now_, &effects_);
  const auto answers = Take<Answer>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(
      std::get<v1::NegotiateResponse>(answers[0].outcome).route().version(),
      "1.11.22");
}

struct RetentionCase {
  const char* name;
  void (*change)(Catalog*);
  // When 1.11.22, the older of two, is looked at; 0: never.
  int after_seconds;
};

class RetentionTest : public LeavingTest,
                      public ::testing::WithParamInterface<RetentionCase> {};

TEST_P(RetentionTest, SaysWhenAnUnusedOneIsStopped) {
  GetParam().change(&catalog_);
  Load(catalog_);
  if (GetParam().after_seconds == 0) {
    EXPECT_FALSE(machine_.NextDeadline().has_value());
    return;
  }
  ASSERT_TRUE(machine_.NextDeadline().has_value());
  EXPECT_EQ(*machine_.NextDeadline() - now_, seconds(GetParam().after_seconds));
  Look({});
  EXPECT_THAT(Take<WithdrawBackend>(), SizeIs(1));
}

INSTANTIATE_TEST_SUITE_P(
    All, RetentionTest,
    ::testing::Values(
        RetentionCase{"NoPolicy", [](Catalog*) {}, 3600},
        RetentionCase{"IdleStopOff",
                      [](Catalog* catalog) {
                        catalog->services["zccache"]
                            .definition.mutable_idle_stop()
                            ->set_seconds(0);
                      },
                      0},
        RetentionCase{"Pinned",
                      [](Catalog* catalog) {
                        catalog->versions.pinned.insert({"zccache", "1.11.22"});
                      },
                      0},
        RetentionCase{"OlderThanTheNewest",
                      [](Catalog* catalog) {
                        catalog->versions.keep_newest = 1;
                        catalog->versions.keep_used_for = absl::Minutes(5);
                      },
                      300},
        RetentionCase{"OlderAndPinned",
                      [](Catalog* catalog) {
                        catalog->versions.keep_newest = 1;
                        catalog->versions.keep_used_for = absl::Minutes(5);
                        catalog->versions.pinned.insert({"zccache", "1.11.22"});
                      },
                      0},
        RetentionCase{"AmongTheNewest",
                      [](Catalog* catalog) {
                        catalog->versions.keep_newest = 2;
                        catalog->versions.keep_used_for = absl::Minutes(5);
                      },
                      3600},
        RetentionCase{"KeptForLongerThanIdleStop",
                      [](Catalog* catalog) {
                        catalog->versions.keep_newest = 1;
                        catalog->versions.keep_used_for = absl::Hours(48);
                      },
                      3600},
        RetentionCase{"OldAndIdleStopOff",
                      [](Catalog* catalog) {
                        catalog->services["zccache"]
                            .definition.mutable_idle_stop()
                            ->set_seconds(0);
                        catalog->versions.keep_newest = 1;
                        catalog->versions.keep_used_for = absl::Hours(48);
                      },
                      48 * 3600}),
    [](const auto& info) { return info.param.name; });

TEST_F(MachineTest, StartForgivesWhatIsBroken) {
  Load();
  for (int i = 0; i < 5; ++i) {
    FailOnce();
    now_ += seconds(3);
  }
  machine_.Start(++last_id_, Want(), {}, now_, &effects_);
  EXPECT_NE(OnlyStart(), 0);
}

TEST_F(MachineTest, ARowSaysWhyTheLastOneEnded) {
  Load();
  Ask(Want());
  StartId start = OnlyStart();
  const auto row = [&] {
    return machine_.DescribeBackend("zccache", "1.11.22", now_, absl::Now());
  };
  machine_.StartSucceeded(start, Started(), now_, &effects_);
  EXPECT_EQ(row().last_end(), "");
  machine_.BackendGone(start, {"process 42 was ended by signal 9"}, now_,
                       &effects_);
  Ask(Want());
  start = OnlyStart();
  machine_.StartSucceeded(start, Started(), now_, &effects_);
  EXPECT_EQ(row().last_end(), "process 42 was ended by signal 9");
  machine_.BackendEnding(start, {"process 42 is stopped"}, now_, &effects_);
  machine_.BackendGone(start, {"ended"}, now_, &effects_);
  EXPECT_EQ(row().last_end(), "wedged: process 42 is stopped");
}

}  // namespace
}  // namespace zcbroker::service
