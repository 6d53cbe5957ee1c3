#include "service/host/prober.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "asio/local/stream_protocol.hpp"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "asio/write.hpp"
#include "ipc/deadline.h"
#include "ipc/frame/envelope.h"
#include "ipc/frame/identity_probe.h"
#include "ipc/names.h"
#include "ipc/peer_identity.h"
#include "ipc/socket.h"
#include "proto/running_process/broker_v1.pb.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::service {
namespace {

namespace upstream = running_process::broker::v1;

// What a probe may answer at most; a Status is some hundred bytes.
constexpr uint32_t kMaxAnswerBytes = 64 * 1024;

std::string StatusRequest() {
  zccache::v1::Request request;
  request.mutable_status();
  request.set_request_id("control-status");
  return ipc::EncodeFrame(
             ipc::MakeFrame(upstream::FRAME_KIND_REQUEST, ipc::kZccacheProtocol,
                            1, ipc::SerializeDeterministically(request)))
      .value_or("");
}

ipc::ProbeNonce RandomNonce() {
  ipc::ProbeNonce nonce;
  std::random_device random;
  std::generate(nonce.begin(), nonce.end(),
                [&] { return static_cast<uint8_t>(random()); });
  return nonce;
}

// Whether the other side of a connection has gone.
bool HasEnded(const ipc::UniqueFd& connection) {
  pollfd look{connection.get(), POLLRDHUP, 0};
  return poll(&look, 1, 0) != 0;
}

class Operation : public std::enable_shared_from_this<Operation> {
 public:
  Operation(asio::io_context& loop, v1::Probe probe,
            std::function<void(absl::StatusOr<Probed>)> done)
      : probe_(probe), done_(std::move(done)), socket_(loop), timer_(loop) {}

  void Start(asio::io_context& loop, const ipc::Endpoint& endpoint,
             std::chrono::milliseconds patience) {
    absl::Status started = Connect(endpoint);
    if (!started.ok() || probe_ == v1::PROBE_CONNECT) {
      asio::post(loop, [self = shared_from_this(), started] {
        if (started.ok()) {
          self->Finish(self->probed_);
        } else {
          self->Finish(started);
        }
      });
      return;
    }
    timer_.expires_after(patience);
    timer_.async_wait([self = shared_from_this()](const asio::error_code& e) {
      if (e) return;
      self->Finish(absl::DeadlineExceededError("it did not answer its probe"));
    });
    Ask();
  }

  void Cancel() {
    done_ = nullptr;
    Close();
  }

 private:
  absl::Status Connect(const ipc::Endpoint& endpoint) {
    // A full backlog is a busy daemon; the caller tries again.
    absl::StatusOr<ipc::UniqueFd> fd =
        ipc::Connect(endpoint, ipc::Deadline::After(absl::ZeroDuration()));
    if (!fd.ok()) return fd.status();
    if (absl::Status ours = ipc::CheckPeerIsUs(*fd); !ours.ok()) return ours;
    const absl::StatusOr<ipc::PeerIdentity> peer = ipc::PeerOf(*fd);
    if (!peer.ok()) return peer.status();
    absl::StatusOr<ipc::ProcessIdentity> process =
        ipc::IdentifyProcess(peer->pid);
    if (absl::IsNotFound(process.status()) && !HasEnded(*fd)) {
      // As a keeper has a broker's. Nobody may take the place, and there is
      // nobody to watch.
      return absl::AlreadyExistsError(absl::StrCat(
          "process ", peer->pid,
          ", which listened there, has ended, and another has its socket"));
    }
    if (!process.ok()) return process.status();
    if (peer->pid != getpid() && ipc::RunsProgram(peer->pid, "zcbrokerd")) {
      return absl::AlreadyExistsError(absl::StrCat(
          "another broker of yours, process ", peer->pid,
          ", has that name; end it with its own XDG_RUNTIME_DIR: zcbroker "
          "down"));
    }
    probed_.process = *std::move(process);
    asio::error_code error;
    socket_.assign(asio::local::stream_protocol(), fd->release(), error);
    if (error) return absl::InternalError(error.message());
    return absl::OkStatus();
  }

