#include "ipc/keeper_channel.h"

#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ipc/endpoint.h"
#include "ipc/fd_passing.h"
#include "ipc/os.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {
namespace {

using Kind = KeeperMessage::Kind;

constexpr std::size_t kHeaderBytes = 3;
constexpr std::uint8_t kFromServiceManager = 1;

static_assert(kHeaderBytes + MaxSocketPathBytes(Os::kLinux) <= kMaxPacketBytes);

bool HasName(Kind kind) {
  return kind == Kind::kHold || kind == Kind::kDrop || kind == Kind::kHeld;
}

bool IsKnown(std::uint8_t kind) {
  return kind >= static_cast<std::uint8_t>(Kind::kHold) &&
         kind <= static_cast<std::uint8_t>(Kind::kHere);
}

}  // namespace

std::string EncodeKeeperMessage(const KeeperMessage& message) {
  std::string bytes;
  bytes.push_back(static_cast<char>(kKeeperProtocol));
  bytes.push_back(static_cast<char>(message.kind));
  bytes.push_back(static_cast<char>(
      message.from_service_manager ? kFromServiceManager : 0));
  bytes += message.name;
  return bytes;
}

absl::StatusOr<absl::optional<KeeperMessage>> DecodeKeeperMessage(
    absl::string_view bytes) {
  if (bytes.size() < kHeaderBytes) {
    return absl::InvalidArgumentError("a packet too short for a message");
  }
  const auto protocol = static_cast<std::uint8_t>(bytes[0]);
  if (protocol != kKeeperProtocol) {
    return absl::InvalidArgumentError(
        absl::StrCat("keeper protocol ", protocol, ", not ", kKeeperProtocol));
  }
  const auto kind = static_cast<std::uint8_t>(bytes[1]);
  if (!IsKnown(kind)) return absl::optional<KeeperMessage>();
  KeeperMessage message;
  message.kind = static_cast<Kind>(kind);
  message.from_service_manager =
      (static_cast<std::uint8_t>(bytes[2]) & kFromServiceManager) != 0;
  message.name = std::string(bytes.substr(kHeaderBytes));
  if (HasName(message.kind)) {
    ZCB_RETURN_IF_ERROR(Endpoint::Parse(message.name).status());
  } else if (!message.name.empty()) {
    return absl::InvalidArgumentError("a name where none belongs");
  }
  return absl::optional<KeeperMessage>(std::move(message));
}

absl::Status KeeperLink::Send(const KeeperMessage& message, int attached) {
  // What was queued goes first: a later word about a name must win.
  ZCB_RETURN_IF_ERROR(Flush());
  std::string bytes = EncodeKeeperMessage(message);
  if (queue_.empty()) {
    absl::Status sent = SendPacket(fd_, bytes, attached);
    if (!absl::IsUnavailable(sent)) return sent;
  }
  UniqueFd kept;
  if (attached >= 0) {
    ZCB_ASSIGN_OR_RETURN(kept, Duplicate(attached));
  }
  queue_.push_back({std::move(bytes), std::move(kept)});
  return absl::OkStatus();
}

absl::Status KeeperLink::Flush() {
  while (!queue_.empty()) {
    const Queued& first = queue_.front();
    const absl::Status sent =
        SendPacket(fd_, first.bytes, first.attached.get());
    if (absl::IsUnavailable(sent)) return absl::OkStatus();
    ZCB_RETURN_IF_ERROR(sent);
    queue_.pop_front();
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::optional<KeeperLink::Received>> KeeperLink::Receive() {
  for (;;) {
    absl::StatusOr<absl::optional<Packet>> packet = ReceivePacket(fd_);
    if (absl::IsDataLoss(packet.status())) continue;
    ZCB_RETURN_IF_ERROR(packet.status());
    if (!packet->has_value()) return absl::optional<Received>();
    absl::StatusOr<absl::optional<KeeperMessage>> message =
        DecodeKeeperMessage((*packet)->bytes);
    if (!message.ok() || !message->has_value()) continue;
    return absl::optional<Received>(
        Received{*std::move(*message), std::move((*packet)->attached)});
  }
}

absl::StatusOr<absl::optional<KeeperChannel>> KeeperChannel::FromEnvironment() {
  const char* value = std::getenv(kKeeperFdVariable);
  if (value == nullptr) return absl::optional<KeeperChannel>();
  const std::string text = value;
  // No child of ours is to take itself for a broker with a keeper.
  unsetenv(kKeeperFdVariable);
  int number = -1;
  if (!absl::SimpleAtoi(text, &number) || number < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(kKeeperFdVariable, " is no descriptor"));
  }
  absl::StatusOr<UniqueFd> fd = AdoptPacketSocket(number);
  if (!fd.ok()) return Annotate(fd.status(), kKeeperFdVariable);
  return absl::optional<KeeperChannel>(KeeperChannel(*std::move(fd)));
}

absl::StatusOr<std::vector<HeldSocket>> KeeperChannel::TakeHeld(
    Deadline deadline) {
  std::vector<HeldSocket> sockets;
  for (;;) {
    ZCB_ASSIGN_OR_RETURN(absl::optional<KeeperLink::Received> received,
                         link_.Receive());
    if (!received.has_value()) {
      ZCB_RETURN_IF_ERROR(AwaitPacket(link_.fd(), deadline));
      continue;
    }
    const KeeperMessage& message = received->message;
    if (message.kind == Kind::kEndOfHeld) return sockets;
    if (message.kind != Kind::kHeld || !received->attached) continue;
    if (!held_.insert(message.name).second) continue;
    sockets.push_back({message.name, std::move(received->attached),
                       message.from_service_manager});
  }
}

absl::Status KeeperChannel::Hold(const std::string& name, int fd) {
  ZCB_RETURN_IF_ERROR(Endpoint::Parse(name).status());
  if (held_.size() >= kMaxHeldSockets && held_.count(name) == 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the keeper holds ", kMaxHeldSockets, " sockets, no more"));
  }
  KeeperMessage message;
  message.kind = Kind::kHold;
  message.name = name;
  ZCB_RETURN_IF_ERROR(link_.Send(message, fd));
  held_.insert(name);
  return absl::OkStatus();
}

absl::Status KeeperChannel::Drop(const std::string& name) {
  if (held_.erase(name) == 0) return absl::OkStatus();
  KeeperMessage message;
  message.kind = Kind::kDrop;
  message.name = name;
  return link_.Send(message);
}

absl::Status KeeperChannel::Ready() { return Say(Kind::kReady); }

absl::Status KeeperChannel::Here() { return Say(Kind::kHere); }

absl::Status KeeperChannel::AnswerWhatIsAsked() {
  for (;;) {
    ZCB_ASSIGN_OR_RETURN(const absl::optional<KeeperLink::Received> received,
                         link_.Receive());
    if (!received.has_value()) return absl::OkStatus();
    if (received->message.kind == Kind::kAsk) ZCB_RETURN_IF_ERROR(Here());
  }
}

absl::Status KeeperChannel::HandedOver() { return Say(Kind::kHandedOver); }

absl::Status KeeperChannel::Say(Kind kind) {
  KeeperMessage message;
  message.kind = kind;
  return link_.Send(message);
}

}  // namespace zcbroker::ipc
