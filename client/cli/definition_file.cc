#include "client/cli/definition_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "client/cli/replace_file.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "ipc/names.h"
#include "ipc/private_dir.h"
#include "ipc/status_macros.h"
#include "ipc/unique_fd.h"

namespace zcbroker::cli {
namespace {

using google::protobuf::TextFormat;

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) {
      text = absl::StrCat(":", line + 1, ":", column + 1, ": ", message);
    }
  }
  std::string text;
};

absl::StatusOr<v1::Probe> ParseProbe(const std::string& name) {
  if (name == "connect") return v1::PROBE_CONNECT;
  if (name == "zccache-ping") return v1::PROBE_ZCCACHE_PING;
  if (name == "identity") return v1::PROBE_RUNNING_PROCESS_IDENTITY;
  return absl::InvalidArgumentError(
      absl::StrCat("no probe is called ", name,
                   "; there are connect, zccache-ping and "
                   "identity"));
}

absl::StatusOr<v1::WireLane> ParseLane(const std::string& name) {
  if (name == "bincode-v15") return v1::WIRE_LANE_BINCODE_V15;
  if (name == "prost-v16") return v1::WIRE_LANE_PROST_V16;
  if (name == "frame-v1") return v1::WIRE_LANE_FRAME_V1;
  if (name == "opaque") return v1::WIRE_LANE_OPAQUE;
  return absl::InvalidArgumentError(
      absl::StrCat("no wire lane is called ", name,
                   "; there are bincode-v15, prost-v16, frame-v1 and opaque"));
}

absl::StatusOr<std::string> AbsolutePath(const std::string& path) {
  if (absl::StartsWith(path, "/")) return path;
  char cwd[PATH_MAX];
  if (getcwd(cwd, sizeof(cwd)) == nullptr) {
    return absl::ErrnoToStatus(errno, "working directory");
  }
  absl::string_view inside = path;
  while (absl::ConsumePrefix(&inside, "./")) {
  }
  return absl::StrCat(cwd, "/", inside);
}

absl::Status SetVariable(const std::string& assignment,
                         v1::ServiceDefinition* definition) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--env ", assignment, ": write NAME=VALUE"));
  }
  const std::string name = assignment.substr(0, equals);
  v1::EnvironmentVariable* variable = nullptr;
  for (v1::EnvironmentVariable& there : *definition->mutable_env()) {
    if (there.name() == name) variable = &there;
  }
  if (variable == nullptr) variable = definition->add_env();
  variable->set_name(name);
  variable->set_value(assignment.substr(equals + 1));
  return absl::OkStatus();
}

std::string TextOf(const v1::ServiceDefinition& definition) {
  std::string body;
  TextFormat::PrintToString(definition, &body);
  return absl::StrCat(
      "# A service definition of zcbroker; its fields are described in\n"
      "# docs/definitions.md. Mistakes are shown by: zcbroker service check\n",
      body);
}

}  // namespace

absl::Status ApplyChange(const ServiceChange& change,
                         v1::ServiceDefinition* definition) {
  ZCB_RETURN_IF_ERROR(ipc::CheckServiceName(change.name));
  definition->set_name(change.name);
  if (!change.version.empty()) {
    ZCB_RETURN_IF_ERROR(ipc::CheckVersion(change.version));
  }
  ZCB_ASSIGN_OR_RETURN(const std::string path, AbsolutePath(change.binary));
  struct stat status;
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) ||
      access(path.c_str(), X_OK) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not an executable file"));
  }
  v1::Binary* binary = nullptr;
  for (v1::Binary& there : *definition->mutable_binaries()) {
    if (there.path() == path) binary = &there;
  }
  for (v1::Binary& there : *definition->mutable_binaries()) {
    if (binary == nullptr && !change.version.empty() &&
        there.version() == change.version) {
      binary = &there;
    }
  }
  if (binary == nullptr) binary = definition->add_binaries();
  binary->set_path(path);
  if (!change.version.empty()) binary->set_version(change.version);
  if (!change.args.empty()) {
    definition->clear_args();
    for (const std::string& arg : change.args) definition->add_args(arg);
  }
  for (const std::string& assignment : change.env) {
    ZCB_RETURN_IF_ERROR(SetVariable(assignment, definition));
  }
  if (!change.probe.empty()) {
    ZCB_ASSIGN_OR_RETURN(const v1::Probe probe, ParseProbe(change.probe));
    definition->set_probe(probe);
  }
  if (!change.lanes.empty()) {
    definition->clear_lanes();
    for (const std::string& name : change.lanes) {
      ZCB_ASSIGN_OR_RETURN(const v1::WireLane lane, ParseLane(name));
      definition->add_lanes(lane);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DefinitionFile> ReadDefinition(const std::string& file,
                                              const std::string& name) {
  DefinitionFile read_file;
  read_file.definition.set_name(name);
  const ipc::UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return read_file;
  if (!fd) return absl::ErrnoToStatus(errno, file);
  std::string text;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(fd.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(n));
  }
  if (n < 0) return absl::ErrnoToStatus(errno, file);
  FirstError errors;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (!parser.ParseFromString(text, &read_file.definition)) {
    return absl::InvalidArgumentError(absl::StrCat(file, errors.text));
  }
  read_file.by_hand = text != TextOf(read_file.definition);
  read_file.text = std::move(text);
  return read_file;
}

absl::StatusOr<ipc::UniqueFd> LockDefinitions(const std::string& directory) {
  ZCB_RETURN_IF_ERROR(ipc::MakeDirectories(directory));
  ipc::UniqueFd fd(open(directory.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!fd || flock(fd.get(), LOCK_EX) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("lock ", directory));
  }
  return fd;
}

absl::Status WriteDefinition(const std::string& file,
                             const v1::ServiceDefinition& definition) {
  return WriteDefinitionText(file, TextOf(definition));
}

absl::Status WriteDefinitionText(const std::string& file,
                                 const std::string& text) {
  ZCB_RETURN_IF_ERROR(ipc::MakeDirectories(file.substr(0, file.rfind('/'))));
  char target[PATH_MAX];
  return ReplaceFile(realpath(file.c_str(), target) != nullptr ? target : file,
                     text);
}

}  // namespace zcbroker::cli
