#include "service/host/catalog_loader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "asio/post.hpp"
#include "ipc/escape.h"
#include "ipc/names.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"
#include "proto/zcbroker/v1/policy.pb.h"
#include "service/host/version_command.h"

namespace zcbroker::service {
namespace {

constexpr char kOurSuffix[] = ".textproto";
constexpr char kUpstreamSuffix[] = ".servicedef";
constexpr size_t kMaxFileBytes = 1 << 20;

// The names in `directory` that end in `suffix`, sorted; none where there is no
// directory. Errors by errno.
absl::StatusOr<std::vector<std::string>> Entries(const std::string& directory,
                                                 absl::string_view suffix) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()),
                                                closedir);
  if (dir == nullptr && errno == ENOENT) return names;
  if (dir == nullptr) return absl::ErrnoToStatus(errno, "cannot be read");
  while (const dirent* entry = readdir(dir.get())) {
    const absl::string_view name = entry->d_name;
    if (name[0] != '.' && absl::EndsWith(name, suffix)) {
      names.emplace_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status CheckTrusted(const struct stat& status, absl::string_view whose,
                          absl::optional<uint32_t> owner) {
  if (status.st_uid != 0 && status.st_uid != owner) {
    return absl::PermissionDeniedError(
        absl::StrCat("belongs to uid ", status.st_uid, ", not to ", whose));
  }
  if ((status.st_mode & 022) != 0) {
    return absl::PermissionDeniedError(
        "may be written by others; chmod go-w it");
  }
  return absl::OkStatus();
}

// All of a regular file that `owner` or root, and nobody else, may write.
absl::StatusOr<std::string> ReadTrusted(const ipc::UniqueFd& fd,
                                        absl::string_view whose,
                                        absl::optional<uint32_t> owner) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0) {
    return absl::ErrnoToStatus(errno, "cannot be read");
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError("is no regular file");
  }
  ZCB_RETURN_IF_ERROR(CheckTrusted(status, whose, owner));
  std::string text;
  char buffer[16384];
  while (text.size() <= kMaxFileBytes) {
    const ssize_t n = read(fd.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "cannot be read");
    if (n == 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

// A definition says what is executed: it must be nobody else's to write.
absl::StatusOr<std::string> ReadDefinition(const std::string& path) {
  const ipc::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, "cannot be read");
  return ReadTrusted(fd, "you", geteuid());
}

// The text of the policy; nothing where there is none. What was checked is what
// is read: the directory, then the file in it, neither through a link.
absl::StatusOr<absl::optional<std::string>> ReadPolicy(
    const std::string& path, absl::optional<uint32_t> owner) {
  const size_t slash = path.rfind('/');
  const std::string directory =
      slash == std::string::npos ? "."
                                 : path.substr(0, std::max<size_t>(slash, 1));
  const auto cannot_open = [](int error) {
    return error == ELOOP || error == ENOTDIR
               ? absl::FailedPreconditionError("is behind a symbolic link")
               : absl::ErrnoToStatus(error, "cannot be read");
  };
  const ipc::UniqueFd place(
      open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!place && errno == ENOENT) return absl::optional<std::string>();
  struct stat status;
  if (!place || fstat(place.get(), &status) != 0) return cannot_open(errno);
  if (absl::Status trusted = CheckTrusted(status, "root", owner);
      !trusted.ok()) {
    return absl::Status(
        trusted.code(),
        absl::StrCat("its directory ", std::string(trusted.message())));
  }
  const ipc::UniqueFd fd(
      openat(place.get(), path.substr(slash + 1).c_str(),
             O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == ENOENT) return absl::optional<std::string>();
  if (!fd) return cannot_open(errno);
  ZCB_ASSIGN_OR_RETURN(std::string text, ReadTrusted(fd, "root", owner));
  return absl::optional<std::string>(std::move(text));
}

absl::StatusOr<std::string> IdentifyBinary(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    return absl::NotFoundError(absl::StrCat(path, ": ", strerror(errno)));
  }
  if (!S_ISREG(status.st_mode) || access(path.c_str(), X_OK) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": is not an executable file"));
  }
  return absl::StrCat(status.st_dev, ":", status.st_ino, ":", status.st_size,
                      ":", status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec);
}

std::string FindOnPath(const std::string& path, const char* program) {
  for (const absl::string_view directory : absl::StrSplit(path, ':')) {
    if (!absl::StartsWith(directory, "/")) continue;
    std::string candidate = absl::StrCat(directory, "/", program);
    if (IdentifyBinary(candidate).ok()) return candidate;
  }
  return "";
}

v1::Problem ProblemAt(absl::string_view where, absl::string_view what) {
  v1::Problem problem;
  problem.set_where(ipc::Escape(where));
  problem.set_what(ipc::Escape(what));
  return problem;
}

}  // namespace

