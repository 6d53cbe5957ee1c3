#include "ipc/zccache_rules.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/names.h"

namespace zcbroker::ipc {
namespace {

constexpr std::size_t kMaxNamePart = 32;
constexpr std::size_t kMaxDirectPath = 100;

bool IsSafe(char c) {
  return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
}

// One '_' for every character (not byte) of UTF-8 that is not safe.
std::string Replaced(absl::string_view text) {
  std::string result;
  for (char c : text) {
    const bool continuation = (static_cast<unsigned char>(c) & 0xC0) == 0x80;
    if (continuation) continue;
    result.push_back(IsSafe(c) ? c : '_');
  }
  return result;
}

std::string Shortened(absl::string_view replaced, absl::string_view original) {
  return absl::StrCat(replaced.substr(0, kMaxNamePart), "-", Short8(original));
}

bool IsAtLeast(absl::string_view version, absl::string_view floor) {
  return CompareVersions(version, floor) >= 0;
}

bool NamesCarryVersion(absl::string_view version) {
  return IsAtLeast(version, "1.12.16");
}

bool CacheRootCarriesVersion(absl::string_view version) {
  return IsAtLeast(version, "1.12.7");
}

absl::optional<std::string> NonEmpty(const EnvironmentLookup& environment,
                                     absl::string_view name) {
  absl::optional<std::string> value = environment(name);
  if (value.has_value() && value->empty()) return absl::nullopt;
  return value;
}

bool IsAbsolute(absl::string_view path, Os os) {
  if (os != Os::kWindows) return absl::StartsWith(path, "/");
  return absl::StartsWith(path, "\\") || absl::StartsWith(path, "/") ||
         (path.size() > 1 && absl::ascii_isalpha(path[0]) && path[1] == ':');
}

std::string Join(absl::string_view directory, absl::string_view leaf) {
  if (directory.empty()) return std::string(leaf);
  return absl::StrCat(directory, absl::EndsWith(directory, "/") ? "" : "/",
                      leaf);
}

std::string Namespace(const ZccacheInputs& inputs) {
  return SanitizeNamespace(
      inputs.environment("ZCCACHE_DAEMON_NAMESPACE").value_or(""));
}

// "-ns" and "-v1.15.8", whichever apply.
std::string NameTail(const ZccacheInputs& inputs, absl::string_view version) {
  const std::string ns = Namespace(inputs);
  return absl::StrCat(ns.empty() ? "" : "-", ns,
                      NamesCarryVersion(version) ? "-v" : "",
                      NamesCarryVersion(version) ? version : "");
}

std::string VersionedCacheRoot(const ZccacheInputs& inputs,
                               absl::string_view version, Os os) {
  std::string root = ZccacheCacheRoot(inputs, os);
  if (!CacheRootCarriesVersion(version)) return root;
  const std::string segment = absl::StrCat("v", version);
  // A root that ends in the segment already is the same root.
  if (absl::EndsWith(root, absl::StrCat("/", segment))) return root;
  return Join(root, segment);
}

std::string UnixEndpoint(const ZccacheInputs& inputs, absl::string_view version,
                         Os os) {
  const std::string tail = NameTail(inputs, version);
  if (NonEmpty(inputs.environment, "ZCCACHE_CACHE_DIR").has_value()) {
    const std::string root = VersionedCacheRoot(inputs, version, os);
    std::string direct = Join(root, absl::StrCat("daemon", tail, ".sock"));
    if (direct.size() <= kMaxDirectPath) return direct;
    return absl::StrCat("/tmp/zccache-", PathId16(root, os), "-daemon", tail,
                        ".sock");
  }
  const absl::optional<std::string> runtime =
      inputs.environment("XDG_RUNTIME_DIR");
  if (runtime.has_value()) {
    return absl::StrCat(*runtime, "/zccache/sock", tail);
  }
  return absl::StrCat("/tmp/zccache-",
                      inputs.environment("USER").value_or("unknown"), "/sock",
                      tail);
}

std::string WindowsEndpoint(const ZccacheInputs& inputs,
                            absl::string_view version) {
  const std::string base =
      NonEmpty(inputs.environment, "ZCCACHE_CACHE_DIR").has_value()
          ? PathId16(VersionedCacheRoot(inputs, version, Os::kWindows),
                     Os::kWindows)
          : SanitizePipeUser(
                inputs.environment("USERNAME").value_or("unknown"));
  return absl::StrCat("\\\\.\\pipe\\zccache-", base, NameTail(inputs, version));
}

}  // namespace

std::uint64_t Fnv64(absl::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (char c : bytes) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
  return hash;
}

std::string Short8(absl::string_view bytes) {
  const std::uint64_t hash = Fnv64(bytes);
  return absl::StrCat(absl::Hex(static_cast<std::uint32_t>(hash ^ (hash >> 32)),
                                absl::kZeroPad8));
}

std::string LexicallyNormal(absl::string_view path, Os os) {
  std::string text(path);
  if (os == Os::kWindows) text = absl::StrReplaceAll(text, {{"\\", "/"}});
  const bool rooted = absl::StartsWith(text, "/");
  const bool double_rooted = os == Os::kWindows && absl::StartsWith(text, "//");
  std::vector<absl::string_view> parts;
  for (absl::string_view part : absl::StrSplit(text, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part == ".." && !parts.empty() && parts.back() != "..") {
      parts.pop_back();
    } else if (part != ".." || !rooted) {
      parts.push_back(part);
    }
  }
  return absl::StrCat(double_rooted ? "//"
                      : rooted      ? "/"
                                    : "",
                      absl::StrJoin(parts, "/"));
}

std::string PathKey(absl::string_view path, Os os) {
  std::string key = LexicallyNormal(path, os);
  if (os == Os::kLinux) return key;
  if (os == Os::kWindows && absl::StartsWith(key, "//?/")) key.erase(0, 4);
  absl::AsciiStrToLower(&key);
  return key;
}

std::string PathId16(absl::string_view path, Os os) {
  return absl::StrCat(absl::Hex(Fnv64(PathKey(path, os)), absl::kZeroPad16));
}

std::string SanitizeNamespace(absl::string_view raw) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(raw);
  std::string replaced = Replaced(trimmed);
  if (replaced.size() <= kMaxNamePart) return replaced;
  return Shortened(replaced, trimmed);
}

