#include "ipc/frame/first_message.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "ipc/frame/envelope.h"
#include "proto/running_process/broker_v1.pb.h"

namespace zcbroker::ipc {
namespace {

using Kind = FirstMessage::Kind;

std::string Frame(uint32_t protocol, size_t payload_bytes) {
  return EncodeFrame(MakeFrame(running_process::broker::v1::FRAME_KIND_REQUEST,
                               protocol, 1, std::string(payload_bytes, 'p')))
      .value();
}

// A header that announces a body of so many bytes.
std::string Header(uint32_t body_bytes) {
  std::string header = "\x01";
  for (int shift = 0; shift < 32; shift += 8) {
    header.push_back(static_cast<char>(body_bytes >> shift));
  }
  return header;
}

TEST(FirstMessageTest, OnlyAProbeIsTakenAndOnlyWhatMayBeOneAwaited) {
  const std::string probe = Frame(kIdentityProbeProtocol, 32);
  const struct {
    const char* name;
    std::string buffer;
    Kind kind;
  } kRows[] = {
      {"nothing", "", Kind::kNeedMore},
      {"probe", probe, Kind::kIdentityProbe},
      {"probe and more", probe + "more", Kind::kIdentityProbe},
      {"all but a byte of it", probe.substr(0, probe.size() - 1),
       Kind::kNeedMore},
      {"its first byte", probe.substr(0, 1), Kind::kNeedMore},
      {"probe of 31 bytes", Frame(kIdentityProbeProtocol, 31), Kind::kOther},
      {"a line", "p", Kind::kOther},
      {"zccache frame", Frame(kZccacheProtocol, 3), Kind::kOther},
      {"Hello", Frame(kControlProtocol, 3), Kind::kOther},
      {"no Frame", Header(3) + "\xff\xff\xff", Kind::kOther},
      {"as large as can be", Header(kMaxProbeBodyBytes), Kind::kNeedMore},
      {"larger", Header(kMaxProbeBodyBytes + 1), Kind::kOther},
      // Bincode v15 and prost v16: length 1 and 257, then the version.
      {"length 1", std::string("\1\0\0\0\x0f", 5), Kind::kOther},
      {"length 257", std::string("\1\1\0\0\x10", 5), Kind::kOther},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(DetectFirstMessage(row.buffer).kind, row.kind) << row.name;
  }
}

}  // namespace
}  // namespace zcbroker::ipc
