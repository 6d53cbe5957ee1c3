#include "service/framed/framed_adapter.h"

#include <utility>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "ipc/frame/framed_reply.h"
#include "proto/zcbroker/v1/refusals.h"

namespace zcbroker::service {
namespace {

namespace upstream = running_process::broker::v1;

constexpr size_t kMaxClientVersionBytes = 128;
constexpr size_t kMaxLibraryBytes = 64;
constexpr uint64_t kDefaultKeepaliveSecs = 1800;
constexpr uint32_t kProtocol = 1;

std::string BytesOr(absl::StatusOr<std::string> encoded) {
  // Only a reply over 16 MiB cannot be encoded; ours are some hundred bytes.
  return encoded.ok() ? *std::move(encoded) : std::string();
}

// The checks of a decoded Hello in their order (spec broker-v1 5.2, steps 10
// and 11), with upstream's texts. The grammars of service and version are the
// core's first checks.
absl::optional<upstream::Refused> CheckHello(const upstream::Hello& hello,
                                             const ipc::PeerIdentity& peer) {
  const auto reject = [](const char* text) {
    return ipc::MakeRefused(text, upstream::ERROR_PEER_REJECTED);
  };
  if (hello.client_min_protocol() > kProtocol ||
      hello.client_max_protocol() < kProtocol) {
    return ipc::MakeRefused("client protocol range does not include v1",
                            upstream::ERROR_VERSION_UNSUPPORTED);
  }
  if (hello.client_version().size() > kMaxClientVersionBytes) {
    return reject("client_version exceeds 128 bytes");
  }
  if (hello.client_lib_name().size() > kMaxLibraryBytes ||
      hello.client_lib_version().size() > kMaxLibraryBytes) {
    return reject("client_lib fields exceed 64 bytes");
  }
  if (hello.peer_pid() != 0 && peer.pid != 0 &&
      hello.peer_pid() != static_cast<uint32_t>(peer.pid)) {
    return reject("peer_pid does not match verified peer");
  }
  return absl::nullopt;
}

}  // namespace

FramedAdapter::FramedAdapter(BrokerPort& port, WorldOf world_of,
                             ServiceDefDir upstream_dir)
    : port_(port),
      world_of_(std::move(world_of)),
      upstream_dir_(std::move(upstream_dir)) {}

std::string FramedAdapter::AnswerFault(ipc::FrameFault fault) {
  const std::string counter =
      absl::StrCat("bad_frames.", std::string(ipc::FrameFaultName(fault)));
  if (fault == ipc::FrameFault::kTooLarge ||
      fault == ipc::FrameFault::kIncomplete) {
    port_.counters().Reached(counter);
  } else {
    port_.counters().Add(counter);
  }
  return BytesOr(
      ipc::EncodeHelloReply(upstream::Frame(), ipc::RefusedForFault(fault)));
}

void FramedAdapter::Handle(absl::string_view body,
                           const ipc::PeerIdentity& peer, Reply reply) {
  const absl::StatusOr<upstream::Frame> frame = ipc::DecodeFrame(body);
  if (!frame.ok()) {
    reply(AnswerFault(ipc::FrameFault::kMalformedFrame));
    return;
  }
  if (frame->payload_protocol() == ipc::kAdminProtocol) {
    HandleAdmin(*frame, reply);
    return;
  }
  if (frame->payload_protocol() == ipc::kLauncherProtocol) {
    HandleLauncher(*frame, std::move(reply));
    return;
  }
  const ipc::FrameFault fault = ipc::CheckEnvelope(
      *frame, upstream::FRAME_KIND_REQUEST, ipc::kControlProtocol);
  if (fault != ipc::FrameFault::kNone) {
    port_.counters().Add(
        absl::StrCat("bad_frames.", std::string(ipc::FrameFaultName(fault))));
    reply(BytesOr(ipc::EncodeHelloReply(*frame, ipc::RefusedForFault(fault))));
    return;
  }
  HandleHello(*frame, peer, std::move(reply));
}

void FramedAdapter::HandleHello(const upstream::Frame& frame,
                                const ipc::PeerIdentity& peer, Reply reply) {
  upstream::Hello hello;
  if (!hello.ParseFromString(frame.payload())) {
    const auto fault = ipc::FrameFault::kMalformedPayload;
    port_.counters().Add(
        absl::StrCat("bad_frames.", std::string(ipc::FrameFaultName(fault))));
    reply(BytesOr(ipc::EncodeHelloReply(frame, ipc::RefusedForFault(fault))));
    return;
  }
  if (const auto refused = CheckHello(hello, peer)) {
    port_.counters().Add("bad_hellos");
    reply(BytesOr(ipc::EncodeHelloReply(frame, *refused)));
    return;
  }
  v1::NegotiateRequest request;
  request.set_service(hello.service_name());
  request.set_wanted_version(hello.wanted_version());
  request.set_client_name(hello.client_lib_name());
  request.set_client_version(hello.client_version());
  request.set_traceparent(frame.traceparent());
  if (port_.KnowsService(request.service())) {
    *request.mutable_world() = world_of_(peer.pid);
  }
  const uint64_t keepalive = hello.client_keepalive_secs();
  if (const auto route = port_.TryRoute(request)) {
    reply(EncodeOutcome(frame, keepalive, *route));
    return;
  }
  port_.Negotiate(std::move(request), absl::nullopt,
                  [this, frame, keepalive,
                   reply = std::move(reply)](const Outcome& outcome) {
                    reply(EncodeOutcome(frame, keepalive, outcome));
                  });
}

std::string FramedAdapter::EncodeOutcome(const upstream::Frame& frame,
                                         uint64_t keepalive_secs,
                                         const Outcome& outcome) {
  if (const auto* refusal = std::get_if<Refused>(&outcome)) {
    const RefusalTraits& traits = TraitsOf(refusal->refusal());
    upstream::Refused refused = ipc::MakeRefused(
        refusal->text, static_cast<upstream::ErrorCode>(traits.framed_code),
        refusal->detail.retry_after_ms());
    // The exact name, for clients that know us: several share one code.
    (*refused.mutable_details())["refusal"] = std::string(traits.name);
    return BytesOr(ipc::EncodeHelloReply(frame, refused));
  }
  const v1::BackendRoute& route =
      std::get<v1::NegotiateResponse>(outcome).route();
  upstream::Negotiated negotiated;
  negotiated.set_negotiated_protocol(kProtocol);
  negotiated.set_daemon_version(route.version());
  negotiated.set_backend_pipe(route.endpoint());
  negotiated.set_keepalive_interval_secs(
      keepalive_secs == 0 ? kDefaultKeepaliveSecs : keepalive_secs);
  negotiated.set_connection_id(next_connection_id_++);
  return BytesOr(ipc::EncodeHelloReply(frame, negotiated));
}

void FramedAdapter::HandleLauncher(const upstream::Frame& frame, Reply reply) {
  v1::LauncherRequest request;
  if (ipc::CheckEnvelope(frame, upstream::FRAME_KIND_REQUEST,
                         ipc::kLauncherProtocol) != ipc::FrameFault::kNone ||
      !request.ParseFromString(frame.payload())) {
    port_.counters().Add("bad_frames.launcher");
    reply("");
    return;
  }
  const auto answer = [request_id = frame.request_id(),
                       reply = std::move(reply)](const v1::LauncherReply& say) {
    reply(BytesOr(ipc::EncodeFrame(
        ipc::MakeFrame(upstream::FRAME_KIND_RESPONSE, ipc::kLauncherProtocol,
                       request_id, ipc::SerializeDeterministically(say)))));
  };
  const auto refuse = [answer](const Refused& refused) {
    v1::LauncherReply say;
    say.mutable_refusal()->set_name(
        std::string(TraitsOf(refused.refusal()).name));
    say.mutable_refusal()->set_text(refused.text);
    say.mutable_refusal()->set_retry_after_ms(
        static_cast<uint32_t>(refused.detail.retry_after_ms()));
    answer(say);
  };
  switch (request.kind_case()) {
    case v1::LauncherRequest::kReport: {
      v1::ReportBackendRequest report;
      report.set_service(request.report().service());
      report.set_version(request.report().version());
      report.set_pid(request.report().pid());
      report.set_start_time(request.report().start_time());
      report.set_reason(request.report().reason());
      port_.ReportBackend(
          std::move(report), absl::nullopt,
          [answer, refuse](const ReportOutcome& outcome) {
            if (const auto* refused = std::get_if<Refused>(&outcome)) {
              refuse(*refused);
              return;
            }
            v1::LauncherReply say;
            // The two lists of verdicts have the same numbers.
            say.set_verdict(static_cast<v1::LauncherReply::Verdict>(
                std::get<v1::ReportBackendResponse>(outcome).verdict()));
            answer(say);
          });
      return;
    }
    case v1::LauncherRequest::kLookup: {
      const v1::LauncherRequest::Lookup& lookup = request.lookup();
      v1::NegotiateRequest wanted;
      wanted.set_service(lookup.service());
      wanted.set_wanted_version(lookup.version());
      for (const uint32_t lane : lookup.lanes()) {
        wanted.add_accepted_lanes(static_cast<v1::WireLane>(lane));
      }
      wanted.set_client_name("zcb");
      wanted.set_traceparent(frame.traceparent());
      wanted.mutable_world()->set_cache_root(lookup.cache_root());
      wanted.mutable_world()->set_daemon_namespace(lookup.daemon_namespace());
      wanted.mutable_world()->set_mount_namespace(lookup.mount_namespace());
      port_.LookUp(std::move(wanted),
                   [answer, refuse](const LookupOutcome& outcome) {
                     if (const auto* refused = std::get_if<Refused>(&outcome)) {
                       refuse(*refused);
                       return;
                     }
                     v1::LauncherReply say;
                     *say.mutable_route() = std::get<v1::RouteInfo>(outcome);
                     answer(say);
                   });
      return;
    }
    case v1::LauncherRequest::KIND_NOT_SET:
      port_.counters().Add("bad_frames.launcher");
      answer(v1::LauncherReply());
      return;
  }
}

void FramedAdapter::WithFacts(std::function<void(const AdminFacts&)> tell) {
  port_.GetStatus([this, tell = std::move(tell)](v1::GetStatusResponse status) {
    port_.ListBackends([status = std::move(status),
                        tell](v1::ListBackendsResponse backends) mutable {
      tell({std::move(status), std::move(backends), absl::Now()});
    });
  });
}

void FramedAdapter::HandleAdmin(const upstream::Frame& frame,
                                const Reply& reply) {
  upstream::AdminRequest request;
  if (ipc::CheckEnvelope(frame, upstream::FRAME_KIND_REQUEST,
                         ipc::kAdminProtocol) != ipc::FrameFault::kNone ||
      !request.ParseFromString(frame.payload())) {
    port_.counters().Add("bad_frames.admin");
    reply("");
    return;
  }
  const auto answer = [frame, reply](std::string body, uint32_t exit_code,
                                     upstream::AdminReplyKind kind,
                                     const char* content_type) {
    upstream::AdminReply admin;
    admin.set_kind(kind);
    admin.set_body(std::move(body));
    admin.set_exit_code(exit_code);
    admin.set_content_type(content_type);
    reply(BytesOr(ipc::EncodeAdminReply(frame, admin)));
  };
  const auto text = [answer](std::string body, uint32_t exit_code = 0) {
    answer(std::move(body), exit_code, upstream::ADMIN_REPLY_KIND_TEXT,
           "text/plain");
  };
  const auto json = [answer](std::string body) {
    answer(std::move(body), 0, upstream::ADMIN_REPLY_KIND_JSON,
           "application/json");
  };
  switch (request.verb()) {
    case upstream::ADMIN_VERB_HEALTHZ:
      text("ok\n");
      return;
    case upstream::ADMIN_VERB_READYZ:
      text("ready\n");
      return;
    case upstream::ADMIN_VERB_STATUS:
      if (!request.json()) {
        text("broker_instance: shared\naccepting_hello: true\n");
        return;
      }
      WithFacts([json](const AdminFacts& facts) { json(AdminStatus(facts)); });
      return;
    case upstream::ADMIN_VERB_DUMP:
      WithFacts([this, json](const AdminFacts& facts) {
        json(AdminDump(facts, upstream_dir_));
      });
      return;
    case upstream::ADMIN_VERB_LIST_INSTANCES:
      WithFacts(
          [json](const AdminFacts& facts) { json(AdminInstances(facts)); });
      return;
    case upstream::ADMIN_VERB_BACKEND_HEALTH:
      WithFacts(
          [json, service = request.service_name()](const AdminFacts& facts) {
            json(AdminBackendHealth(facts, service));
          });
      return;
    case upstream::ADMIN_VERB_CONFIG:
      WithFacts([this, json](const AdminFacts& facts) {
        json(AdminConfig(facts, upstream_dir_));
      });
      return;
    case upstream::ADMIN_VERB_DIAGNOSE:
      WithFacts(
          [json, output = request.output_path()](const AdminFacts& facts) {
            json(AdminDiagnose(facts, output));
          });
      return;
    case upstream::ADMIN_VERB_METRICS:
      WithFacts([answer](const AdminFacts& facts) {
        answer(AdminMetrics(facts), 0, upstream::ADMIN_REPLY_KIND_OPENMETRICS,
               "application/openmetrics-text");
      });
      return;
    case upstream::ADMIN_VERB_SHUTDOWN:
      port_.Shutdown(v1::ShutdownRequest(),
                     [text](const v1::ShutdownResponse&) {
                       text("broker shutting down\n");
                     });
      return;
    default:
      text("unsupported admin verb\n", 2);
      return;
  }
}

}  // namespace zcbroker::service
