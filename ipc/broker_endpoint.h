// The names under which running-process clients look for a broker, and the
// addresses those names stand for. Pure functions: nothing here touches the
// file system. Source: spec broker-v1 sections 3.2 and 3.3.
#ifndef ZCBROKER_IPC_BROKER_ENDPOINT_H_
#define ZCBROKER_IPC_BROKER_ENDPOINT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ipc/endpoint.h"
#include "ipc/os.h"

namespace zcbroker::ipc {

// Bare names. `user_sid_hash` is 16 lowercase hexadecimal digits
// (UserSidHash), names follow IsServiceName, `random` is 16 bytes; anything
// else is kInvalidArgument.
absl::StatusOr<std::string> SharedBrokerName(absl::string_view user_sid_hash);
absl::StatusOr<std::string> PrivateBrokerName(absl::string_view user_sid_hash,
                                              absl::string_view service);
absl::StatusOr<std::string> ExplicitInstanceName(
    absl::string_view user_sid_hash, absl::string_view instance);
absl::StatusOr<std::string> BackendName(absl::string_view user_sid_hash,
                                        absl::string_view random);

// What an address depends on, besides the name.
struct BrokerAddressInputs {
  absl::optional<std::string> xdg_runtime_dir;  // Linux; set to empty is set
  absl::optional<std::string> tmpdir;           // macOS: TMPDIR
  std::uint32_t real_uid = 0;
};

// Where clients with this environment look for `bare_name`. kInvalidArgument
// where the address is too long, or XDG_RUNTIME_DIR is empty or relative.
absl::StatusOr<Endpoint> BrokerAddress(absl::string_view bare_name,
                                       const BrokerAddressInputs& inputs,
                                       Os os = HostOs());

// Linux: every place to publish `bare_name` at, so that clients find it
// whether or not they have XDG_RUNTIME_DIR set; the one for a set variable
// first. An address that cannot be (see above) is left out.
std::vector<Endpoint> LinuxBrokerAddresses(absl::string_view bare_name,
                                           const BrokerAddressInputs& inputs);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_BROKER_ENDPOINT_H_
