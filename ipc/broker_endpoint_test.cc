#include "ipc/broker_endpoint.h"

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::ipc {
namespace {

using google::protobuf::Struct;

constexpr char kVectors[] = "tests/testdata/broker-v1-vectors.json";

std::vector<Struct> NamingVectors() {
  std::ifstream file(kVectors);
  std::stringstream text;
  text << file.rdbuf();
  Struct all;
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(text.str(), &all);
  if (!parsed.ok()) ADD_FAILURE() << kVectors << ": " << parsed.ToString();
  std::vector<Struct> rows;
  for (const auto& row : all.fields().at("naming").list_value().values()) {
    rows.push_back(row.struct_value());
  }
  return rows;
}

std::string Text(const Struct& row, const std::string& field) {
  return row.fields().at(field).string_value();
}

BrokerAddressInputs Inputs(absl::optional<std::string> xdg,
                           absl::optional<std::string> tmpdir,
                           std::uint32_t uid) {
  return BrokerAddressInputs{std::move(xdg), std::move(tmpdir), uid};
}

// The bare name of a vector's class: "shared", "private S", "explicit S",
// "backend XX*16".
std::string BareName(const Struct& row) {
  const std::string hash = Text(row, "user_sid_hash");
  const std::string name = Text(row, "class");
  absl::string_view rest = name;
  absl::StatusOr<std::string> bare = absl::UnknownError(name);
  if (rest == "shared") {
    bare = SharedBrokerName(hash);
  } else if (absl::ConsumePrefix(&rest, "private ")) {
    bare = PrivateBrokerName(hash, rest);
  } else if (absl::ConsumePrefix(&rest, "explicit ")) {
    bare = ExplicitInstanceName(hash, rest);
  } else if (absl::ConsumePrefix(&rest, "backend ")) {
    bare = BackendName(hash, std::string(16, rest[0] == '0' ? '\0' : '\xab'));
  }
  return bare.ok() ? *bare : bare.status().ToString();
}

std::string Address(absl::string_view bare, const BrokerAddressInputs& inputs,
                    Os os) {
  const auto address = BrokerAddress(bare, inputs, os);
  return address.ok() ? address->path() : address.status().ToString();
}

void CheckEndpointVector(const Struct& row) {
  const std::string bare = BareName(row);
  EXPECT_EQ(bare, Text(row, "bare_name"));
  const std::string mac = Text(row, "macos_example");
  const std::string leaf = absl::StrCat("/.rp-501/", Text(row, "macos_leaf"));
  ASSERT_TRUE(absl::EndsWith(mac, leaf));
  EXPECT_EQ(Address(bare, Inputs("/run/user/1000", {}, 1000), Os::kLinux),
            Text(row, "linux_xdg_run_user_1000"));
  EXPECT_EQ(Address(bare, Inputs({}, {}, 1000), Os::kLinux),
            Text(row, "linux_no_xdg_uid_1000"));
  EXPECT_EQ(
      Address(bare, Inputs({}, mac.substr(0, mac.size() - leaf.size()), 501),
              Os::kMacOs),
      mac);
  EXPECT_EQ(Address(bare, Inputs({}, {}, 0), Os::kWindows),
            Text(row, "windows"));
}

TEST(BrokerEndpointTest, MatchesEveryNamingVector) {
  int hashes = 0;
  int endpoints = 0;
  int limits = 0;
  for (const Struct& row : NamingVectors()) {
    const std::string kind = Text(row, "kind");
    SCOPED_TRACE(row.ShortDebugString());
    if (kind == "user_sid_hash") {
      ++hashes;
      EXPECT_EQ(UserSidHash(Text(row, "input")), Text(row, "output"));
    } else if (kind == "endpoint") {
      ++endpoints;
      CheckEndpointVector(row);
    } else if (kind == "limit") {
      ++limits;
    } else {
      // Names of the v2 broker, which this project does not serve.
      EXPECT_TRUE(kind == "endpoint_v2" || kind == "broker_path_scope_hash" ||
                  kind == "path_scoped_socket_v2")
          << kind;
    }
  }
  EXPECT_EQ(hashes, 6);
  EXPECT_EQ(endpoints, 10);
  EXPECT_EQ(limits, 2);
}

constexpr char kHash[] = "deadbeefdeadbeef";

TEST(BrokerEndpointTest, TheLongestNamesThatFitUnderRunUser) {
  const BrokerAddressInputs inputs = Inputs("/run/user/1000", {}, 1000);
  const auto fits = [&](const absl::StatusOr<std::string>& bare) {
    return BrokerAddress(*bare, inputs, Os::kLinux).ok();
  };
  EXPECT_TRUE(fits(PrivateBrokerName(kHash, std::string(36, 's'))));
  EXPECT_FALSE(fits(PrivateBrokerName(kHash, std::string(37, 's'))));
  EXPECT_TRUE(fits(ExplicitInstanceName(kHash, std::string(35, 's'))));
  EXPECT_FALSE(fits(ExplicitInstanceName(kHash, std::string(36, 's'))));
}

TEST(BrokerEndpointTest, NamesAreMadeOfCheckedParts) {
  for (const char* hash : {"", "deadbeef", "DEADBEEFDEADBEEF",
                           "deadbeefdeadbeefd", "deadbeefdeadbee/"}) {
    EXPECT_EQ(SharedBrokerName(hash).status().code(),
              absl::StatusCode::kInvalidArgument)
        << hash;
  }
  EXPECT_FALSE(PrivateBrokerName(kHash, "../x").ok());
  EXPECT_FALSE(ExplicitInstanceName(kHash, "").ok());
  EXPECT_FALSE(BackendName(kHash, std::string(15, 'x')).ok());
  EXPECT_FALSE(BackendName(kHash, std::string(17, 'x')).ok());
}

TEST(BrokerEndpointTest, OnlyUnsetFallsBackToTmp) {
  EXPECT_FALSE(BrokerAddress("n", Inputs("", {}, 7), Os::kLinux).ok());
  EXPECT_FALSE(BrokerAddress("n", Inputs("rel", {}, 7), Os::kLinux).ok());
  EXPECT_EQ(Address("n", Inputs("/", {}, 7), Os::kLinux),
            "/running-process/broker/n.sock");
  EXPECT_EQ(Address("n", Inputs("/x/", {}, 7), Os::kLinux),
            "/x/running-process/broker/n.sock");
  EXPECT_TRUE(absl::StartsWith(Address("n", Inputs({}, {}, 501), Os::kMacOs),
                               "/tmp/.rp-501/"));
}

TEST(BrokerEndpointTest, LinuxPublishesForBothKindsOfClients) {
  const auto paths = [](const BrokerAddressInputs& inputs) {
    std::vector<std::string> result;
    for (const Endpoint& e : LinuxBrokerAddresses("n", inputs)) {
      result.push_back(e.path());
    }
    return result;
  };
  const std::string tmp = "/tmp/running-process-7/broker/n.sock";
  EXPECT_EQ(
      paths(Inputs("/x", {}, 7)),
      (std::vector<std::string>{"/x/running-process/broker/n.sock", tmp}));
  EXPECT_EQ(paths(Inputs({}, {}, 7)),
            (std::vector<std::string>{
                "/run/user/7/running-process/broker/n.sock", tmp}));
  EXPECT_EQ(paths(Inputs("", {}, 7)), (std::vector<std::string>{tmp}));
}

}  // namespace
}  // namespace zcbroker::ipc
