// What keeper and broker make of each other's packets, and a keeper of what its
// earlier self left it.
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/deadline.h"
#include "ipc/fd_passing.h"
#include "ipc/keeper_channel.h"
#include "ipc/unique_fd.h"
#include "service/keeper/keeper_state.h"
#include "tests/fuzz/property.h"

namespace zcbroker {
namespace {

bool IsDecent(const ipc::KeeperMessage& message) {
  if (message.name.empty()) return true;
  return message.name[0] == '/' && message.name.size() <= 107 &&
         message.name.find('\0') == std::string::npos;
}

void CheckMessage(absl::string_view bytes) {
  const auto decoded = ipc::DecodeKeeperMessage(bytes);
  if (!decoded.ok()) {
    ZCB_PROPERTY(absl::IsInvalidArgument(decoded.status()));
    return;
  }
  if (!decoded->has_value()) return;
  ZCB_PROPERTY(IsDecent(**decoded));
  const auto again =
      ipc::DecodeKeeperMessage(ipc::EncodeKeeperMessage(**decoded));
  ZCB_PROPERTY(again.ok() && again->has_value() && **again == **decoded);
}

// Packets: a byte for the length and whether a descriptor comes along, then so
// many bytes.
template <typename Each>
void ForEachPacket(absl::string_view script, Each each) {
  while (!script.empty()) {
    const auto head = static_cast<unsigned char>(script[0]);
    const absl::string_view bytes = script.substr(1, head & 0x7f);
    script.remove_prefix(1 + bytes.size());
    if (!bytes.empty()) each(bytes, (head & 0x80) != 0);
  }
}

// As the broker reads at its start, and as the keeper reads all the time.
void CheckStream(absl::string_view script) {
  static const int spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
  for (const bool as_broker : {true, false}) {
    auto ends = ipc::PacketSocketPair();
    ZCB_PROPERTY(ends.ok());
    ForEachPacket(script, [&](absl::string_view bytes, bool with_fd) {
      ipc::SendPacket(ends->first, bytes, with_fd ? spare : -1).IgnoreError();
    });
    ends->first.reset();
    if (as_broker) {
      ipc::KeeperChannel channel(std::move(ends->second));
      const auto held =
          channel.TakeHeld(ipc::Deadline::After(absl::ZeroDuration()));
      if (!held.ok()) continue;
      std::set<std::string> names;
      for (const ipc::HeldSocket& socket : *held) {
        ZCB_PROPERTY(names.insert(socket.name).second);
      }
      // What follows may be questions, and the keeper is gone.
      ZCB_PROPERTY(absl::IsAborted(channel.AnswerWhatIsAsked()));
      continue;
    }
    ipc::KeeperLink link(std::move(ends->second));
    while (true) {
      const auto received = link.Receive();
      if (!received.ok() || !received->has_value()) break;
      ZCB_PROPERTY(IsDecent((*received)->message));
    }
  }
}

void CheckState(absl::string_view text) {
  const auto state = service::DecodeKeeperState(text);
  if (!state.ok()) return;
  const std::string once = service::EncodeKeeperState(*state);
  const auto again = service::DecodeKeeperState(once);
  ZCB_PROPERTY(again.ok());
  ZCB_PROPERTY(service::EncodeKeeperState(*again) == once);
}

}  // namespace
}  // namespace zcbroker

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  zcbroker::CheckMessage(bytes);
  zcbroker::CheckStream(bytes);
  zcbroker::CheckState(bytes);
  return 0;
}
