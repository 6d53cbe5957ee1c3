#include "service/host/metrics_listener.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "asio/buffer.hpp"
#include "asio/ip/tcp.hpp"
#include "asio/read_until.hpp"
#include "asio/steady_timer.hpp"
#include "asio/write.hpp"

namespace zcbroker::service {
namespace {

using Tcp = asio::ip::tcp;
using ReusePort =
    asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;

constexpr std::chrono::seconds kPatience(5);
constexpr std::chrono::milliseconds kPause(50);
constexpr char kOpenMetrics[] =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

std::string Reply(absl::string_view status, absl::string_view type,
                  absl::string_view body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", type,
                      "\r\nContent-Length: ", body.size(),
                      "\r\nConnection: close\r\n\r\n", body);
}

std::string Refusal(absl::string_view status, absl::string_view why) {
  return Reply(status, "text/plain", absl::StrCat(why, "\n"));
}

// A page in a browser may have its own name lead here; then it is asked for by
// that name.
bool IsLocal(absl::string_view host) {
  if (absl::StartsWith(host, "[::1]")) return true;
  const absl::string_view name = host.substr(0, host.find(':'));
  return name == "127.0.0.1" || absl::EqualsIgnoreCase(name, "localhost");
}

// What is wrong with a request, as a reply; empty: nothing is.
std::string WhyNot(absl::string_view request) {
  const std::vector<absl::string_view> lines = absl::StrSplit(request, "\r\n");
  const std::vector<absl::string_view> words = absl::StrSplit(lines[0], ' ');
  if (words.size() != 3 || !absl::StartsWith(words[2], "HTTP/1.")) {
    return Refusal("400 Bad Request", "this is no HTTP/1.1 request");
  }
  if (words[0] != "GET") {
    return Refusal("405 Method Not Allowed", "only GET is answered here");
  }
  if (words[1].substr(0, words[1].find('?')) != "/metrics") {
    return Refusal("404 Not Found", "there is only /metrics here");
  }
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::pair<absl::string_view, absl::string_view> header =
        absl::StrSplit(lines[i], absl::MaxSplits(':', 1));
    if (absl::EqualsIgnoreCase(header.first, "host") &&
        !IsLocal(absl::StripAsciiWhitespace(header.second))) {
      return Refusal("403 Forbidden", "ask for 127.0.0.1 or localhost");
    }
  }
  return "";
}

struct Shared {
  Counters& counters;
  const MetricsListener::Render render;
  size_t connections = 0;
};

// One request. Pending operations keep it alive; the timer ends it.
class Scrape : public std::enable_shared_from_this<Scrape> {
 public:
  Scrape(std::shared_ptr<Shared> shared, Tcp::socket socket)
      : shared_(std::move(shared)),
        socket_(std::move(socket)),
        limit_(socket_.get_executor()) {
    ++shared_->connections;
  }
  ~Scrape() { --shared_->connections; }
  Scrape(const Scrape&) = delete;
  Scrape& operator=(const Scrape&) = delete;

  void Begin() {
    limit_.expires_after(kPatience);
    limit_.async_wait([weak = weak_from_this()](const asio::error_code& e) {
      const auto self = weak.lock();
      if (!e && self != nullptr) self->Close();
    });
    asio::async_read_until(
        socket_,
        asio::dynamic_buffer(request_, MetricsListener::kMaxRequestBytes),
        "\r\n\r\n",
        [self = shared_from_this()](const asio::error_code& e, size_t) {
          // asio's word for a buffer that is full.
          if (e == asio::error::not_found) {
            self->Answer(Refusal("431 Request Header Fields Too Large",
                                 "the request is too long"));
          } else if (!e) {
            self->Handle();
          }
        });
  }

 private:
  void Handle() {
    std::string refusal = WhyNot(request_);
    if (!refusal.empty()) {
      Answer(std::move(refusal));
      return;
    }
    shared_->counters.Add("metrics.scrapes");
    shared_->render([self = shared_from_this()](const std::string& text) {
      self->Answer(Reply("200 OK", kOpenMetrics, text));
    });
  }

  void Answer(std::string reply) {
    reply_ = std::move(reply);
    asio::async_write(socket_, asio::buffer(reply_),
                      [self = shared_from_this()](const asio::error_code&,
                                                  size_t) { self->Close(); });
  }

  void Close() {
    asio::error_code ignored;
    socket_.shutdown(Tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
    limit_.cancel();
  }

  const std::shared_ptr<Shared> shared_;
  Tcp::socket socket_;
  asio::steady_timer limit_;
  std::string request_;
  std::string reply_;
};

class LoopMetricsListener : public MetricsListener {
 public:
  LoopMetricsListener(Tcp::acceptor acceptor, Counters& counters, Render render)
      : acceptor_(std::move(acceptor)),
        pause_(acceptor_.get_executor()),
        shared_(
            std::make_shared<Shared>(Shared{counters, std::move(render), 0})) {
    Wait();
  }

  uint16_t port() const override { return acceptor_.local_endpoint().port(); }

 private:
  void Wait() {
    acceptor_.async_wait(Tcp::acceptor::wait_read,
                         // Where it failed, it was destroyed.
                         [this](const asio::error_code& e) {
                           if (!e) Accept();
                         });
  }

  void Accept() {
    // asio's own would be inherited by what is spawned.
    const int fd = accept4(acceptor_.native_handle(), nullptr, nullptr,
                           SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      // Out of descriptors, or the peer has gone.
      pause_.expires_after(kPause);
      pause_.async_wait([this](const asio::error_code& e) {
        if (!e) Wait();
      });
      return;
    }
    Tcp::socket peer(acceptor_.get_executor(), Tcp::v4(), fd);
    if (shared_->connections < kMaxConnections) {
      std::make_shared<Scrape>(shared_, std::move(peer))->Begin();
    } else {
      shared_->counters.Reached("metrics.too_many");
    }
    Wait();
  }

  Tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Listen(
    asio::io_context& loop, uint16_t port, Counters& counters, Render render) {
  Tcp::acceptor acceptor(loop);
  asio::error_code error;
  const Tcp::endpoint loopback(asio::ip::address_v4::loopback(), port);
  acceptor.open(loopback.protocol(), error);
  if (!error) fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
  if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  // A successor listens before this broker has gone.
  if (!error) acceptor.set_option(ReusePort(true), error);
  if (!error) acceptor.bind(loopback, error);
  if (!error) acceptor.listen(kMaxConnections, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("127.0.0.1:", port, ": ", error.message()));
  }
  return std::unique_ptr<MetricsListener>(new LoopMetricsListener(
      std::move(acceptor), counters, std::move(render)));
}

}  // namespace zcbroker::service
