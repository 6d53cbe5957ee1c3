// Where zccache's own clients look for their daemon, what two daemons must
// have in common to be interchangeable, and which wire lanes a version speaks.
// Pure functions of their arguments; nothing here touches the file system.
// Source: spec zccache-ipc sections 1.2, 3.7 and 8.
#ifndef ZCBROKER_IPC_ZCCACHE_RULES_H_
#define ZCBROKER_IPC_ZCCACHE_RULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "ipc/environment.h"
#include "ipc/os.h"
#include "ipc/wire_lane.h"

namespace zcbroker::ipc {

// FNV-1a, 64 bits.
std::uint64_t Fnv64(absl::string_view bytes);
// 8 lowercase hexadecimal digits: the low half of h ^ (h >> 32), h = Fnv64.
std::string Short8(absl::string_view bytes);

// `path` without ".", with "x/.." folded and without a slash at the end; on
// Windows both slashes separate. ".." that lead out of a relative path stay.
std::string LexicallyNormal(absl::string_view path, Os os);
// What identifies a directory: normalised; macOS lower case (ASCII letters
// only), Windows '/' for '\', no leading "//?/", ASCII lower case.
std::string PathKey(absl::string_view path, Os os);
// 16 lowercase hexadecimal digits: Fnv64 of the path key.
std::string PathId16(absl::string_view path, Os os);

// What ZCCACHE_DAEMON_NAMESPACE becomes in names; empty where it means none.
std::string SanitizeNamespace(absl::string_view raw);
// The part of a Windows pipe name that stands for a user.
std::string SanitizePipeUser(absl::string_view raw);

struct ZccacheInputs {
  EnvironmentLookup environment;  // of the client in question
  std::string cwd;                // absolute; relative cache roots join it
};

// Where the cache root comes from, as it is in the environment: equal texts in
// one working directory mean one root. Relative where the inputs are.
std::string ZccacheCacheRootText(const EnvironmentLookup& environment);
// ZCCACHE_CACHE_DIR if not empty, else $HOME/.zccache (USERPROFILE without
// HOME, "." without either); absolute and normal where the inputs are. Without
// the version that 1.12.7 and later append. ZCCACHE_COLOCATE matters only on
// systems with several volumes and is not followed.
std::string ZccacheCacheRoot(const ZccacheInputs& inputs, Os os = HostOs());

// What the clients of `version` use when no endpoint is given. Up to 1.12.15
// the name has no version in it; from 1.12.7 the cache root has; from 1.12.16
// both. Byte for byte the text zccache makes, which may be no valid endpoint (a
// relative XDG_RUNTIME_DIR): Endpoint::Parse tells.
std::string ZccacheDefaultEndpoint(const ZccacheInputs& inputs,
                                   absl::string_view version, Os os = HostOs());

// ZCCACHE_ENDPOINT verbatim where it is set, even to nothing; else the default.
std::string ZccacheClientEndpoint(const ZccacheInputs& inputs,
                                  absl::string_view version, Os os = HostOs());

// What makes two daemons of one version incompatible, before the mount
// namespace is added.
struct ZccacheWorld {
  std::string cache_root;
  std::string daemon_namespace;  // "default" where there is none
  friend bool operator==(const ZccacheWorld& a, const ZccacheWorld& b) {
    return a.cache_root == b.cache_root &&
           a.daemon_namespace == b.daemon_namespace;
  }
};

ZccacheWorld ResolveZccacheWorld(const ZccacheInputs& inputs, Os os = HostOs());

// Names a world in paths: 16 lowercase hexadecimal digits, Fnv64 of both parts
// with a NUL between them.
std::string ZccacheWorldId(const ZccacheWorld& world);

// The variables the functions above read: what to take from another process's
// environment to know its world.
const std::vector<std::string>& ZccacheWorldVariables();

// The lanes `version` is known to speak, the best first. All versions speak
// FrameV1, which carries no version; up to 1.12.9 also bincode 15 and prost 16.
std::vector<WireLane> ZccacheLanes(absl::string_view version);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_ZCCACHE_RULES_H_
