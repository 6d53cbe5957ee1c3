#include "service/host/other_worlds.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/escape.h"
#include "ipc/status_macros.h"
#include "ipc/zccache_rules.h"
#include "service/core/world.h"
#include "service/host/log.h"
#include "service/host/worlds.h"

namespace zcbroker::service {
namespace {

// No broker lives to see that many.
constexpr uint64_t kStartsOfAWorld = uint64_t{1} << 40;

// What is left of a world in which nothing runs: stale infos, old logs.
void RemoveTraces(const std::string& runtime, const std::string& logs) {
  std::error_code ignored;
  std::filesystem::remove_all(runtime, ignored);
  std::filesystem::remove_all(logs, ignored);
}

// Who comes there is of that world; everybody else is sent away.
Limits WithoutOthers(Limits limits) {
  limits.other_worlds = 0;
  return limits;
}

}  // namespace

OtherWorld::OtherWorld(uint64_t its_number, Surroundings its_surroundings,
                       ipc::RuntimeDir its_runtime, Limits limits,
                       Counters* counters, uint64_t seed)
    : number(its_number),
      runtime(std::move(its_runtime)),
      surroundings(std::move(its_surroundings)),
      machine(WithoutOthers(limits), surroundings.world, counters, seed,
              number * kStartsOfAWorld) {
  surroundings.runtime = &runtime;
}

bool OtherWorlds::IsOwn(const v1::World& world) const {
  return WorldDifferences(own_.world, world, v1::ENDPOINT_RULE_ZCCACHE).empty();
}

OtherWorld* OtherWorlds::Find(const v1::World& asked) const {
  const absl::optional<v1::World> servable = ServableWorld(own_.world, asked);
  if (!servable.has_value() || IsOwn(*servable)) return nullptr;
  const v1::World& world = *servable;
  const std::string id =
      ipc::ZccacheWorldId({world.cache_root(), world.daemon_namespace()});
  const auto found = std::find_if(
      all_.begin(), all_.end(),
      [&](const auto& other) { return other->surroundings.other_world == id; });
  return found != all_.end() ? found->get() : nullptr;
}

absl::StatusOr<OtherWorld*> OtherWorlds::Open(const v1::World& asked) {
  if (OtherWorld* const found = Find(asked)) {
    // It may have been removed, by somebody who tidies up.
    if (access(found->runtime.path().c_str(), F_OK) != 0) ReopenDirectories();
    return found;
  }
  const absl::optional<v1::World> servable = ServableWorld(own_.world, asked);
  if (!servable.has_value() || IsOwn(*servable)) {
    return absl::FailedPreconditionError("no other world that can be served");
  }
  const v1::World& world = *servable;
  if (all_.size() >= limits_.other_worlds) {
    const auto idle =
        std::find_if(all_.begin(), all_.end(), [this](const auto& other) {
          return other->machine.idle() && !has_runs(*other);
        });
    if (idle == all_.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("backends of ", all_.size(), " other worlds run"));
    }
    RemoveTraces((*idle)->runtime.path(), (*idle)->surroundings.log_dir);
    all_.erase(idle);
  }
  Surroundings surroundings = service::SurroundingsOf(world, own_);
  ZCB_ASSIGN_OR_RETURN(ipc::RuntimeDir runtime, own_.runtime->OpenOrCreateWorld(
                                                    surroundings.other_world));
  LogInfo(absl::StrCat("serving another world: cache directory ",
                       ipc::Escape(world.cache_root()), ", namespace ",
                       ipc::Escape(world.daemon_namespace())));
  counters_->Add("worlds_opened");
  all_.push_back(std::make_unique<OtherWorld>(
      ++opened_, std::move(surroundings), std::move(runtime), limits_,
      counters_, std::random_device()()));
  return all_.back().get();
}

OtherWorld* OtherWorlds::WhoseStart(StartId id) const {
  const auto found =
      std::find_if(all_.begin(), all_.end(), [id](const auto& other) {
        return other->number == id / kStartsOfAWorld;
      });
  return found != all_.end() ? found->get() : nullptr;
}

void OtherWorlds::RemoveForgotten() const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(
           own_.runtime->Entry("worlds"), error)) {
    const std::string id = entry.path().filename().string();
    const bool serves =
        std::any_of(all_.begin(), all_.end(), [&](const auto& other) {
          return other->surroundings.other_world == id;
        });
    if (!serves) {
      RemoveTraces(entry.path().string(), absl::StrCat(own_.log_dir, "/", id));
    }
  }
}

void OtherWorlds::ReopenDirectories() {
  for (const auto& other : all_) {
    absl::StatusOr<ipc::RuntimeDir> runtime =
        own_.runtime->OpenOrCreateWorld(other->surroundings.other_world);
    if (runtime.ok()) other->runtime = *std::move(runtime);
  }
}

}  // namespace zcbroker::service
