#include "client/launcher/invocation.h"

#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"

namespace zcbroker::client {
namespace {

// A file system of a few names.
FileProbe Files() {
  return FileProbe{[](const std::string& path) {
                     static const std::map<std::string, FileKind> kFiles = {
                         {".", FileKind::kDirectory},
                         {"sub", FileKind::kDirectory},
                         {"/", FileKind::kDirectory},
                         {"a.c", FileKind::kRegular},
                         {"b.cpp", FileKind::kRegular},
                         {"s.S", FileKind::kRegular},
                         {"lib.rs", FileKind::kRegular},
                         {"old.o", FileKind::kRegular},
                         {"pipe", FileKind::kOther},
                         {"pipe.c", FileKind::kOther},
                         {"words.rsp", FileKind::kRegular},
                         {"quoted.rsp", FileKind::kRegular},
                         {"loop.rsp", FileKind::kRegular},
                         {"/a.c", FileKind::kRegular}};
                     const auto found = kFiles.find(path);
                     return found == kFiles.end() ? FileKind::kMissing
                                                  : found->second;
                   },
                   [](const std::string& path) -> absl::optional<std::string> {
                     if (path == "words.rsp") {
                       return std::string("-c a.c\n-o sub/a.o");
                     }
                     if (path == "quoted.rsp") return std::string("-c 'a.c'");
                     if (path == "loop.rsp") return std::string("@loop.rsp");
                     return absl::nullopt;
                   }};
}

Invocation JudgeCall(absl::string_view call) {
  std::vector<absl::string_view> words =
      absl::StrSplit(call, ' ', absl::SkipEmpty());
  const absl::string_view program = words.front();
  words.erase(words.begin());
  return Judge(program, words, Files());
}

TEST(FamilyOfTest, GoesByTheLastComponent) {
  for (const char* name : {"gcc", "/usr/bin/cc", "x86_64-linux-gnu-g++-12",
                           "clang++", "clang-14.0.6", "/opt/x/c++"}) {
    EXPECT_EQ(FamilyOf(name), CompilerFamily::kC) << name;
  }
  EXPECT_EQ(FamilyOf("/root/.cargo/bin/rustc"), CompilerFamily::kRust);
  for (const char* name : {"ar", "ld", "ccache", "nvcc", "gcc-ar", "gcc-", "",
                           "clang-format-14", "rustdoc"}) {
    EXPECT_EQ(FamilyOf(name), CompilerFamily::kUnknown) << name;
  }
}

struct Sent {
  const char* call;
  const char* source;
  const char* output;
  const char* depfile;
  bool debug_info = false;
};

TEST(JudgeTest, WhatADaemonMayDo) {
  const Sent kRows[] = {
      {"gcc -c a.c", "a.c", "a.o", ""},
      {"gcc -c a.c -o sub/x.o", "a.c", "sub/x.o", ""},
      {"gcc -c a.c -oold.o", "a.c", "old.o", ""},
      {"g++ -std=c++17 -g -c b.cpp", "b.cpp", "b.o", "", true},
      {"gcc -g0 -c a.c", "a.c", "a.o", ""},
      {"gcc -MD -c a.c -o sub/x.o", "a.c", "sub/x.o", "sub/x.d"},
      {"gcc -MMD -MP -MF sub/q -MT t -c a.c", "a.c", "a.o", "sub/q"},
      {"gcc -D X -I sub -include y.h -c a.c", "a.c", "a.o", ""},
      {"gcc -x c++ -c a.c", "a.c", "a.o", ""},
      {"gcc --param max-inline-insns-auto=9 --param=x=1 --std=c99 --sysroot=/ "
       "-c a.c",
       "a.c", "a.o", ""},
      {"gcc -Wp,-DX=1 -Wa,--noexecstack -c a.c", "a.c", "a.o", ""},
      {"gcc -c /a.c -o /a.o", "/a.c", "/a.o", ""},
      {"gcc @words.rsp", "a.c", "sub/a.o", ""},
      {"rustc --crate-name x --crate-type lib --emit=link,metadata --out-dir "
       "sub -C opt-level=3 --extern y=liby.rlib lib.rs",
       "lib.rs", "", ""},
  };
  for (const Sent& row : kRows) {
    const Invocation invocation = JudgeCall(row.call);
    EXPECT_EQ(invocation.why_not, "") << row.call;
    EXPECT_TRUE(invocation.compiles) << row.call;
    EXPECT_EQ(invocation.source, row.source) << row.call;
    EXPECT_EQ(invocation.output, row.output) << row.call;
    EXPECT_EQ(invocation.depfile, row.depfile) << row.call;
    EXPECT_EQ(invocation.debug_info, row.debug_info) << row.call;
  }
}

struct Kept {
  const char* call;
  const char* why;
  // A cache could have helped: worth a note.
  bool compiles = true;
};

TEST(JudgeTest, WhatIsForTheCompiler) {
  const Kept kRows[] = {
      {"gcc a.c", "not a compilation", false},
      {"gcc -E a.c", "not a compilation", false},
      {"gcc --version", "not a compilation", false},
      {"ar rcs x.a", "no compiler", false},
      {"gcc -c -", "standard input"},
      {"gcc -x c -c /dev/stdin", "no plain file"},
      {"gcc -include /dev/fd/63 -c a.c", "no plain file"},
      {"gcc -c pipe.c", "source is no plain file"},
      {"gcc -c none.c", "source is no plain file"},
      {"gcc -c a.c -o pipe", "pipe is no plain file"},
      {"gcc -c a.c -o sub", "sub is no plain file"},
      {"gcc -c a.c -o none/a.o", "none is not there"},
      {"gcc -MD -MF none/a.d -c a.c", "none is not there"},
      {"gcc -c a.c -o -", "standard output"},
      {"gcc -MD -MF - -c a.c", "standard output"},
      {"gcc -c a.c -o x.o -o y.o", "twice"},
      {"gcc -c a.c -o", "without a name"},
      {"gcc -c a.c -D", "without a value"},
      {"gcc -c a.c b.cpp", "exactly one source"},
      {"gcc -c", "exactly one source"},
      {"gcc -c s.S", "by its name"},
      {"gcc -x assembler -c a.c", "a language"},
      {"gcc -MFq -MD -c a.c", "misreads"},
      {"gcc -MF q -c a.c", "without -MD"},
      {"gcc -save-temps=obj -c a.c", "itself"},
      {"gcc --coverage -c a.c", "itself"},
      {"gcc -fprofile-use=x -c a.c", "itself"},
      {"gcc -gsplit-dwarf -c a.c", "itself"},
      {"gcc -fstack-usage -c a.c", "itself"},
      {"gcc -Wp,-MD,x -c a.c", "itself"},
      {"gcc -Wp,-DX,-MD,x -c a.c", "itself"},
      {"gcc -Wa,-ahl=x -c a.c", "itself"},
      {"gcc -dD -c a.c", "itself"},
      {"gcc -H -c a.c", "itself"},
      {"gcc --write-dependencies -c a.c", "itself"},
      {"gcc --write-user-dependencies -c a.c", "itself"},
      {"gcc --dependencies -c a.c", "itself"},
      {"gcc --output=x.o -c a.c", "itself"},
      {"gcc --include=y.h -c a.c", "itself"},
      {"gcc --save-temps -c a.c", "itself"},
      {"gcc -c -- a.c", "itself"},
      {"clang -emit-llvm -c a.c", "itself"},
      {"clang -Xclang -fx -c a.c", "itself"},
      {"gcc @quoted.rsp", "response file", false},
      {"gcc @none.rsp", "response file", false},
      {"gcc @loop.rsp", "response file", false},
      {"rustc -vV", "not a crate", false},
      {"rustc - --crate-name ___ --print=cfg", "not a crate", false},
      {"rustc --crate-name x --emit=link --out-dir . --crate-type bin lib.rs",
       "links"},
      {"rustc --crate-name x --emit=link --out-dir . --crate-type lib,cdylib "
       "lib.rs",
       "links"},
      {"rustc --crate-name x --emit=asm --out-dir . --crate-type lib lib.rs",
       "--emit=asm"},
      {"rustc --crate-name x --emit=link --out-dir . --crate-type lib -C "
       "incremental=i lib.rs",
       "incremental"},
      {"rustc --crate-name x --emit=link --out-dir . --crate-type lib -",
       "plain source"},
  };
  for (const Kept& row : kRows) {
    const Invocation invocation = JudgeCall(row.call);
    EXPECT_TRUE(absl::StrContains(invocation.why_not, row.why))
        << row.call << ": " << invocation.why_not;
    EXPECT_EQ(invocation.compiles, row.compiles) << row.call;
  }
}

TEST(ReadsWhatNoCacheSeesTest, GoesByTheWordsOfTheSource) {
  const struct {
    const char* text;
    const char* word;
  } kRows[] = {
      {"int a;", ""},
      {"", ""},
      {"// an embedded \"embed\" # 1\n", ""},
      {"__asm__(\".incbin \\\"x\\\"\");", "incbin"},
      {"char *t = __TIMESTAMP__;", "__TIMESTAMP__"},
      {"char *t = __DATE__;", "__DATE__"},
      {"char *t = __TIME__;", "__TIME__"},
      {"#if __has_include(<x.h>)", "__has_include"},
      {"#if __has_include_next(<x.h>)", "__has_include"},
      {"#if __has_embed(<x>)", "__has_embed"},
      {"// embed\n#embed <x>", "#embed"},
      {"# \tembed <x>", "#embed"},
      {"%: embed <x>", "#embed"},
      {"___TIME__", "__TIME__"},
      {"__TIME_", ""},
      {"bin embed b", ""},
      {"#embe", ""},
      {"#em\n#embed", "#embed"},
      {"incb incbi incbin", "incbin"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(ReadsWhatNoCacheSees(row.text), row.word) << row.text;
  }
}

}  // namespace
}  // namespace zcbroker::client
