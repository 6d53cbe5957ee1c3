#include "client/launcher/invocation.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace zcbroker::client {
namespace {

using Words = std::vector<absl::string_view>;

absl::string_view BaseName(absl::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? path : path.substr(slash + 1);
}

template <std::size_t N>
bool IsOneOf(absl::string_view word, const absl::string_view (&list)[N]) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

template <std::size_t N>
bool StartsWithOneOf(absl::string_view word,
                     const absl::string_view (&list)[N]) {
  return std::any_of(
      std::begin(list), std::end(list),
      [&](absl::string_view prefix) { return absl::StartsWith(word, prefix); });
}

// Files that are not what they are a moment later.
bool NamesADescriptor(absl::string_view word) {
  return absl::StrContains(word, "/dev/fd/") ||
         absl::StrContains(word, "/dev/std") ||
         absl::StrContains(word, "/proc/");
}

Invocation Refuse(Invocation invocation, std::string why) {
  invocation.why_not = std::move(why);
  return invocation;
}

// Response files replaced by their words. What would need the compiler's
// rules of quoting is an error, told in `why`.
bool Expand(const Words& args, const FileProbe& files, int depth, Words* words,
            std::list<std::string>* texts, std::string* why) {
  for (const absl::string_view arg : args) {
    if (arg.size() < 2 || arg[0] != '@') {
      words->push_back(arg);
      continue;
    }
    const std::string path(arg.substr(1));
    absl::optional<std::string> text;
    if (depth < 8 && files.kind(path) == FileKind::kRegular) {
      text = files.text(path);
    }
    if (!text.has_value() || absl::StrContains(*text, '\0') ||
        text->find_first_of("\\'\"") != std::string::npos) {
      *why = "a response file that is missing, no plain file, or quotes words";
      return false;
    }
    // A list, for the words are views into its texts.
    texts->push_back(*std::move(text));
    const Words inner = absl::StrSplit(
        texts->back(), absl::ByAnyChar(" \t\n\r\v\f"), absl::SkipEmpty());
    if (!Expand(inner, files, depth + 1, words, texts, why)) return false;
  }
  return true;
}

// --- C, C++ and Objective-C: gcc and clang

// Options whose value is the next word, and which change nothing that a
// daemon would get wrong.
constexpr absl::string_view kTakesWord[] = {"-D",
                                            "-U",
                                            "-I",
                                            "-include",
                                            "-imacros",
                                            "-isystem",
                                            "-iquote",
                                            "-idirafter",
                                            "-iprefix",
                                            "-iwithprefix",
                                            "-iwithprefixbefore",
                                            "-isysroot",
                                            "-imultilib",
                                            "-MT",
                                            "-MQ",
                                            "-L",
                                            "-l",
                                            "-T",
                                            "-u",
                                            "-z",
                                            "-A",
                                            "-target",
                                            "--param",
                                            "-mllvm",
                                            "-gcc-toolchain",
                                            "--sysroot",
                                            "-Xlinker"};

// They leave files, or print, besides object and dependency file; or read what
// no dependency file names; or what they mean a cache cannot know. Seen with
// the real daemon: the second time their files are missing.
constexpr absl::string_view kRefusedPrefixes[] = {"-save-temps",
                                                  "-fprofile",
                                                  "-ftest-coverage",
                                                  "-fbranch-probabilities",
                                                  "-fauto-profile",
                                                  "-gsplit-dwarf",
                                                  "-fdump",
                                                  "-fstack-usage",
                                                  "-fcallgraph-info",
                                                  "-fsave-optimization-record",
                                                  "-foptimization-record",
                                                  "-fopt-info",
                                                  "-ftime-report",
                                                  "-ftime-trace",
                                                  "-fmem-report",
                                                  "-fplugin",
                                                  "-iplugindir",
                                                  "-specs",
                                                  "-wrapper",
                                                  "-fmodule",
                                                  "-fimplicit-module",
                                                  "-fprebuilt",
                                                  "-fdeps-",
                                                  "-fcompare-debug",
                                                  "-fada-spec",
                                                  "-emit-",
                                                  "-Wp,",
                                                  "-Wa,",
                                                  "-Xassembler",
                                                  "-Xpreprocessor",
                                                  "-Xclang",
                                                  "-Xarch",
                                                  "-MJ",
                                                  "-MG",
                                                  "-aux-info",
                                                  "-dump",
                                                  "-print",
                                                  "-serialize-diagnostics",
                                                  "-fdiagnostics-format",
                                                  "-fdiagnostics-add",
                                                  "-frecord-gcc-switches",
                                                  "-grecord-command-line",
                                                  "-frecord-command-line",
                                                  "-fbuiltin-module",
                                                  "-fpch",
                                                  "-include-pch",
                                                  "-ivfsoverlay",
                                                  "-B",
                                                  "-Wmissing-include-dirs",
                                                  "-fcrash",
                                                  "-fthinlto",
                                                  "-fembed",
                                                  "-fsanitize-coverage",
                                                  "-fxray",
                                                  "-arch"};

constexpr absl::string_view kRefusedWords[] = {"-E",
                                               "-S",
                                               "-M",
                                               "-MM",
                                               "-v",
                                               "-###",
                                               "-Q",
                                               "-H",
                                               "-time",
                                               "-fsyntax-only",
                                               "-P",
                                               "-no-canonical-prefixes",
                                               "-canonical-prefixes",
                                               "-pass-exit-codes",
                                               "-flto-report"};

// Every option has a long spelling, --write-dependencies for -MD and so on, so
// what these may be is told, not what they may not be.
constexpr absl::string_view kLongWords[] = {"--param", "--sysroot"};
constexpr absl::string_view kLongPrefixes[] = {
    "--param=", "--sysroot=", "--std=", "--target=", "--gcc-toolchain="};

bool IsStrangeLongWord(absl::string_view word) {
  return absl::StartsWith(word, "--") && !IsOneOf(word, kLongWords) &&
         !StartsWithOneOf(word, kLongPrefixes);
}

// Of -Wa and -Wp what leaves no files and reads none.
bool IsHarmlessPassThrough(absl::string_view word) {
  if (word == "-Wa,--noexecstack") return true;
  return (absl::StartsWith(word, "-Wp,-D") ||
          absl::StartsWith(word, "-Wp,-U")) &&
         word.find(',', 4) == absl::string_view::npos;
}

// -d with letters dumps; -dD and the like do, too.
bool IsDump(absl::string_view word) {
  return word.size() > 1 && word[0] == '-' && word[1] == 'd';
}

constexpr absl::string_view kSourceSuffixes[] = {".c",   ".i",   ".cc",  ".cp",
                                                 ".cxx", ".cpp", ".c++", ".C",
                                                 ".CPP", ".ii",  ".m",   ".mm"};

absl::string_view Suffix(absl::string_view path) {
  const absl::string_view name = BaseName(path);
  const std::size_t dot = name.rfind('.');
  return dot == absl::string_view::npos ? absl::string_view()
                                        : name.substr(dot);
}

std::string WithSuffix(absl::string_view path, absl::string_view suffix) {
  path.remove_suffix(Suffix(path).size());
  return absl::StrCat(path, suffix);
}

std::string DirectoryOf(absl::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return std::string(path.substr(0, std::max<std::size_t>(slash, 1)));
}

// What the words of a C compiler's call add up to.
struct CCall {
  std::vector<std::string> sources;
  absl::optional<std::string> output;
  absl::optional<std::string> depfile;
  bool compile_only = false;
  bool depends = false;
  std::string trouble;
};

// The value of the option at `i`: the rest of its word, else the next word.
absl::optional<std::string> Value(const Words& words, std::size_t* i,
                                  absl::string_view option) {
  absl::string_view rest = words[*i];
  if (absl::ConsumePrefix(&rest, option) && !rest.empty()) {
    return std::string(rest);
  }
  if (*i + 1 >= words.size()) return absl::nullopt;
  return std::string(words[++*i]);
}

void ReadWord(const Words& words, std::size_t* i, CCall* call,
              Invocation* invocation) {
  const absl::string_view word = words[*i];
  if (word == "-") {
    call->trouble = "the source is standard input";
  } else if (NamesADescriptor(word)) {
    call->trouble = absl::StrCat(word, " is no plain file");
  } else if (word.empty() || word[0] != '-') {
    call->sources.emplace_back(word);
  } else if (word == "-c") {
    call->compile_only = true;
  } else if (word == "-MD" || word == "-MMD") {
    call->depends = true;
  } else if (word == "-MP" || IsHarmlessPassThrough(word)) {
    // Nothing that an output's name depends on.
  } else if (IsOneOf(word, kRefusedWords) || IsStrangeLongWord(word) ||
             StartsWithOneOf(word, kRefusedPrefixes) || IsDump(word)) {
    call->trouble = absl::StrCat(word, " is for the compiler itself");
  } else if (absl::StartsWith(word, "-MF") && word != "-MF") {
    call->trouble = "-MF in one word with its file, which zccache misreads";
  } else if (word == "-MF") {
    call->depfile = Value(words, i, "-MF");
    if (!call->depfile.has_value()) call->trouble = "-MF without a name";
  } else if (absl::StartsWith(word, "-o")) {
    // Two outputs: the compiler knows which it means.
    if (call->output.has_value()) call->trouble = "-o given twice";
    call->output = Value(words, i, "-o");
    if (!call->output.has_value()) call->trouble = "-o without a name";
  } else if (absl::StartsWith(word, "-x")) {
    const absl::optional<std::string> language = Value(words, i, "-x");
    if (language != "c" && language != "c++" && language != "none") {
      call->trouble = "a language other than C and C++";
    }
  } else if (IsOneOf(word, kTakesWord)) {
    if (++*i >= words.size()) {
      call->trouble = absl::StrCat(word, " without a value");
    } else if (NamesADescriptor(words[*i])) {
      call->trouble = absl::StrCat(words[*i], " is no plain file");
    }
  } else if (absl::StartsWith(word, "-g") && word != "-g0") {
    invocation->debug_info = true;
  }
}

// Where the output goes and whether it can be written there as the compiler
// would; sets why_not where it cannot.
void CheckOutputs(const FileProbe& files, Invocation* invocation) {
  for (const std::string& path : {invocation->output, invocation->depfile}) {
    if (path.empty()) continue;
    const FileKind kind = files.kind(path);
    if (kind != FileKind::kMissing && kind != FileKind::kRegular) {
      invocation->why_not = absl::StrCat(path, " is no plain file");
    } else if (files.kind(DirectoryOf(path)) != FileKind::kDirectory) {
      // A daemon would make the directory, where a compiler fails.
      invocation->why_not = absl::StrCat(DirectoryOf(path), " is not there");
    }
  }
}

Invocation JudgeC(const Words& words, const FileProbe& files) {
  Invocation invocation;
  invocation.family = CompilerFamily::kC;
  CCall call;
  for (std::size_t i = 0; i < words.size(); ++i) {
    ReadWord(words, &i, &call, &invocation);
  }
  if (!call.compile_only) {
    return Refuse(std::move(invocation), "not a compilation to an object");
  }
  invocation.compiles = true;
  if (!call.trouble.empty()) {
    return Refuse(std::move(invocation), std::move(call.trouble));
  }
  if (call.sources.size() != 1) {
    return Refuse(std::move(invocation), "not exactly one source");
  }
  invocation.source = call.sources[0];
  if (!IsOneOf(Suffix(invocation.source), kSourceSuffixes)) {
    return Refuse(std::move(invocation), "not a C or C++ source by its name");
  }
  if (files.kind(invocation.source) != FileKind::kRegular) {
    return Refuse(std::move(invocation), "the source is no plain file");
  }
  if (call.output == "-" || call.depfile == "-") {
    return Refuse(std::move(invocation), "the output is standard output");
  }
  invocation.output =
      call.output.value_or(WithSuffix(BaseName(invocation.source), ".o"));
  if (call.depends) {
    invocation.depfile =
        call.depfile.value_or(WithSuffix(invocation.output, ".d"));
  } else if (call.depfile.has_value()) {
    return Refuse(std::move(invocation), "-MF without -MD");
  }
  CheckOutputs(files, &invocation);
  return invocation;
}

// --- Rust

constexpr absl::string_view kRustTakesWord[] = {"--crate-name",
                                                "--edition",
                                                "--cfg",
                                                "--check-cfg",
                                                "--extern",
                                                "-L",
                                                "-l",
                                                "--cap-lints",
                                                "-A",
                                                "-W",
                                                "-D",
                                                "-F",
                                                "--allow",
                                                "--warn",
                                                "--deny",
                                                "--forbid",
                                                "--target",
                                                "--error-format",
                                                "--json",
                                                "--color",
                                                "--diagnostic-width",
                                                "--remap-path-prefix",
                                                "--sysroot",
                                                "--codegen"};

// Of -C: what reads or leaves files of its own.
constexpr absl::string_view kRustRefusedCodegen[] = {
    "incremental", "save-temps",      "profile",    "linker",    "link-",
    "remark",      "split-debuginfo", "instrument", "llvm-args", "dep-info"};

struct RustCall {
  std::vector<std::string> sources;
  std::vector<std::string> crate_types;
  bool named = false;
  bool placed = false;
  bool emits = false;
  std::string trouble;
};

void ReadRustWord(const Words& words, std::size_t* i, RustCall* call) {
  absl::string_view word = words[*i];
  absl::string_view option = word.substr(0, word.find('='));
  const auto value = [&]() -> std::string {
    if (option.size() < word.size()) {
      return std::string(word.substr(option.size() + 1));
    }
    return *i + 1 < words.size() ? std::string(words[++*i]) : std::string();
  };
  if (word.empty() || word[0] != '-' || word == "-") {
    call->sources.emplace_back(word);
  } else if (option == "--crate-name") {
    call->named = !value().empty();
  } else if (option == "--crate-type") {
    for (absl::string_view type : absl::StrSplit(value(), ',')) {
      call->crate_types.emplace_back(type);
    }
  } else if (option == "--emit") {
    call->emits = true;
    const std::string kinds = value();
    for (absl::string_view kind : absl::StrSplit(kinds, ',')) {
      if (kind != "dep-info" && kind != "metadata" && kind != "link") {
        call->trouble = absl::StrCat("--emit=", kind);
      }
    }
  } else if (option == "--out-dir") {
    call->placed = !value().empty();
  } else if (absl::StartsWith(word, "-C")) {
    absl::string_view codegen = word.substr(2);
    if (codegen.empty() && *i + 1 < words.size()) codegen = words[++*i];
    if (StartsWithOneOf(codegen, kRustRefusedCodegen)) {
      call->trouble = absl::StrCat("-C ", codegen);
    }
  } else if (option == "--codegen" || option == "--test" ||
             option == "--print" || absl::StartsWith(word, "-Z") ||
             absl::StartsWith(word, "-o") || absl::StartsWith(word, "-v") ||
             absl::StartsWith(word, "-h") || absl::StartsWith(word, "-V") ||
             option == "--version" || option == "--help" ||
             option == "--explain") {
    call->trouble = absl::StrCat(word, " is for the compiler itself");
  } else if (IsOneOf(option, kRustTakesWord)) {
    (void)value();
  }
}

Invocation JudgeRust(const Words& words, const FileProbe& files) {
  Invocation invocation;
  invocation.family = CompilerFamily::kRust;
  RustCall call;
  for (std::size_t i = 0; i < words.size(); ++i) {
    ReadRustWord(words, &i, &call);
  }
  if (!call.named || !call.emits || !call.placed) {
    return Refuse(std::move(invocation),
                  "not a crate with its name, kinds and place of output");
  }
  invocation.compiles = true;
  if (!call.trouble.empty()) {
    return Refuse(std::move(invocation), std::move(call.trouble));
  }
  const bool library =
      !call.crate_types.empty() &&
      std::all_of(call.crate_types.begin(), call.crate_types.end(),
                  [](const std::string& type) {
                    return type == "lib" || type == "rlib";
                  });
  if (!library) return Refuse(std::move(invocation), "it links");
  if (call.sources.size() != 1 ||
      files.kind(call.sources[0]) != FileKind::kRegular) {
    return Refuse(std::move(invocation), "not exactly one plain source");
  }
  invocation.source = call.sources[0];
  return invocation;
}

// "#embed", "# embed", "%:embed": not the word in a comment.
bool IsEmbedDirective(absl::string_view text, std::size_t at) {
  const absl::string_view before =
      absl::StripTrailingAsciiWhitespace(text.substr(0, at));
  return absl::EndsWith(before, "#") || absl::EndsWith(before, "%:");
}

// What `word_at` finds at the first of the places where `letter` is.
template <typename WordAt>
absl::string_view FindAt(absl::string_view text, char letter, WordAt word_at) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const void* const found =
        std::memchr(text.data() + at, letter, text.size() - at);
    if (found == nullptr) break;
    at =
        static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    const absl::string_view word = word_at(at);
    if (!word.empty()) return word;
  }
  return absl::string_view();
}

}  // namespace

