#include "ipc/runtime_dir.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ipc/names.h"
#include "ipc/private_dir.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

constexpr absl::string_view kSubdirectory = "zcbroker";
constexpr absl::string_view kWorlds = "worlds";

struct Base {
  std::string path;
  UniqueFd fd;
};

std::string WithoutTrailingSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// The last resort: a directory of our own among everybody's.
absl::StatusOr<Base> OpenTmpBase(const RuntimeDirInputs& inputs, bool create) {
  const std::string leaf = absl::StrCat("zcbroker-", inputs.euid);
  std::string path = absl::StrCat(inputs.tmp_root, "/", leaf);
  if (!create) {
    ZCB_ASSIGN_OR_RETURN(UniqueFd fd, OpenPrivateDir(path, inputs.euid));
    return Base{std::move(path), std::move(fd)};
  }
  ZCB_ASSIGN_OR_RETURN(UniqueFd root, OpenDirectory(inputs.tmp_root));
  ZCB_ASSIGN_OR_RETURN(
      UniqueFd fd,
      OpenOrCreatePrivateDirAt(root.get(), inputs.tmp_root, leaf, inputs.euid));
  return Base{std::move(path), std::move(fd)};
}

absl::StatusOr<Base> OpenBase(const RuntimeDirInputs& inputs, bool create,
                              std::vector<std::string>& passed_over) {
  std::vector<std::string> candidates;
  if (inputs.xdg_runtime_dir.has_value()) {
    if (absl::StartsWith(*inputs.xdg_runtime_dir, "/")) {
      candidates.push_back(WithoutTrailingSlashes(*inputs.xdg_runtime_dir));
    } else {
      passed_over.push_back(absl::StrCat("XDG_RUNTIME_DIR is \"",
                                         Printable(*inputs.xdg_runtime_dir),
                                         "\", must be an absolute path"));
    }
  }
  candidates.push_back(absl::StrCat(inputs.run_user_root, "/", inputs.euid));
  bool absent = false;
  for (std::string& path : candidates) {
    absl::StatusOr<UniqueFd> fd = OpenPrivateDir(path, inputs.euid);
    if (fd.ok()) return Base{std::move(path), *std::move(fd)};
    absent = absl::IsNotFound(fd.status());
    passed_over.emplace_back(fd.status().message());
  }
  absl::StatusOr<Base> base = OpenTmpBase(inputs, create);
  if (base.ok()) {
    // Nobody made the usual one, as in a container: nothing is wrong with it.
    if (absent) passed_over.pop_back();
    return base;
  }
  return absl::Status(
      base.status().code(),
      absl::StrCat("no runtime directory: ", absl::StrJoin(passed_over, "; "),
                   "; ", base.status().message()));
}

}  // namespace

absl::StatusOr<RuntimeDir> RuntimeDir::Open(const RuntimeDirInputs& inputs,
                                            bool create) {
  std::vector<std::string> passed_over;
  ZCB_ASSIGN_OR_RETURN(Base base, OpenBase(inputs, create, passed_over));
  absl::StatusOr<UniqueFd> fd =
      create ? OpenOrCreatePrivateDirAt(base.fd.get(), base.path, kSubdirectory,
                                        inputs.euid)
             : OpenPrivateDirAt(base.fd.get(), base.path, kSubdirectory,
                                inputs.euid);
  if (!fd.ok()) return fd.status();
  std::string path = absl::StrCat(base.path, "/", kSubdirectory);
  return RuntimeDir(inputs.euid, std::move(base.path), std::move(path),
                    *std::move(fd), std::move(passed_over));
}

absl::StatusOr<RuntimeDir> RuntimeDir::Reopen() const {
  ZCB_ASSIGN_OR_RETURN(const UniqueFd base, OpenPrivateDir(base_, owner_));
  ZCB_ASSIGN_OR_RETURN(
      UniqueFd fd,
      OpenOrCreatePrivateDirAt(base.get(), base_, kSubdirectory, owner_));
  return RuntimeDir(owner_, base_, path_, std::move(fd), passed_over_);
}

absl::StatusOr<RuntimeDir> RuntimeDir::FindWorld(
    absl::string_view world_id) const {
  ZCB_ASSIGN_OR_RETURN(const UniqueFd worlds,
                       OpenPrivateDirAt(fd(), path_, kWorlds, owner_));
  std::string base = Entry(kWorlds);
  ZCB_ASSIGN_OR_RETURN(UniqueFd world,
                       OpenPrivateDirAt(worlds.get(), base, world_id, owner_));
  std::string path = absl::StrCat(base, "/", world_id);
  return RuntimeDir(owner_, std::move(base), std::move(path), std::move(world),
                    {});
}

absl::StatusOr<RuntimeDir> RuntimeDir::OpenOrCreateWorld(
    absl::string_view world_id) const {
  ZCB_ASSIGN_OR_RETURN(const UniqueFd worlds,
                       OpenOrCreatePrivateDirAt(fd(), path_, kWorlds, owner_));
  ZCB_RETURN_IF_ERROR(
      OpenOrCreatePrivateDirAt(worlds.get(), Entry(kWorlds), world_id, owner_)
          .status());
  return FindWorld(world_id);
}

absl::StatusOr<RuntimeDir> RuntimeDir::OpenOrCreate(
    const RuntimeDirInputs& inputs) {
  return Open(inputs, /*create=*/true);
}

absl::StatusOr<RuntimeDir> RuntimeDir::Find(const RuntimeDirInputs& inputs) {
  return Open(inputs, /*create=*/false);
}

std::string RuntimeDir::Entry(absl::string_view leaf) const {
  return absl::StrCat(path_, "/", leaf);
}

}  // namespace zcbroker::ipc
