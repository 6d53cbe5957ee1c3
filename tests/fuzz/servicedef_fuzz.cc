// Upstream's binary service definitions.
#include <cstddef>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/names.h"
#include "proto/running_process/broker_v1.pb.h"
#include "service/core/definition.h"
#include "tests/fuzz/property.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Refused text is no line in the log of a run.
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace zcbroker;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  constexpr char kFile[] = "/c/services/zccache.servicedef";
  const service::ParsedDefinition parsed =
      service::ParseUpstreamDefinition(bytes, kFile, "zccache");
  ZCB_PROPERTY(parsed.definition.has_value() == parsed.problems.empty());
  if (!parsed.definition.has_value()) {
    ZCB_PROPERTY(parsed.problems.size() == 1);
    ZCB_PROPERTY(parsed.problems[0].where() == kFile);
    return 0;
  }
  // Upstream's own reader must agree on what it says.
  running_process::broker::v1::ServiceDefinition upstream;
  ZCB_PROPERTY(upstream.ParseFromArray(data, static_cast<int>(size)));
  ZCB_PROPERTY(parsed.definition->name() == "zccache");
  ZCB_PROPERTY(parsed.definition->binaries_size() == 1);
  const v1::Binary& binary = parsed.definition->binaries(0);
  ZCB_PROPERTY(binary.path() == upstream.binary_path());
  ZCB_PROPERTY(absl::StartsWith(binary.path(), "/"));
  ZCB_PROPERTY(ipc::CheckVersion(binary.version()).ok());
  ZCB_PROPERTY(parsed.allowed_versions.size() == 1);
  ZCB_PROPERTY(parsed.allowed_versions[0] == binary.version());
  ZCB_PROPERTY(parsed.definition->start_contract() ==
               v1::START_CONTRACT_RUNNING_PROCESS);
  return 0;
}
