#include "client/backend_sdk/own_identity.h"

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "blake3.h"
#include "ipc/process.h"
#include "ipc/status_macros.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::client {
namespace {

absl::StatusOr<std::string> HashOwnExecutable() {
  // This name works even after the file was replaced.
  std::ifstream file("/proc/self/exe", std::ios::binary);
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  std::vector<char> chunk(1 << 16);
  const auto size = static_cast<std::streamsize>(chunk.size());
  while (file.read(chunk.data(), size) || file.gcount() > 0) {
    blake3_hasher_update(&hasher, chunk.data(),
                         static_cast<size_t>(file.gcount()));
  }
  if (!file.eof()) return absl::UnavailableError("cannot read own executable");
  uint8_t digest[BLAKE3_OUT_LEN];
  blake3_hasher_finalize(&hasher, digest, sizeof(digest));
  return std::string(digest, digest + sizeof(digest));
}

}  // namespace

absl::StatusOr<running_process::broker::v1::DaemonProcess> DescribeOwnProcess(
    const std::string& namespace_id, const std::string& endpoint,
    absl::Time started) {
  running_process::broker::v1::DaemonProcess process;
  process.set_pid(getpid());
  process.set_started_at_unix_ms(absl::ToUnixMillis(started));
  process.mutable_ipc_endpoint()->set_namespace_id(namespace_id);
  process.mutable_ipc_endpoint()->set_path(endpoint);
  process.set_exe_hash_algorithm("blake3");
  ZCB_ASSIGN_OR_RETURN(*process.mutable_exe_path(),
                       ipc::ExecutablePath(getpid()));
  ZCB_ASSIGN_OR_RETURN(*process.mutable_boot_id(), ipc::BootId());
  ZCB_ASSIGN_OR_RETURN(*process.mutable_exe_hash(), HashOwnExecutable());
  return process;
}

}  // namespace zcbroker::client
