// The live listener: front door and framed adapter on a real socket, and peers
// that say what an input tells them to, whole frames of every lane among it.
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "fuzzer/FuzzedDataProvider.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/frame/envelope.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/unique_fd.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zcbroker/v1/launcher.pb.h"
#include "service/core/http_server_port.h"
#include "service/core/testing/refusing_port.h"
#include "service/framed/framed_adapter.h"
#include "service/host/front_door.h"
#include "service/host/log.h"
#include "tests/fuzz/property.h"

namespace zcbroker::service {
namespace {

namespace upstream = running_process::broker::v1;

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// gRPC's own parsers are not ours to fuzz: what is handed over is closed.
class Closer : public HttpServerPort {
 public:
  void Adopt(ipc::UniqueFd connection) override {
    std::string first(sizeof(kPreface) - 1, '\0');
    ZCB_PROPERTY(recv(connection.get(), &first[0], first.size(),
                      MSG_DONTWAIT) == static_cast<ssize_t>(first.size()));
    ZCB_PROPERTY(first == kPreface);
  }
  void TearDown() override {}
};

class Peers {
 public:
  Peers()
      : endpoint_([] {
          char path[] = "/tmp/zcbf.XXXXXX";
          ZCB_PROPERTY(mkdtemp(path) != nullptr);
          return *ipc::Endpoint::Parse(std::string(path) + "/s");
        }()),
        adapter_(port_, [](int) { return v1::World(); }, {}) {
    FrontDoorLimits limits;
    // Who stops in the middle of a preface is waited for.
    limits.identify_within = std::chrono::milliseconds(5);
    limits.request_within = std::chrono::milliseconds(5);
    door_ = FrontDoor::Create(loop_, *ipc::Listener::Bind(endpoint_), geteuid(),
                              limits, adapter_, closer_, port_.counters());
    door_->Open();
  }

