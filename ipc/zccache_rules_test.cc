#include "ipc/zccache_rules.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace zcbroker::ipc {
namespace {

using Variables = std::map<std::string, std::string>;

ZccacheInputs Inputs(const Variables& variables, std::string cwd = "/w") {
  return ZccacheInputs{
      [variables](absl::string_view name) -> absl::optional<std::string> {
        const auto found = variables.find(std::string(name));
        if (found == variables.end()) return absl::nullopt;
        return found->second;
      },
      std::move(cwd)};
}

TEST(ZccacheRulesTest, PathIdsOfTheSpec) {
  EXPECT_EQ(PathId16("/srv/zc", Os::kLinux), "14cba75d690d7ed3");
  EXPECT_EQ(PathId16("/home/user/.zccache", Os::kLinux), "f66e6d8a6e03b543");
  EXPECT_EQ(PathId16("/", Os::kLinux), "af63a24c860189fe");
  EXPECT_EQ(PathId16("/srv/./x/../zc/", Os::kLinux), "14cba75d690d7ed3");
}

TEST(ZccacheRulesTest, PathKeysFollowTheSystem) {
  EXPECT_EQ(PathKey("/Srv/ZC", Os::kLinux), "/Srv/ZC");
  EXPECT_EQ(PathKey("/Srv/ZC", Os::kMacOs), "/srv/zc");
  EXPECT_EQ(PathKey("\\\\?\\C:\\Users\\Me\\.zc", Os::kWindows),
            "c:/users/me/.zc");
  EXPECT_EQ(PathKey("C:\\a\\..\\B", Os::kWindows), "c:/b");
}

TEST(ZccacheRulesTest, PathsAreFoldedWithoutLooking) {
  const struct {
    const char* path;
    const char* normal;
  } kRows[] = {
      {"/", "/"}, {"/a/../..", "/"}, {"/a//b/./c/", "/a/b/c"}, {"", ""},
      {".", ""},  {"../x/..", ".."}, {"../../x", "../../x"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(LexicallyNormal(row.path, Os::kLinux), row.normal) << row.path;
  }
}

TEST(ZccacheRulesTest, NamespacesAreSanitised) {
  const std::string at_limit(32, 'n');
  const struct {
    std::string raw;
    std::string clean;
  } kRows[] = {
      {"", ""},
      {" \t", ""},
      {" dev ", "dev"},
      {"a b/c", "a_b_c"},
      {"A.b_c-9", "A.b_c-9"},
      {"\xc3\xa4\xc3\xb6", "__"},  // one '_' for each character
      {at_limit, at_limit},
      // Seen from the real programs, 1.11.22 and 1.15.8.
      {std::string(42, 'a') + " b", std::string(32, 'a') + "-6c4d1c72"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(SanitizeNamespace(row.raw), row.clean) << row.raw;
  }
  EXPECT_EQ(SanitizeNamespace(at_limit + "n").size(), 32U + 1 + 8);
}

TEST(ZccacheRulesTest, PipeUsersKeepTheirLength) {
  EXPECT_EQ(SanitizePipeUser("Zach Vorhies"), "Zach_Vorhies-0d204d7e");
  EXPECT_EQ(SanitizePipeUser(std::string(40, 'u')), std::string(40, 'u'));
}

// What the real programs connect to, as strace shows it, unless marked.
TEST(ZccacheRulesTest, DefaultEndpointsOfEachGeneration) {
  const std::string deep = "/tmp/zc15test/" + std::string(90, 'a');
  const struct {
    const char* version;
    Variables variables;
    std::string endpoint;
  } kRows[] = {
      {"1.11.22", {{"XDG_RUNTIME_DIR", "/r"}}, "/r/zccache/sock"},
      {"1.15.8", {{"XDG_RUNTIME_DIR", "/r"}}, "/r/zccache/sock-v1.15.8"},
      {"1.11.22", {{"XDG_RUNTIME_DIR", "/r/"}}, "/r//zccache/sock"},
      {"1.11.22", {{"XDG_RUNTIME_DIR", ""}, {"USER", "joe"}}, "/zccache/sock"},
      {"1.11.22", {{"USER", "joe"}}, "/tmp/zccache-joe/sock"},
      {"1.15.8", {{"USER", "joe"}}, "/tmp/zccache-joe/sock-v1.15.8"},
      {"1.11.22", {}, "/tmp/zccache-unknown/sock"},
      {"1.11.22",
       {{"ZCCACHE_CACHE_DIR", ""}, {"XDG_RUNTIME_DIR", "/r"}},
       "/r/zccache/sock"},
      {"1.11.22", {{"ZCCACHE_CACHE_DIR", "/c"}}, "/c/daemon.sock"},
      {"1.11.22", {{"ZCCACHE_CACHE_DIR", "rel/x"}}, "/w/rel/x/daemon.sock"},
      {"1.15.8",
       {{"ZCCACHE_CACHE_DIR", "/t/a/../b/./c/"}},
       "/t/b/c/v1.15.8/daemon-v1.15.8.sock"},
      {"1.15.8",
       {{"ZCCACHE_CACHE_DIR", "/c/v1.15.8"}},
       "/c/v1.15.8/daemon-v1.15.8.sock"},
      {"1.15.8",
       {{"ZCCACHE_CACHE_DIR", "/c"}, {"ZCCACHE_DAEMON_NAMESPACE", "my ns"}},
       "/c/v1.15.8/daemon-my_ns-v1.15.8.sock"},
      {"1.11.22",
       {{"XDG_RUNTIME_DIR", "/r"}, {"ZCCACHE_DAEMON_NAMESPACE", "my ns"}},
       "/r/zccache/sock-my_ns"},
      {"1.11.22",
       {{"ZCCACHE_CACHE_DIR", deep}},
       "/tmp/zccache-0483f3da35a068c8-daemon.sock"},
      {"1.15.8",
       {{"ZCCACHE_CACHE_DIR", deep}},
       "/tmp/zccache-b98a5f30256c83f2-daemon-v1.15.8.sock"},
      // From the spec: when each part of the version came in.
      {"1.12.6", {{"ZCCACHE_CACHE_DIR", "/c"}}, "/c/daemon.sock"},
      {"1.12.7", {{"ZCCACHE_CACHE_DIR", "/c"}}, "/c/v1.12.7/daemon.sock"},
      {"1.12.15", {{"XDG_RUNTIME_DIR", "/r"}}, "/r/zccache/sock"},
      {"1.12.16", {{"XDG_RUNTIME_DIR", "/r"}}, "/r/zccache/sock-v1.12.16"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(
        ZccacheDefaultEndpoint(Inputs(row.variables), row.version, Os::kLinux),
        row.endpoint)
        << row.version;
  }
}

TEST(ZccacheRulesTest, ADirectPathMayHave100Bytes) {
  // "/daemon.sock" takes 12 bytes.
  const std::string fits = "/" + std::string(87, 'd');
  EXPECT_EQ(ZccacheDefaultEndpoint(Inputs({{"ZCCACHE_CACHE_DIR", fits}}),
                                   "1.11.22", Os::kLinux),
            fits + "/daemon.sock");
  const std::string over = fits + "d";
  EXPECT_EQ(ZccacheDefaultEndpoint(Inputs({{"ZCCACHE_CACHE_DIR", over}}),
                                   "1.11.22", Os::kLinux),
            absl::StrCat("/tmp/zccache-", PathId16(over, Os::kLinux),
                         "-daemon.sock"));
}

TEST(ZccacheRulesTest, WindowsEndpointsArePipes) {
  EXPECT_EQ(ZccacheDefaultEndpoint(Inputs({{"USERNAME", "Zach Vorhies"}}),
                                   "1.11.22", Os::kWindows),
            "\\\\.\\pipe\\zccache-Zach_Vorhies-0d204d7e");
  EXPECT_EQ(ZccacheDefaultEndpoint(Inputs({}), "1.12.16", Os::kWindows),
            "\\\\.\\pipe\\zccache-unknown-v1.12.16");
  EXPECT_EQ(
      ZccacheDefaultEndpoint(Inputs({{"ZCCACHE_CACHE_DIR", "C:\\Cache"},
                                     {"ZCCACHE_DAEMON_NAMESPACE", "dev"}}),
                             "1.11.22", Os::kWindows),
      absl::StrCat("\\\\.\\pipe\\zccache-", PathId16("c:/cache", Os::kWindows),
                   "-dev"));
}

TEST(ZccacheRulesTest, AnExplicitEndpointIsVerbatim) {
  EXPECT_EQ(ZccacheClientEndpoint(Inputs({{"ZCCACHE_ENDPOINT", "x y"}}),
                                  "1.11.22", Os::kLinux),
            "x y");
  EXPECT_EQ(ZccacheClientEndpoint(Inputs({{"ZCCACHE_ENDPOINT", ""}}), "1.11.22",
                                  Os::kLinux),
            "");
  EXPECT_EQ(ZccacheClientEndpoint(Inputs({{"XDG_RUNTIME_DIR", "/r"}}),
                                  "1.11.22", Os::kLinux),
            "/r/zccache/sock");
}

TEST(ZccacheRulesTest, AWorldIsCacheRootAndNamespace) {
  const struct {
    Variables variables;
    ZccacheWorld world;
  } kRows[] = {
      {{{"HOME", "/home/u"}}, {"/home/u/.zccache", "default"}},
      {{{"HOME", "/home/u"}, {"ZCCACHE_CACHE_DIR", ""}},
       {"/home/u/.zccache", "default"}},
      {{{"USERPROFILE", "/p"}}, {"/p/.zccache", "default"}},
      {{}, {"/w/.zccache", "default"}},
      {{{"HOME", "/home/u"}, {"ZCCACHE_CACHE_DIR", "../c/"}},
       {"/c", "default"}},
      {{{"ZCCACHE_CACHE_DIR", "/c"}, {"ZCCACHE_DAEMON_NAMESPACE", " a/b "}},
       {"/c", "a_b"}},
  };
  for (const auto& row : kRows) {
    const ZccacheWorld world =
        ResolveZccacheWorld(Inputs(row.variables), Os::kLinux);
    EXPECT_EQ(world.cache_root, row.world.cache_root);
    EXPECT_EQ(world.daemon_namespace, row.world.daemon_namespace);
  }
}

TEST(ZccacheRulesTest, AWorldDependsOnNoOtherVariable) {
  std::vector<std::string> read;
  const ZccacheInputs inputs{
      [&read](absl::string_view name) -> absl::optional<std::string> {
        read.emplace_back(name);
        return absl::nullopt;
      },
      "/w"};
  ResolveZccacheWorld(inputs, Os::kLinux);
  const auto& known = ZccacheWorldVariables();
  for (const std::string& name : read) {
    EXPECT_NE(std::find(known.begin(), known.end(), name), known.end()) << name;
  }
}

TEST(ZccacheRulesTest, LanesByVersion) {
  const std::vector<WireLane> all = {WireLane::kFrameV1, WireLane::kProstV16,
                                     WireLane::kBincodeV15};
  const std::vector<WireLane> frame_only = {WireLane::kFrameV1};
  EXPECT_EQ(ZccacheLanes("1.11.22"), all);
  EXPECT_EQ(ZccacheLanes("1.12.9"), all);
  EXPECT_EQ(ZccacheLanes("1.12.10"), frame_only);
  EXPECT_EQ(ZccacheLanes("1.15.8"), frame_only);
}

}  // namespace
}  // namespace zcbroker::ipc
