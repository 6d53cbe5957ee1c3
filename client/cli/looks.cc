#include "client/cli/looks.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "client/cli/output.h"
#include "ipc/boot_clock.h"
#include "ipc/breaker.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/peer_identity.h"
#include "ipc/process.h"
#include "ipc/socket.h"
#include "ipc/status_macros.h"

namespace zcbroker::cli {

std::string NoVersionOf(const std::string& service) {
  return absl::StrCat(
      service == "zccache" ? "there is no zccache-daemon on PATH, and " : "",
      "no definition names ", service, "; add one: zcbroker service add ",
      service, " --binary PATH");
}

std::string NoBinaryOf(const v1::ServiceSummary& service) {
  return absl::StrCat(service.name(), ": no usable binary (", service.source(),
                      "); put its daemon on PATH, or: zcbroker service add ",
                      service.name(), " --binary PATH");
}

absl::StatusOr<std::string> NewestOf(
    const google::protobuf::RepeatedPtrField<v1::ServiceSummary>& services,
    const std::string& service) {
  for (const v1::ServiceSummary& known : services) {
    if (known.name() != service) continue;
    if (known.versions().empty()) {
      return absl::NotFoundError(NoBinaryOf(known));
    }
    return known.versions(0);
  }
  return absl::NotFoundError(NoVersionOf(service));
}

absl::StatusOr<ipc::UniqueFd> TryConnect(const std::string& path) {
  ZCB_ASSIGN_OR_RETURN(const ipc::Endpoint endpoint,
                       ipc::Endpoint::Parse(path));
  return ipc::Connect(endpoint, ipc::Deadline::After(kLookPatience));
}

std::string WhoListens(const ipc::UniqueFd& connection) {
  const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(connection);
  if (!peer.ok() || peer->pid == 0) return "somebody listens";
  const absl::StatusOr<std::string> program = ipc::ProgramName(peer->pid);
  if (!program.ok()) return "somebody listens";
  return absl::StrCat("somebody listens: ", *program, ", process ", peer->pid);
}

int KeeperOf(int broker_pid) {
  const auto broker = ipc::ReadProcessStat(broker_pid);
  if (!broker.ok()) return 0;
  return ipc::RunsProgram(broker->parent, "zcbroker-keeper") ? broker->parent
                                                             : 0;
}

BreakerLook LookAtBreaker(const ipc::RuntimeDir& dir) {
  const absl::optional<ipc::BreakerState> state = ipc::ReadBreaker(dir);
  if (!state.has_value()) return {false, "the broker has not been mute"};
  const absl::StatusOr<ipc::FileIdentity> socket =
      ipc::IdentifyFile(dir.broker_socket());
  if (!socket.ok() || *socket != state->socket) {
    return {false, "it was about another broker"};
  }
  const absl::Duration age = ipc::SinceBoot() - state->opened;
  const std::string when =
      absl::StrCat("the broker was mute ", Spell(age), " ago");
  if (age < absl::ZeroDuration() || age >= ipc::kBreakerTime) {
    return {false, absl::StrCat(when, "; the next client tries it")};
  }
  return {true, absl::StrCat(when, "; nobody asks it for ",
                             Spell(ipc::kBreakerTime - age))};
}

}  // namespace zcbroker::cli
