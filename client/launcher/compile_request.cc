#include "client/launcher/compile_request.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "ipc/wire/lane_choice.h"
#include "ipc/wire/utf8.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::client {
namespace {

// A path that is nobody's: /proc makes no entries on demand.
constexpr absl::string_view kNowhere = "/proc/zcbroker/key/";

absl::string_view NameOf(absl::string_view entry) {
  return entry.substr(0, entry.find('='));
}

// Variables that change what a C compiler reads or prints.
bool ConcernsC(absl::string_view name) {
  return absl::StartsWith(name, "LC_") || absl::StartsWith(name, "GCC_") ||
         absl::EndsWith(name, "_INCLUDE_PATH") || name == "CPATH" ||
         name == "LANG" || name == "LANGUAGE" || name == "SOURCE_DATE_EPOCH" ||
         name == "SDKROOT";
}

// Variables that make a C compiler write another file, or run other programs.
bool IsForCompiler(absl::string_view name) {
  return name == "DEPENDENCIES_OUTPUT" || name == "SUNPRO_DEPENDENCIES" ||
         name == "COMPILER_PATH" || name == "GCC_EXEC_PREFIX" ||
         name == "GCC_COMPARE_DEBUG" || name == "CCC_OVERRIDE_OPTIONS";
}

// Variables that differ from one shell to the next and that no crate reads.
bool IsNoise(absl::string_view name) {
  static constexpr absl::string_view kNames[] = {
      "_",        "PWD",       "OLDPWD",          "SHLVL",     "MAKEFLAGS",
      "MFLAGS",   "MAKELEVEL", "CARGO_MAKEFLAGS", "TERM",      "COLORTERM",
      "WINDOWID", "LS_COLORS", "DISPLAY",         "COLUMNS",   "LINES",
      "NUM_JOBS", "PPID",      "RUSTC_WRAPPER",   "TMUX_PANE", "XAUTHORITY"};
  if (std::find(std::begin(kNames), std::end(kNames), name) !=
      std::end(kNames)) {
    return true;
  }
  for (absl::string_view prefix : {"ZCCACHE_", "ZCBROKER_", "RUNNING_PROCESS_",
                                   "SSH_", "XDG_", "DBUS_", "TMUX"}) {
    if (absl::StartsWith(name, prefix)) return true;
  }
  return false;
}

void AddTo(std::string* identity, absl::string_view text) {
  absl::StrAppend(identity, text.size(), ":", text, ";");
}

// All that decides the result, files included as far as they are known.
std::string Identity(const CompileCall& call, const Invocation& invocation) {
  std::string identity;
  const bool rust = invocation.family == CompilerFamily::kRust;
  AddTo(&identity, call.cwd);
  AddTo(&identity, call.compiler_stamp);
  for (const absl::string_view arg : call.args) AddTo(&identity, arg);
  std::vector<absl::string_view> entries;
  for (const absl::string_view entry : call.environment) {
    const absl::string_view name = NameOf(entry);
    if (rust ? !IsNoise(name) : ConcernsC(name)) entries.push_back(entry);
    // A working directory spelled otherwise is so in debug information.
    if (!rust && name == "PWD" && entry.substr(4) != call.cwd) {
      entries.push_back(entry);
    }
  }
  std::sort(entries.begin(), entries.end());
  for (const absl::string_view entry : entries) AddTo(&identity, entry);
  for (const absl::string_view text : call.texts) {
    // The standard library's takes eight bytes a step, where Fnv64's one would
    // be 2 % of a hit. Another library's hash only means to compile once more.
    const std::size_t hash = std::hash<std::string_view>()(
        std::string_view(text.data(), text.size()));
    absl::StrAppend(&identity, hash, ";");
  }
  return identity;
}

// Whether names are distinct, every entry is one and may be sent.
absl::Status CheckEnvironment(
    const std::vector<absl::string_view>& environment) {
  std::vector<absl::string_view> names;
  names.reserve(environment.size());
  for (const absl::string_view entry : environment) {
    const absl::string_view name = NameOf(entry);
    if (name.empty() || name.size() == entry.size()) {
      return absl::FailedPreconditionError(
          "the environment has an entry without a name");
    }
    if (!ipc::IsUtf8(entry)) {
      return absl::FailedPreconditionError("the environment is not UTF-8");
    }
    if (IsForCompiler(name)) {
      return absl::FailedPreconditionError(
          absl::StrCat(name, " is for the compiler itself"));
    }
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  if (std::adjacent_find(names.begin(), names.end()) != names.end()) {
    return absl::FailedPreconditionError("the environment has a name twice");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<zccache::v1::Request> MakeCompileRequest(
    const CompileCall& call, const Invocation& invocation) {
  absl::Status environment = CheckEnvironment(call.environment);
  if (!environment.ok()) return environment;
  for (const absl::string_view text : call.args) {
    if (!ipc::IsUtf8(text)) {
      return absl::FailedPreconditionError("an argument is not UTF-8");
    }
  }
  if (!ipc::IsUtf8(call.cwd) || !ipc::IsUtf8(call.compiler)) {
    return absl::FailedPreconditionError("a path is not UTF-8");
  }

  zccache::v1::Request request;
  zccache::v1::CompileEphemeral& compile = *request.mutable_compile_ephemeral();
  compile.set_client_pid(call.pid);
  compile.mutable_working_dir()->set_value(call.cwd);
  compile.mutable_cwd()->set_value(call.cwd);
  compile.mutable_compiler()->set_value(call.compiler);
  for (const absl::string_view arg : call.args) {
    compile.add_args(arg.data(), arg.size());
  }
  // Not BLAKE3: finding out what the processor can do costs a hit 1 %.
  const std::string nowhere = absl::StrCat(
      kNowhere,
      absl::Hex(ipc::Fnv64(Identity(call, invocation)), absl::kZeroPad16));
  if (invocation.family == CompilerFamily::kRust) {
    compile.add_args(
        absl::StrCat("--remap-path-prefix=", nowhere, "=", nowhere));
  } else {
    compile.add_args("-idirafter");
    compile.add_args(nowhere);
  }
  for (const absl::string_view entry : call.environment) {
    const absl::string_view name = NameOf(entry);
    zccache::v1::EnvVar& variable = *compile.add_env();
    variable.set_name(name.data(), name.size());
    const absl::string_view value = entry.substr(name.size() + 1);
    variable.set_value(value.data(), value.size());
  }
  compile.set_env_is_set(true);
  const absl::string_view id = ipc::CanonicalRequestId(request);
  request.set_request_id(id.data(), id.size());
  return request;
}

}  // namespace zcbroker::client
