#include "client/launcher/compile_request.h"

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace zcbroker::client {
namespace {

CompileCall Call() {
  CompileCall call;
  call.compiler = "/usr/bin/gcc";
  call.args = {"-c", "a.c"};
  call.cwd = "/work";
  call.environment = {"PATH=/bin", "PWD=/work", "EMPTY="};
  call.pid = 7;
  return call;
}

Invocation Of(CompilerFamily family) {
  Invocation invocation;
  invocation.family = family;
  return invocation;
}

// The argument that no compiler acts on.
std::string Key(const CompileCall& call,
                CompilerFamily family = CompilerFamily::kC) {
  const auto request = MakeCompileRequest(call, Of(family));
  EXPECT_TRUE(request.ok()) << request.status();
  const auto& args = request->compile_ephemeral().args();
  return args.Get(args.size() - 1);
}

TEST(CompileRequestTest, CarriesTheWholeCall) {
  const auto request = MakeCompileRequest(Call(), Of(CompilerFamily::kC));
  ASSERT_TRUE(request.ok()) << request.status();
  const auto& compile = request->compile_ephemeral();
  EXPECT_EQ(compile.compiler().value(), "/usr/bin/gcc");
  EXPECT_EQ(compile.cwd().value(), "/work");
  EXPECT_EQ(compile.working_dir().value(), "/work");
  EXPECT_EQ(compile.client_pid(), 7U);
  EXPECT_TRUE(compile.env_is_set());
  EXPECT_TRUE(compile.stdin_data().empty());
  ASSERT_EQ(compile.env_size(), 3);
  EXPECT_EQ(compile.env(2).name(), "EMPTY");
  EXPECT_EQ(compile.env(2).value(), "");
  ASSERT_EQ(compile.args_size(), 4);
  EXPECT_EQ(compile.args(1), "a.c");
  EXPECT_EQ(compile.args(2), "-idirafter");
  EXPECT_TRUE(absl::StartsWith(compile.args(3), "/proc/zcbroker/key/"));
  EXPECT_EQ(request->request_id(), "compile-ephemeral");
}

TEST(CompileRequestTest, TheKeyChangesWithAllThatDecidesTheResult) {
  std::set<std::string> keys = {Key(Call())};
  const auto add = [&](const CompileCall& call) {
    EXPECT_TRUE(keys.insert(Key(call)).second);
  };
  CompileCall call = Call();
  call.cwd = "/other";
  add(call);
  call = Call();
  call.args = {"-c", "./a.c"};
  add(call);
  call.args = {"-ca.c"};
  add(call);
  for (const char* entry : {"CPATH=i", "LC_ALL=C", "LANG=de_DE.UTF-8",
                            "SOURCE_DATE_EPOCH=0", "C_INCLUDE_PATH=x"}) {
    call = Call();
    call.environment.emplace_back(entry);
    add(call);
  }
  call = Call();
  call.environment[1] = "PWD=/link-to-work";
  add(call);
  call = Call();
  call.texts = {"int a;"};
  add(call);
  call.texts = {"int b;"};
  add(call);
  call = Call();
  call.compiler_stamp = "another";
  add(call);
}

TEST(CompileRequestTest, TheKeyStaysWhereNothingCounts) {
  CompileCall call = Call();
  call.pid = 8;
  call.environment = {"EMPTY=", "PATH=/usr/bin", "PWD=/work", "SHLVL=3"};
  EXPECT_EQ(Key(call), Key(Call()));
}

TEST(CompileRequestTest, RustReadsAnyVariableButNoise) {
  CompileCall call = Call();
  const std::string key = Key(call, CompilerFamily::kRust);
  EXPECT_TRUE(absl::StartsWith(key, "--remap-path-prefix=/proc/zcbroker/key/"));
  call.environment.emplace_back("SHLVL=3");
  call.environment.emplace_back("CARGO_MAKEFLAGS=-j --jobserver-fds=8,9");
  EXPECT_EQ(Key(call, CompilerFamily::kRust), key);
  call.environment.emplace_back("GIT_HASH=1");
  EXPECT_NE(Key(call, CompilerFamily::kRust), key);
}

TEST(CompileRequestTest, WhatCannotBeSentAsItIs) {
  const auto refused = [](const CompileCall& call) {
    return MakeCompileRequest(call, Of(CompilerFamily::kC)).status();
  };
  for (const char* entry :
       {"ODD=\xff", "no equals sign", "=x", "PATH=/twice",
        "DEPENDENCIES_OUTPUT=d", "SUNPRO_DEPENDENCIES=d", "COMPILER_PATH=p"}) {
    CompileCall call = Call();
    call.environment.emplace_back(entry);
    EXPECT_EQ(refused(call).code(), absl::StatusCode::kFailedPrecondition)
        << entry;
  }
  CompileCall call = Call();
  call.args.emplace_back("-D\xff");
  EXPECT_EQ(refused(call).code(), absl::StatusCode::kFailedPrecondition);
  call = Call();
  call.cwd = "/\xff";
  EXPECT_EQ(refused(call).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace zcbroker::client