  void Ask() {
    if (probe_ == v1::PROBE_RUNNING_PROCESS_IDENTITY) {
      nonce_ = RandomNonce();
      request_ = ipc::EncodeProbeRequest(nonce_);
    } else {
      request_ = StatusRequest();
    }
    asio::async_write(
        socket_, asio::buffer(request_),
        [self = shared_from_this()](const asio::error_code& error, size_t) {
          if (error) {
            self->Finish(absl::AbortedError("it hung up on its probe"));
            return;
          }
          self->Read();
        });
  }

  void Read() {
    socket_.async_read_some(
        asio::buffer(buffer_),
        [self = shared_from_this()](const asio::error_code& error, size_t n) {
          if (error) {
            self->Finish(absl::AbortedError("it hung up on its probe"));
            return;
          }
          self->answer_.append(self->buffer_.data(), n);
          self->TryDecode();
        });
  }

  void TryDecode() {
    const ipc::FrameHeader header =
        ipc::ParseFrameHeader(answer_, kMaxAnswerBytes);
    if (header.fault != ipc::FrameFault::kNone) {
      Finish(absl::DataLossError("its answer to the probe is no frame"));
      return;
    }
    const size_t whole = ipc::kFrameHeaderBytes + header.body_bytes;
    if (!header.complete || answer_.size() < whole) {
      Read();
      return;
    }
    const absl::StatusOr<upstream::Frame> frame =
        ipc::DecodeFrame(absl::string_view(answer_).substr(
            ipc::kFrameHeaderBytes, header.body_bytes));
    if (!frame.ok()) {
      Finish(absl::DataLossError("its answer to the probe is no frame"));
      return;
    }
    Finish(probe_ == v1::PROBE_RUNNING_PROCESS_IDENTITY ? Identity(*frame)
                                                        : Version(*frame));
  }

  absl::StatusOr<Probed> Identity(const upstream::Frame& frame) {
    const absl::StatusOr<upstream::DaemonProcess> process =
        ipc::ParseProbeReply(frame, nonce_);
    if (!process.ok()) return absl::DataLossError(process.status().message());
    if (process->pid() != static_cast<uint32_t>(probed_.process.pid)) {
      return absl::DataLossError(
          absl::StrCat("it says it is process ", process->pid(), ", but ",
                       probed_.process.pid, " listens there"));
    }
    return probed_;
  }

  absl::StatusOr<Probed> Version(const upstream::Frame& frame) {
    zccache::v1::Response response;
    if (!response.ParseFromString(frame.payload()) || !response.has_status()) {
      return absl::DataLossError("its answer to Status is none");
    }
    probed_.version = ipc::Printable(response.status().version());
    return probed_;
  }

  void Close() {
    timer_.cancel();
    asio::error_code ignored;
    socket_.close(ignored);
  }

  void Finish(absl::StatusOr<Probed> result) {
    Close();
    if (auto done = std::exchange(done_, nullptr)) done(std::move(result));
  }

  const v1::Probe probe_;
  std::function<void(absl::StatusOr<Probed>)> done_;
  asio::local::stream_protocol::socket socket_;
  asio::steady_timer timer_;
  Probed probed_;
  ipc::ProbeNonce nonce_{};
  std::string request_;
  std::array<char, 4096> buffer_;
  std::string answer_;
};

class Handle : public ProbeHandle {
 public:
  explicit Handle(std::shared_ptr<Operation> operation)
      : operation_(std::move(operation)) {}
  ~Handle() override { operation_->Cancel(); }

 private:
  const std::shared_ptr<Operation> operation_;
};

}  // namespace

std::unique_ptr<ProbeHandle> StartProbe(
    asio::io_context& loop, const ipc::Endpoint& endpoint, v1::Probe probe,
    std::chrono::milliseconds patience,
    std::function<void(absl::StatusOr<Probed>)> done) {
  auto operation = std::make_shared<Operation>(loop, probe, std::move(done));
  operation->Start(loop, endpoint, patience);
  return std::make_unique<Handle>(std::move(operation));
}

}  // namespace zcbroker::service