// By letters that are rare in sources: a search for each of the words would be
// 2 % of a hit with a source of 20 kB.
absl::string_view ReadsWhatNoCacheSees(absl::string_view source) {
  const absl::string_view macro = FindAt(source, '_', [&](std::size_t at) {
    for (const absl::string_view word :
         {"__TIMESTAMP__", "__DATE__", "__TIME__", "__has_include",
          "__has_embed"}) {
      if (absl::StartsWith(source.substr(at), word)) return word;
    }
    return absl::string_view();
  });
  if (!macro.empty()) return macro;
  return FindAt(source, 'b', [&](std::size_t at) {
    if (at >= 3 && absl::StartsWith(source.substr(at - 3), "incbin")) {
      return absl::string_view("incbin");
    }
    if (at >= 2 && absl::StartsWith(source.substr(at - 2), "embed") &&
        IsEmbedDirective(source, at - 2)) {
      return absl::string_view("#embed");
    }
    return absl::string_view();
  });
}

CompilerFamily FamilyOf(absl::string_view program) {
  absl::string_view name = BaseName(program);
  // "-12", "-14.0.6"
  const std::size_t dash = name.rfind('-');
  if (dash != absl::string_view::npos && dash + 1 < name.size() &&
      std::all_of(name.begin() + dash + 1, name.end(),
                  [](char c) { return absl::ascii_isdigit(c) || c == '.'; })) {
    name = name.substr(0, dash);
  }
  if (name == "rustc") return CompilerFamily::kRust;
  for (absl::string_view compiler :
       {"gcc", "g++", "cc", "c++", "clang", "clang++"}) {
    if (name == compiler || absl::EndsWith(name, absl::StrCat("-", compiler))) {
      return CompilerFamily::kC;
    }
  }
  return CompilerFamily::kUnknown;
}

Invocation Judge(absl::string_view program, const Words& args,
                 const FileProbe& files) {
  const CompilerFamily family = FamilyOf(program);
  if (family == CompilerFamily::kUnknown) {
    return Refuse(Invocation(), "no compiler we know");
  }
  Words words;
  std::list<std::string> texts;
  std::string why;
  if (!Expand(args, files, 0, &words, &texts, &why)) {
    Invocation invocation;
    invocation.family = family;
    return Refuse(std::move(invocation), std::move(why));
  }
  return family == CompilerFamily::kC ? JudgeC(words, files)
                                      : JudgeRust(words, files);
}

}  // namespace zcbroker::client