// One load between reading the files and having every version.
struct CatalogLoader::Loading {
  struct Candidate {
    std::string service;
    v1::Binary binary;
    std::string identity;
    absl::StatusOr<std::string> version =
        absl::UnknownError("not asked for its version");
  };

  Catalog catalog;
  std::vector<Candidate> candidates;
  // Version commands that have not ended.
  size_t asked = 0;
  bool finished = false;
};

CatalogLoader::CatalogLoader(asio::io_context& loop, Reaper& reaper,
                             DefinitionSources sources)
    : loop_(loop), reaper_(reaper), sources_(std::move(sources)) {}

CatalogLoader::~CatalogLoader() {
  if (reader_.joinable()) reader_.join();
}

CatalogLoader::Reading CatalogLoader::ReadAll(const DefinitionSources& sources,
                                              const v1::Policy& last_policy) {
  Reading reading;
  const absl::StatusOr<absl::optional<std::string>> text =
      ReadPolicy(sources.policy_file, sources.policy_owner);
  if (!text.ok()) {
    reading.policy.problems.push_back(
        ProblemAt(sources.policy_file, text.status().message()));
  } else if (!text->has_value()) {
    reading.policy.policy = v1::Policy();
  } else {
    reading.policy = ParsePolicy(**text, sources.policy_file);
    reading.has_policy = reading.policy.policy.has_value();
  }
  const v1::Policy& policy =
      reading.policy.policy.has_value() ? *reading.policy.policy : last_policy;
  const bool forbidden = policy.user_definitions() == v1::PERMISSION_FORBIDDEN;
  std::vector<Source>& all = reading.sources;
  const auto known = [&](absl::string_view name) {
    return std::any_of(all.begin(), all.end(),
                       [&](const Source& s) { return s.name == name; });
  };
  const auto read = [&](const std::string& directory, const char* suffix,
                        auto parse) {
    const absl::StatusOr<std::vector<std::string>> files =
        Entries(directory, suffix);
    if (!files.ok() && forbidden) return;
    if (!files.ok()) {
      reading.unread.push_back(directory);
      reading.problems.push_back(ProblemAt(
          directory, absl::StrCat(files.status().message(),
                                  "; what was read there before is in force")));
      return;
    }
    for (const std::string& file : *files) {
      Source source;
      source.name = std::string(absl::StripSuffix(file, suffix));
      source.source = absl::StrCat(directory, "/", file);
      if (forbidden) {
        reading.problems.push_back(ProblemAt(
            source.source, absl::StrCat("is not read: ", sources.policy_file,
                                        " lets users define no services")));
        continue;
      }
      if (known(source.name)) continue;
      const absl::StatusOr<std::string> definition =
          ReadDefinition(source.source);
      if (definition.ok()) {
        source.parsed = parse(*definition, source.source, source.name);
      } else {
        source.parsed.problems.push_back(
            ProblemAt(source.source, definition.status().message()));
      }
      all.push_back(std::move(source));
    }
  };
  read(sources.services_dir, kOurSuffix, ParseDefinition);
  const v1::ServiceDefinition& built_in = BuiltInZccache();
  const std::string daemon = FindOnPath(sources.path, "zccache-daemon");
  if (!known(built_in.name()) && !daemon.empty()) {
    Source source;
    source.name = built_in.name();
    source.source = "built-in";
    source.parsed.definition = built_in;
    source.parsed.definition->add_binaries()->set_path(daemon);
    all.push_back(std::move(source));
  }
  read(sources.upstream_dir, kUpstreamSuffix, ParseUpstreamDefinition);
  return reading;
}

void CatalogLoader::Load(std::function<void(Catalog)> done) {
  if (!waiting_.empty()) {
    next_.push_back(std::move(done));
    return;
  }
  waiting_.push_back(std::move(done));
  Begin();
}

void CatalogLoader::Begin() {
  if (reader_.joinable()) reader_.join();
  reader_ = std::thread([this, last_policy = policy_] {
    Reading reading = ReadAll(sources_, last_policy);
    asio::post(loop_, [this, reading = std::move(reading)]() mutable {
      reader_.join();
      Resolve(std::move(reading));
    });
  });
}

