#include "service/host/backend_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "ipc/deadline.h"
#include "ipc/socket.h"
#include "ipc/unique_fd.h"
#include "ipc/user_sid_hash.h"
#include "ipc/zccache_rules.h"

namespace zcbroker::service {
namespace {

constexpr size_t kTailBytes = 8192;

std::string DirectoryOf(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

// The device of `directory`, or of its nearest parent that exists.
absl::optional<dev_t> DeviceOf(std::string directory) {
  struct stat status;
  while (stat(directory.c_str(), &status) != 0) {
    if (directory.empty()) return absl::nullopt;
    directory = DirectoryOf(directory);
  }
  return status.st_dev;
}

// Without the sequences (ESC [ ... letter) that colour a terminal.
std::string WithoutColours(const std::string& line) {
  std::string plain;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\x1b' || i + 1 >= line.size() || line[i + 1] != '[') {
      plain.push_back(line[i]);
      continue;
    }
    i += 2;
    while (i < line.size() && (line[i] < '@' || line[i] > '~')) ++i;
  }
  return plain;
}

}  // namespace

absl::optional<ipc::Endpoint> DirectEndpoint(
    const v1::ServiceDefinition& definition, const std::string& version,
    const Surroundings& around) {
  if (definition.endpoint_rule() != v1::ENDPOINT_RULE_ZCCACHE) {
    return absl::nullopt;
  }
  const ipc::ZccacheInputs inputs{
      [&around](absl::string_view name) -> absl::optional<std::string> {
        const auto found = around.environment.find(std::string(name));
        if (found == around.environment.end()) return absl::nullopt;
        return found->second;
      },
      around.cwd};
  const absl::StatusOr<ipc::Endpoint> endpoint =
      ipc::Endpoint::Parse(ipc::ZccacheDefaultEndpoint(inputs, version));
  if (!endpoint.ok()) return absl::nullopt;
  return *endpoint;
}

absl::StatusOr<BackendFiles> PlaceBackend(const StartPlan& plan,
                                          const Surroundings& around) {
  const std::string& name = plan.definition.name();
  // The hash function is the one of the broker's address: 16 digits tell the
  // backends of one user apart.
  std::string what =
      absl::StrCat(name, "/", plan.version.version, "/", plan.version.binary,
                   "/", plan.version.binary_identity);
  // A broker that is started in another world must not take it for its own.
  if (plan.definition.endpoint_rule() == v1::ENDPOINT_RULE_ZCCACHE) {
    absl::StrAppend(&what, "/",
                    ipc::ZccacheWorldId({around.world.cache_root(),
                                         around.world.daemon_namespace()}));
  }
  const std::string id = ipc::UserSidHash(what);
  absl::optional<ipc::Endpoint> direct =
      DirectEndpoint(plan.definition, plan.version.version, around);
  std::string path = absl::StrCat(around.backends_dir, "/", id, ".sock");
  if (direct.has_value()) {
    const std::string directory = DirectoryOf(direct->path());
    if (DeviceOf(directory) != DeviceOf(around.backends_dir)) {
      // A hard link needs one file system.
      path = absl::StrCat(directory, "/.zcbroker-", id, ".sock");
    }
  }
  absl::StatusOr<ipc::Endpoint> endpoint = ipc::Endpoint::Parse(path);
  if (!endpoint.ok()) {
    if (!direct.has_value()) return endpoint.status();
    endpoint = *direct;
  }
  const std::string log_file = absl::StrCat(around.log_dir, "/", name, "-",
                                            plan.version.version, ".log");
  return BackendFiles{id, *std::move(endpoint), std::move(direct), log_file};
}

void UnlinkIfSame(const ipc::Endpoint& endpoint,
                  const ipc::FileIdentity& identity) {
  const absl::StatusOr<ipc::FileIdentity> now =
      ipc::IdentifyFile(endpoint.path());
  if (now.ok() && *now == identity) unlink(endpoint.path().c_str());
}

absl::Status RemoveSocket(const ipc::Endpoint& endpoint) {
  struct stat status;
  if (lstat(endpoint.path().c_str(), &status) != 0) return absl::OkStatus();
  if (!S_ISSOCK(status.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(endpoint.path(), " is no socket; move it away"));
  }
  unlink(endpoint.path().c_str());
  return absl::OkStatus();
}

void RemoveDeadSocket(const ipc::Endpoint& endpoint) {
  const absl::Status answer =
      ipc::Connect(endpoint, ipc::Deadline::After(absl::ZeroDuration()))
          .status();
  if (absl::IsUnavailable(answer)) RemoveSocket(endpoint).IgnoreError();
}

std::vector<std::string> LogTail(const std::string& file, off_t offset,
                                 size_t max_lines) {
  const ipc::UniqueFd fd(
      open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status;
  if (!fd || fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return {};
  }
  if (status.st_size < offset) offset = 0;  // it was truncated meanwhile
  const off_t from =
      std::max<off_t>(offset, status.st_size - static_cast<off_t>(kTailBytes));
  std::string text(kTailBytes, '\0');
  const ssize_t n = pread(fd.get(), &text[0], text.size(), from);
  text.resize(std::max<ssize_t>(n, 0));
  std::vector<std::string> lines =
      absl::StrSplit(text, '\n', absl::SkipWhitespace());
  for (std::string& line : lines) line = WithoutColours(line);
  if (lines.size() > max_lines) {
    lines.erase(lines.begin(), lines.end() - static_cast<int64_t>(max_lines));
  }
  return lines;
}

}  // namespace zcbroker::service
