#include "service/host/metrics_listener.h"

#include <errno.h>
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
#include "asio/post.hpp"
#include "asio/read_until.hpp"
#include "asio/steady_timer.hpp"
#include "asio/write.hpp"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

using Tcp = asio::ip::tcp;

constexpr std::chrono::seconds kPatience(5);
constexpr std::chrono::milliseconds kPause(50);
constexpr std::chrono::seconds kFresh(1);
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
  // A port follows, perhaps.
  const size_t colon = host.rfind(':');
  if (colon != absl::string_view::npos &&
      host.find_first_not_of("0123456789", colon + 1) ==
          absl::string_view::npos) {
    host = host.substr(0, colon);
  }
  return host == "127.0.0.1" || host == "[::1]" ||
         absl::EqualsIgnoreCase(host, "localhost");
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
    if (absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(header.first),
                               "host") &&
        !IsLocal(absl::StripAsciiWhitespace(header.second))) {
      return Refusal("403 Forbidden", "ask for 127.0.0.1 or localhost");
    }
  }
  return "";
}

// What connections share. The text is made once a second at most, for those
// who ask meanwhile, too: anybody on the machine may ask as often as they like.
class Shared {
 public:
  using Reply = std::function<void(const std::string&)>;

  Shared(asio::io_context& loop, Counters& counters,
         MetricsListener::Render render)
      : counters(counters), loop_(loop), render_(std::move(render)) {}

  // On the loop, not from within the call.
  static void Text(const std::shared_ptr<Shared>& self, Reply reply) {
    if (std::chrono::steady_clock::now() - self->made_ < kFresh) {
      asio::post(self->loop_,
                 [self, reply = std::move(reply)] { reply(self->text_); });
      return;
    }
    self->waiting_.push_back(std::move(reply));
    if (self->waiting_.size() > 1) return;
    self->render_([self](std::string text) {
      self->text_ = std::move(text);
      self->made_ = std::chrono::steady_clock::now();
      for (const Reply& waits : std::exchange(self->waiting_, {})) {
        waits(self->text_);
      }
    });
  }

  Counters& counters;
  size_t connections = 0;

 private:
  asio::io_context& loop_;
  const MetricsListener::Render render_;
  std::string text_;
  std::chrono::steady_clock::time_point made_;
  std::vector<Reply> waiting_;
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
    Shared::Text(shared_, [self = shared_from_this()](const std::string& text) {
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

// What pending operations keep alive: asio cannot take back a timer that is
// due.
class Accepting : public std::enable_shared_from_this<Accepting> {
 public:
  Accepting(Tcp::acceptor acceptor, std::shared_ptr<Shared> shared)
      : acceptor_(std::move(acceptor)),
        pause_(acceptor_.get_executor()),
        shared_(std::move(shared)) {}

  uint16_t port() const {
    asio::error_code ignored;
    return acceptor_.local_endpoint(ignored).port();
  }

  void Close() {
    closed_ = true;
    asio::error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  }

  void Wait() {
    acceptor_.async_wait(
        Tcp::acceptor::wait_read,
        [self = shared_from_this()](const asio::error_code& e) {
          if (!e && !self->closed_) self->Accept();
        });
  }

 private:
  void Accept() {
    // asio's own would be inherited by what is spawned.
    ipc::UniqueFd fd(accept4(acceptor_.native_handle(), nullptr, nullptr,
                             SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE) {
        shared_->counters.Reached("accept_failures");
      }
      // Out of descriptors, or the peer has gone.
      pause_.expires_after(kPause);
      pause_.async_wait([self = shared_from_this()](const asio::error_code& e) {
        if (!e && !self->closed_) self->Wait();
      });
      return;
    }
    if (shared_->connections >= MetricsListener::kMaxConnections) {
      // No event: it may be another user's doing, as often as they like.
      shared_->counters.Add("metrics.too_many");
    } else {
      Tcp::socket peer(acceptor_.get_executor());
      asio::error_code error;
      peer.assign(Tcp::v4(), fd.get(), error);
      if (!error) {
        static_cast<void>(fd.release());
        std::make_shared<Scrape>(shared_, std::move(peer))->Begin();
      }
    }
    Wait();
  }

  Tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  const std::shared_ptr<Shared> shared_;
  bool closed_ = false;
};

class LoopMetricsListener : public MetricsListener {
 public:
  explicit LoopMetricsListener(std::shared_ptr<Accepting> accepting)
      : accepting_(std::move(accepting)) {
    accepting_->Wait();
  }
  ~LoopMetricsListener() override { accepting_->Close(); }

  uint16_t port() const override { return accepting_->port(); }

 private:
  const std::shared_ptr<Accepting> accepting_;
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
  if (!error) acceptor.bind(loopback, error);
  if (!error) acceptor.listen(kMaxConnections, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("127.0.0.1:", port, ": ", error.message()));
  }
  return std::unique_ptr<MetricsListener>(
      new LoopMetricsListener(std::make_shared<Accepting>(
          std::move(acceptor),
          std::make_shared<Shared>(loop, counters, std::move(render)))));
}

}  // namespace zcbroker::service