std::string SanitizePipeUser(absl::string_view raw) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(raw);
  if (std::all_of(trimmed.begin(), trimmed.end(), IsSafe)) {
    return std::string(trimmed);
  }
  return Shortened(Replaced(trimmed), trimmed);
}

std::string ZccacheCacheRootText(const EnvironmentLookup& environment) {
  absl::optional<std::string> root = NonEmpty(environment, "ZCCACHE_CACHE_DIR");
  if (root.has_value()) return *std::move(root);
  absl::optional<std::string> home = NonEmpty(environment, "HOME");
  if (!home.has_value()) home = NonEmpty(environment, "USERPROFILE");
  return Join(home.value_or("."), ".zccache");
}

std::string ZccacheCacheRoot(const ZccacheInputs& inputs, Os os) {
  std::string root = ZccacheCacheRootText(inputs.environment);
  if (!IsAbsolute(root, os)) root = Join(inputs.cwd, root);
  return LexicallyNormal(root, os);
}

std::string ZccacheDefaultEndpoint(const ZccacheInputs& inputs,
                                   absl::string_view version, Os os) {
  return os == Os::kWindows ? WindowsEndpoint(inputs, version)
                            : UnixEndpoint(inputs, version, os);
}

std::string ZccacheClientEndpoint(const ZccacheInputs& inputs,
                                  absl::string_view version, Os os) {
  const absl::optional<std::string> explicit_endpoint =
      inputs.environment("ZCCACHE_ENDPOINT");
  if (explicit_endpoint.has_value()) return *explicit_endpoint;
  return ZccacheDefaultEndpoint(inputs, version, os);
}

ZccacheWorld ResolveZccacheWorld(const ZccacheInputs& inputs, Os os) {
  const std::string ns = Namespace(inputs);
  return ZccacheWorld{ZccacheCacheRoot(inputs, os),
                      ns.empty() ? "default" : ns};
}

std::string ZccacheWorldId(const ZccacheWorld& world) {
  const std::string both = absl::StrCat(
      world.cache_root, absl::string_view("\0", 1), world.daemon_namespace);
  return absl::StrCat(absl::Hex(Fnv64(both), absl::kZeroPad16));
}

const std::vector<std::string>& ZccacheWorldVariables() {
  static const auto* const kNames = new std::vector<std::string>{
      "ZCCACHE_CACHE_DIR", "ZCCACHE_DAEMON_NAMESPACE", "HOME", "USERPROFILE"};
  return *kNames;
}

std::vector<WireLane> ZccacheLanes(absl::string_view version) {
  if (IsAtLeast(version, "1.12.10")) return {WireLane::kFrameV1};
  return {WireLane::kFrameV1, WireLane::kProstV16, WireLane::kBincodeV15};
}

}  // namespace zcbroker::ipc
