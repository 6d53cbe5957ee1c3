#include "ipc/broker_endpoint.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "ipc/names.h"
#include "ipc/status_macros.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::ipc {
namespace {

absl::StatusOr<std::string> NameOf(absl::string_view user_sid_hash,
                                   absl::string_view rest) {
  const bool fits =
      user_sid_hash.size() == 16 &&
      std::all_of(user_sid_hash.begin(), user_sid_hash.end(), [](char c) {
        return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
      });
  if (!fits) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", Printable(user_sid_hash),
                     "\" is no user hash: 16 lowercase hexadecimal digits"));
  }
  return absl::StrCat("rpb-v1-", user_sid_hash, "-", rest);
}

std::string LinuxPath(const absl::optional<std::string>& xdg_runtime_dir,
                      std::uint32_t real_uid, absl::string_view bare_name) {
  if (!xdg_runtime_dir.has_value()) {
    return absl::StrCat("/tmp/running-process-", real_uid, "/broker/",
                        bare_name, ".sock");
  }
  const absl::string_view root = absl::StripSuffix(*xdg_runtime_dir, "/");
  return absl::StrCat(root, root.empty() && xdg_runtime_dir->empty() ? "" : "/",
                      "running-process/broker/", bare_name, ".sock");
}

std::string MacOsPath(const BrokerAddressInputs& inputs,
                      absl::string_view bare_name) {
  const std::string root = inputs.tmpdir.value_or("/tmp");
  return absl::StrCat(absl::StripSuffix(root, "/"), "/.rp-", inputs.real_uid,
                      "/", UserSidHash(bare_name), ".sock");
}

}  // namespace

absl::StatusOr<std::string> SharedBrokerName(absl::string_view user_sid_hash) {
  return NameOf(user_sid_hash, "shared");
}

absl::StatusOr<std::string> PrivateBrokerName(absl::string_view user_sid_hash,
                                              absl::string_view service) {
  ZCB_RETURN_IF_ERROR(CheckServiceName(service));
  return NameOf(user_sid_hash, absl::StrCat("svc-", service));
}

absl::StatusOr<std::string> ExplicitInstanceName(
    absl::string_view user_sid_hash, absl::string_view instance) {
  ZCB_RETURN_IF_ERROR(CheckServiceName(instance));
  return NameOf(user_sid_hash, absl::StrCat("inst-", instance));
}

absl::StatusOr<std::string> BackendName(absl::string_view user_sid_hash,
                                        absl::string_view random) {
  if (random.size() != 16) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a backend's name takes 16 random bytes, not ", random.size()));
  }
  return NameOf(user_sid_hash,
                absl::StrCat("be-", absl::BytesToHexString(random)));
}

absl::StatusOr<Endpoint> BrokerAddress(absl::string_view bare_name,
                                       const BrokerAddressInputs& inputs,
                                       Os os) {
  switch (os) {
    case Os::kLinux:
      return Endpoint::Parse(
          LinuxPath(inputs.xdg_runtime_dir, inputs.real_uid, bare_name), os);
    case Os::kMacOs:
      return Endpoint::Parse(MacOsPath(inputs, bare_name), os);
    case Os::kWindows:
      return Endpoint::Parse(bare_name, os);
  }
  return absl::UnimplementedError("unknown operating system");
}

std::vector<Endpoint> LinuxBrokerAddresses(absl::string_view bare_name,
                                           const BrokerAddressInputs& inputs) {
  const std::string set = inputs.xdg_runtime_dir.value_or(
      absl::StrCat("/run/user/", inputs.real_uid));
  std::vector<Endpoint> addresses;
  for (const std::string& path :
       {LinuxPath(set, inputs.real_uid, bare_name),
        LinuxPath(absl::nullopt, inputs.real_uid, bare_name)}) {
    absl::StatusOr<Endpoint> address = Endpoint::Parse(path, Os::kLinux);
    if (address.ok()) addresses.push_back(*std::move(address));
  }
  return addresses;
}

}  // namespace zcbroker::ipc