  // One peer; what it is answered.
  std::string Say(const std::vector<std::string>& parts) {
    const ipc::UniqueFd fd =
        *ipc::Connect(endpoint_, ipc::Deadline::After(absl::Seconds(5)));
    for (const std::string& part : parts) {
      send(fd.get(), part.data(), part.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      loop_.poll();
    }
    shutdown(fd.get(), SHUT_WR);
    std::string answer;
    char buffer[4096];
    for (int i = 0; i < 1000; ++i) {
      const ssize_t n = recv(fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (n > 0) answer.append(buffer, static_cast<size_t>(n));
      if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
      // Every peer is rid of in time.
      ZCB_PROPERTY(i < 999);
      if (n < 0) loop_.run_for(std::chrono::milliseconds(1));
      loop_.restart();
    }
    return answer;
  }

  void ExpectNobodyLeft() {
    for (int i = 0; door_->connections() > 0; ++i) {
      ZCB_PROPERTY(i < 1000);
      loop_.run_for(std::chrono::milliseconds(1));
      loop_.restart();
    }
  }

 private:
  asio::io_context loop_{1};
  const ipc::Endpoint endpoint_;
  testing::RefusingPort port_;
  Closer closer_;
  FramedAdapter adapter_;
  std::unique_ptr<FrontDoor> door_;
};

std::string Text(FuzzedDataProvider& input) {
  return input.ConsumeRandomLengthString(80);
}

std::string HelloBytes(FuzzedDataProvider& input) {
  upstream::Hello hello;
  hello.set_client_min_protocol(input.ConsumeIntegralInRange(0, 3));
  hello.set_client_max_protocol(input.ConsumeIntegralInRange(0, 3));
  hello.set_service_name(input.ConsumeBool() ? "zccache" : Text(input));
  hello.set_wanted_version(input.ConsumeBool() ? "1.11.22" : Text(input));
  hello.set_client_version(Text(input));
  if (input.ConsumeBool()) hello.set_peer_pid(getpid());
  hello.set_request_id(Text(input));
  return hello.SerializeAsString();
}

std::string LauncherBytes(FuzzedDataProvider& input) {
  v1::LauncherRequest request;
  if (input.ConsumeBool()) {
    request.mutable_report()->set_service(Text(input));
    request.mutable_report()->set_version(Text(input));
    request.mutable_report()->set_pid(input.ConsumeIntegral<uint32_t>());
    request.mutable_report()->set_reason(Text(input));
  } else {
    request.mutable_lookup()->set_service(Text(input));
    request.mutable_lookup()->set_version(Text(input));
  }
  return request.SerializeAsString();
}

// A frame of any lane, right or nearly.
std::string FrameBytes(FuzzedDataProvider& input) {
  constexpr uint32_t kLanes[] = {
      ipc::kControlProtocol, ipc::kZccacheProtocol,
      ipc::kAdminProtocol,   ipc::kIdentityProbeProtocol,
      ipc::kHandoffProtocol, ipc::kLauncherProtocol};
  const uint32_t lane = input.PickValueInArray(kLanes);
  std::string payload;
  switch (input.ConsumeIntegralInRange(0, 2)) {
    case 0:
      payload = HelloBytes(input);
      break;
    case 1:
      payload = LauncherBytes(input);
      break;
    default:
      payload = input.ConsumeRandomLengthString(300);
  }
  upstream::Frame frame =
      ipc::MakeFrame(upstream::FRAME_KIND_REQUEST, lane,
                     input.ConsumeIntegral<uint64_t>(), payload);
  if (input.ConsumeIntegralInRange(0, 7) == 0) {
    frame.set_kind(
        static_cast<upstream::FrameKind>(input.ConsumeIntegralInRange(0, 4)));
    frame.set_envelope_version(input.ConsumeIntegralInRange(0, 2));
  }
  auto bytes = ipc::EncodeFrame(frame);
  ZCB_PROPERTY(bytes.ok());
  // A length, or a byte, that is not true.
  if (input.ConsumeIntegralInRange(0, 7) == 0) {
    const size_t at =
        input.ConsumeIntegralInRange<size_t>(0, bytes->size() - 1);
    (*bytes)[at] = static_cast<char>(input.ConsumeIntegral<uint8_t>());
  }
  return *std::move(bytes);
}

std::vector<std::string> Script(FuzzedDataProvider& input) {
  std::string all;
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0:
      all = input.ConsumeRandomLengthString(1000);
      break;
    case 1:
      all = std::string(kPreface) + Text(input);
      break;
    default:
      all = FrameBytes(input);
  }
  std::vector<std::string> parts;
  for (int cuts = input.ConsumeIntegralInRange(0, 3);
       cuts > 0 && all.size() > 1; --cuts) {
    const size_t size = input.ConsumeIntegralInRange<size_t>(1, all.size() - 1);
    parts.push_back(all.substr(0, size));
    all.erase(0, size);
  }
  parts.push_back(std::move(all));
  return parts;
}

// One frame, or nothing; and nothing makes the next peer pay for it.
void Check(FuzzedDataProvider& input) {
  static Peers peers;
  const std::string answer = peers.Say(Script(input));
  if (!answer.empty()) {
    const ipc::FrameHeader header =
        ipc::ParseFrameHeader(answer, ipc::kMaxFrameBodyBytes);
    ZCB_PROPERTY(header.fault == ipc::FrameFault::kNone && header.complete);
    ZCB_PROPERTY(answer.size() == ipc::kFrameHeaderBytes + header.body_bytes);
    upstream::Frame frame;
    ZCB_PROPERTY(frame.ParseFromString(answer.substr(ipc::kFrameHeaderBytes)));
    ZCB_PROPERTY(frame.kind() == upstream::FRAME_KIND_RESPONSE);
  }
  upstream::Hello good;
  good.set_client_min_protocol(1);
  good.set_client_max_protocol(1);
  good.set_service_name("zccache");
  good.set_wanted_version("1.11.22");
  const std::string next = peers.Say({*ipc::EncodeFrame(
      ipc::MakeFrame(upstream::FRAME_KIND_REQUEST, ipc::kControlProtocol, 7,
                     good.SerializeAsString()))});
  ZCB_PROPERTY(!next.empty());
  peers.ExpectNobodyLeft();
}

}  // namespace
}  // namespace zcbroker::service

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  zcbroker::service::InitLog(zcbroker::service::LogLevel::kError,
                             zcbroker::service::LogFormat::kText);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  zcbroker::service::Check(input);
  return 0;
}
