#include "service/framed/admin_bodies.h"

#include <string>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

AdminFacts Facts() {
  AdminFacts facts;
  facts.now = absl::FromUnixMillis(1'700'000'000'123);
  facts.status.set_pid(17);
  facts.status.set_connections(3);
  facts.status.mutable_uptime()->set_seconds(5);
  facts.status.mutable_uptime()->set_nanos(500'000'000);
  v1::Backend* ready = facts.backends.add_backends();
  ready->set_service("zccache");
  ready->set_version("1.11.22");
  ready->set_state(v1::BACKEND_STATE_READY);
  ready->mutable_route()->set_endpoint("/run/a.sock");
  ready->mutable_route()->set_pid(42);
  ready->mutable_since()->set_seconds(1'600'000'000);
  v1::Backend* gone = facts.backends.add_backends();
  gone->set_service("zccache");
  gone->set_version("1.15.8");
  gone->set_state(v1::BACKEND_STATE_GONE);
  gone->add_evidence("first");
  gone->add_evidence("ended by signal 9");
  return facts;
}

const ServiceDefDir kDir{"/defs", /*from_environment=*/true};

// Keys as upstream's 4.1.0 has them; what it knows no value for is ours.
TEST(AdminBodiesTest, EachIsOneLineInAlphabeticalOrder) {
  EXPECT_EQ(
      AdminStatus(Facts()),
      R"({"accepting_hello":true,"backends":[{"backend_pipe":"/run/a.sock",)"
      R"("last_active_unix_ms":1600000000000,"pid":42,"service_name":"zccache",)"
      R"("service_version":"1.11.22","state":"running"}],)"
      R"("broker_instance":"shared","broker_pid":17,"command":"status",)"
      R"("connections_open":3,"generated_at_unix_ms":1700000000123,)"
      R"("schema_version":1,"uptime_seconds":5.5})");
  EXPECT_EQ(AdminInstances(Facts()),
            R"({"command":"list-instances","generated_at_unix_ms":)"
            R"(1700000000123,"instances":[{"broker_instance":"shared",)"
            R"("pid":17,"pipe":"","state":"running"}],"schema_version":1})");
  EXPECT_EQ(
      AdminBackendHealth(Facts(), "zccache"),
      R"({"backends":[{"last_error":null,"last_hello_unix_ms":1600000000000,)"
      R"("pid":42,"service_version":"1.11.22","state":"running"},)"
      R"({"last_error":"ended by signal 9","last_hello_unix_ms":0,"pid":0,)"
      R"("service_version":"1.15.8","state":"stale"}],)"
      R"("command":"backend-health","generated_at_unix_ms":1700000000123,)"
      R"("schema_version":1,"service_name":"zccache"})");
}

TEST(AdminBodiesTest, AServiceThatNobodyNamesIsUnknown) {
  EXPECT_EQ(AdminBackendHealth(Facts(), ""),
            R"({"backends":[],"command":"backend-health",)"
            R"("generated_at_unix_ms":1700000000123,"schema_version":1,)"
            R"("service_name":"unknown"})");
}

TEST(AdminBodiesTest, TheConfigurationSaysWhereEachValueIsFrom) {
  const std::string config = AdminConfig(Facts(), kDir);
  for (const char* part :
       {R"("service_definition_dir":{"source":)"
        R"("env:RUNNING_PROCESS_SERVICE_DEF_DIR","value":"/defs"})",
        R"("admin_payload_protocol":{"source":"protocol-v1","value":"0xAD01"})",
        R"("max_hello_bytes":{"source":"protocol-v1","value":65536})",
        R"("broker_pid":{"source":"runtime","value":17})"}) {
    EXPECT_THAT(config, ::testing::HasSubstr(part));
  }
  EXPECT_THAT(
      AdminDump(Facts(), {"/defs", false}),
      ::testing::HasSubstr(R"({"source":"platform-default","value":"/defs"})"));
}

TEST(AdminBodiesTest, ADiagnosisListsWhatABundleWouldHold) {
  const std::string diagnosis = AdminDiagnose(Facts(), "out.tar.gz");
  for (const char* part :
       {R"("created":false)", R"("output":"out.tar.gz")",
        R"({"kind":"json","path":"process/backends.json","record_count":1,)"
        R"("redacted":true,"required":true,"source":"backend-table"})"}) {
    EXPECT_THAT(diagnosis, ::testing::HasSubstr(part));
  }
}

TEST(AdminBodiesTest, WhatIsNoTextDoesNotBreakIt) {
  AdminFacts facts = Facts();
  EXPECT_THAT(AdminDiagnose(facts, "a\xff\"\n"),
              ::testing::HasSubstr("\"output\":\"a\xef\xbf\xbd\\\"\\n\""));
}

TEST(AdminBodiesTest, MetricsAreUpstreamsText) {
  EXPECT_EQ(
      AdminMetrics(Facts()),
      "# TYPE running_process_broker_v1_hello_total counter\n"
      "# TYPE running_process_broker_v1_hello_duration_seconds histogram\n"
      "# TYPE running_process_broker_v1_active_backends gauge\n"
      "# TYPE running_process_broker_v1_spawn_attempts_total counter\n"
      "# TYPE running_process_broker_v1_spawn_budget_remaining gauge\n"
      "# TYPE running_process_broker_v1_connections_open gauge\n"
      "running_process_broker_v1_connections_open 3\n"
      "# TYPE running_process_broker_v1_fd_usage_ratio gauge\n"
      "running_process_broker_v1_fd_usage_ratio 0\n"
      "# TYPE running_process_broker_v1_uptime_seconds gauge\n"
      "running_process_broker_v1_uptime_seconds 5\n"
      "# EOF\n");
}

}  // namespace
}  // namespace zcbroker::service