void CatalogLoader::Resolve(Reading reading) {
  auto loading = std::make_shared<Loading>();
  std::vector<v1::Problem>& problems = loading->catalog.problems;
  problems = reading.policy.problems;
  problems.insert(problems.end(), reading.problems.begin(),
                  reading.problems.end());
  if (reading.policy.policy.has_value()) {
    policy_ = *std::move(reading.policy.policy);
    policy_file_ = reading.has_policy ? sources_.policy_file : "";
  } else {
    const v1::Problem& first = reading.policy.problems.front();
    loading->catalog.versions.no_starts = absl::StrCat(
        "nothing new is started until the policy is mended: ", first.where(),
        ": ", first.what());
  }
  for (const std::string& directory : reading.unread) {
    GoOnWith(directory, &reading);
  }
  std::map<std::string, Source> good;
  for (Source& source : reading.sources) {
    for (const v1::Problem& problem : source.parsed.problems) {
      loading->catalog.problems.push_back(problem);
    }
    if (!source.parsed.definition.has_value()) {
      const auto last_good = good_.find(source.name);
      if (last_good == good_.end()) continue;
      source = last_good->second;
    }
    good[source.name] = source;
    CatalogService& service = loading->catalog.services[source.name];
    service.definition = *source.parsed.definition;
    service.allowed_versions = source.parsed.allowed_versions;
    service.source = source.source;
    for (const std::string& field : source.parsed.set_fields) {
      service.set_by[field] = source.source;
    }
    for (const v1::Binary& binary : service.definition.binaries()) {
      const absl::StatusOr<std::string> identity =
          IdentifyBinary(binary.path());
      if (!identity.ok()) {
        service.unusable.push_back(std::string(identity.status().message()));
        continue;
      }
      loading->candidates.push_back({source.name, binary, *identity});
    }
    // How to start it, without what it is started from: a further binary is no
    // change of the definition.
    service.definition.clear_binaries();
  }
  good_ = std::move(good);
  ApplyPolicy(policy_, policy_file_, &loading->catalog);
  AskVersions(loading);
}

// An own definition goes before the built-in one, and that before upstream's.
void CatalogLoader::GoOnWith(const std::string& directory, Reading* reading) {
  std::vector<Source>& sources = reading->sources;
  for (const auto& [name, source] : good_) {
    if (!absl::StartsWith(source.source, absl::StrCat(directory, "/"))) {
      continue;
    }
    const auto same = std::find_if(
        sources.begin(), sources.end(),
        [&name = name](const Source& read) { return read.name == name; });
    if (same == sources.end()) {
      sources.push_back(source);
    } else if (directory == sources_.services_dir) {
      *same = source;
    }
  }
}

void CatalogLoader::AskVersions(const std::shared_ptr<Loading>& loading) {
  // All at once: one that hangs holds up the reading for 2 s, and so do ten.
  for (size_t i = 0; i < loading->candidates.size(); ++i) {
    Loading::Candidate& candidate = loading->candidates[i];
    const std::pair<std::string, std::string> key{candidate.binary.path(),
                                                  candidate.identity};
    if (!candidate.binary.version().empty()) {
      candidate.version = candidate.binary.version();
    } else if (const auto told = versions_.find(key); told != versions_.end()) {
      candidate.version = told->second;
    } else {
      ++loading->asked;
      RunVersionCommand(
          loop_, reaper_, candidate.binary.path(), sources_.environment,
          [this, loading, key, i](absl::StatusOr<std::string> version) {
            if (version.ok()) versions_[key] = *version;
            loading->candidates[i].version = std::move(version);
            if (--loading->asked == 0) Finish(*loading);
          });
    }
  }
  if (loading->asked == 0 && !loading->finished) Finish(*loading);
}

void CatalogLoader::Finish(Loading& loading) {
  loading.finished = true;
  for (const Loading::Candidate& candidate : loading.candidates) {
    CatalogService& service = loading.catalog.services[candidate.service];
    const std::string& path = candidate.binary.path();
    if (!candidate.version.ok()) {
      service.unusable.push_back(
          std::string(candidate.version.status().message()));
      continue;
    }
    const std::string& version = *candidate.version;
    const bool twice = std::any_of(
        service.versions.begin(), service.versions.end(),
        [&](const InstalledVersion& v) { return v.version == version; });
    if (twice) {
      service.unusable.push_back(absl::StrCat(
          path, ": is version ", version, " like another binary before it"));
      continue;
    }
    service.versions.push_back(
        {version, path, candidate.identity,
         LanesOf(service.definition, candidate.binary, version)});
  }
  for (auto& [name, service] : loading.catalog.services) {
    std::sort(service.versions.begin(), service.versions.end(),
              [](const InstalledVersion& a, const InstalledVersion& b) {
                return ipc::CompareVersions(a.version, b.version) > 0;
              });
    for (const std::string& line : service.unusable) {
      loading.catalog.problems.push_back(ProblemAt(service.source, line));
    }
  }
  loading.catalog.settings =
      EffectiveSettings(policy_, policy_file_, loading.catalog);
  const auto waiting = std::exchange(waiting_, std::exchange(next_, {}));
  if (!waiting_.empty()) Begin();
  for (const auto& done : waiting) done(loading.catalog);
}

}  // namespace zcbroker::service
