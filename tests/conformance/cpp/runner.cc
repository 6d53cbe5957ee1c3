// The C++ library as the conformance suite asks it: one JSON object from
// standard input, one to standard output (../README.md).
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/broker_negotiator.h"
#include "client/connect_daemon.h"
#include "client/fallback.h"
#include "client/grpc_negotiator.h"
#include "client/named_route.h"
#include "client/wire_lane_proto.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/endpoint.h"
#include "ipc/environment.h"
#include "ipc/route_info.h"
#include "ipc/runtime_dir.h"
#include "ipc/wire_lane.h"
#include "proto/zcbroker/v1/broker.pb.h"
#include "proto/zcbroker/v1/errors.pb.h"
#include "proto/zcbroker/v1/launcher.pb.h"

namespace zcbroker {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

// --- JSON

Value Text(absl::string_view text) {
  Value value;
  value.set_string_value(std::string(text));
  return value;
}

Value Null() {
  Value value;
  value.set_null_value(google::protobuf::NULL_VALUE);
  return value;
}

Value Flag(bool flag) {
  Value value;
  value.set_bool_value(flag);
  return value;
}

Value Object(Struct object) {
  Value value;
  *value.mutable_struct_value() = std::move(object);
  return value;
}

template <typename Texts>
Value List(const Texts& texts) {
  Value value;
  value.mutable_list_value();
  for (const auto& text : texts) {
    *value.mutable_list_value()->add_values() = Text(text);
  }
  return value;
}

Struct One(const std::string& key, Value value) {
  Struct object;
  (*object.mutable_fields())[key] = std::move(value);
  return object;
}

std::string TextOf(const Struct& object, const std::string& key) {
  const auto found = object.fields().find(key);
  return found == object.fields().end() ? "" : found->second.string_value();
}

absl::Duration DeadlineOf(const Struct& args) {
  return absl::Milliseconds(args.fields().at("deadline_ms").number_value());
}

template <typename Message>
Message MessageOf(const Struct& object) {
  std::string json;
  Message message;
  if (!google::protobuf::util::MessageToJsonString(object, &json).ok() ||
      !google::protobuf::util::JsonStringToMessage(json, &message).ok()) {
    std::cerr << "no such message: " << json << "\n";
    std::exit(1);
  }
  return message;
}

// --- What the library says

Struct RouteOf(const client::BackendRoute& route) {
  Struct object = One("endpoint", Text(route.endpoint.path()));
  auto& fields = *object.mutable_fields();
  fields["version"] = Text(route.version);
  std::vector<std::string> lanes;
  for (const ipc::WireLane lane : route.lanes) {
    lanes.push_back(v1::WireLane_Name(client::WireLaneToProto(lane)));
  }
  fields["lanes"] = List(lanes);
  fields["pid"] = Text(std::to_string(route.pid));
  fields["start_time"] = Text(std::to_string(route.start_time));
  fields["boot_id"] = Text(route.boot_id);
  fields["named_route"] = Text(route.named_route);
  fields["generation"] = Text(std::to_string(route.generation));
  return object;
}

std::string OriginName(client::RouteOrigin origin) {
  return "ROUTE_ORIGIN_" +
         absl::AsciiStrToUpper(client::RouteOriginName(origin));
}

Struct RefusalOf(const absl::Status& status) {
  const v1::RefusalDetail detail =
      client::RefusalDetailOf(status).value_or(v1::RefusalDetail());
  Struct error = One("code", Text(absl::StatusCodeToString(status.code())));
  auto& fields = *error.mutable_fields();
  const absl::optional<std::string> name = client::RefusalNameOf(status);
  fields["reason"] = name.has_value() ? Text(*name) : Null();
  // The library takes no refusal of another domain for one.
  fields["domain"] = name.has_value() ? Text("zcbroker") : Null();
  fields["retry"] = Flag(detail.retry_after_ms() > 0);
  fields["installed_versions"] = List(detail.installed_versions());
  return One("error", Object(std::move(error)));
}

// --- Operations

Struct RuntimeDirectory(const Struct&) {
  const absl::StatusOr<ipc::RuntimeDir> dir =
      ipc::RuntimeDir::Find(ipc::HostRuntimeDirInputs(ipc::HostEnvironment()));
  if (!dir.ok()) return One("error", Text("no_runtime_dir"));
  return One("path", Text(dir->path()));
}

Struct NamedRoute(const Struct& args) {
  ipc::RuntimeDirInputs inputs =
      ipc::HostRuntimeDirInputs(ipc::HostEnvironment());
  const std::string path = TextOf(args, "runtime_dir");
  inputs.xdg_runtime_dir = std::string(absl::StripSuffix(path, "/zcbroker"));
  const absl::StatusOr<ipc::RuntimeDir> dir = ipc::RuntimeDir::Find(inputs);
  const std::string service = TextOf(args, "service");
  const std::string version = TextOf(args, "version");
  const absl::StatusOr<ipc::Endpoint> socket =
      ipc::RouteSocket(dir.value(), service, version);
  Struct result = One("socket", Text(socket.value().path()));
  (*result.mutable_fields())["info"] = Text(
      client::RouteInfoPath(*dir, {service, version, {}, client::World()}));
  return result;
}

Struct DecodeRouteInfo(const Struct& args) {
  const std::vector<ipc::WireLane> all = {
      ipc::WireLane::kBincodeV15, ipc::WireLane::kProstV16,
      ipc::WireLane::kFrameV1, ipc::WireLane::kOpaque};
  v1::RouteInfo info;
  if (!info.ParseFromString(absl::HexStringToBytes(TextOf(args, "hex")))) {
    return One("error", Text("route_info_invalid"));
  }
  const absl::StatusOr<client::UsableRoute> usable = client::UseRouteInfo(
      info, {info.service(), info.version(), all, client::World()});
  if (!usable.ok()) return One("error", Text("route_info_invalid"));
  Struct route = RouteOf(usable->backend);
  auto& fields = *route.mutable_fields();
  fields["pid"] = Text(std::to_string(info.pid()));
  fields["service"] = Text(info.service());
  fields["binary"] = Text(info.binary());
  fields["group"] = Text(std::to_string(info.group()));
  fields["cache_root"] = Text(info.cache_root());
  fields["daemon_namespace"] = Text(info.daemon_namespace());
  fields["mount_namespace"] = Text(info.mount_namespace());
  return One("route", Object(std::move(route)));
}

Struct EncodeRequest(const Struct& args) {
  const auto request = MessageOf<v1::NegotiateRequest>(
      args.fields().at("request").struct_value());
  return One("hex", Text(absl::BytesToHexString(request.SerializeAsString())));
}

Struct DecodeResponse(const Struct& args) {
  v1::NegotiateResponse response;
  std::string json;
  Struct result;
  if (!response.ParseFromString(absl::HexStringToBytes(TextOf(args, "hex"))) ||
      !google::protobuf::util::MessageToJsonString(response, &json).ok() ||
      !google::protobuf::util::JsonStringToMessage(json, &result).ok()) {
    return One("error", Text("response_invalid"));
  }
  return One("response", Object(std::move(result)));
}

Struct Negotiate(const Struct& args) {
  const auto proto = MessageOf<v1::NegotiateRequest>(
      args.fields().at("request").struct_value());
  client::NegotiationRequest request;
  request.service = proto.service();
  request.wanted_version = proto.wanted_version();
  for (const int lane : proto.accepted_lanes()) {
    request.accepted_lanes.push_back(*client::WireLaneFromProto(lane));
  }
  if (proto.start_policy() == v1::START_POLICY_ONLY_IF_RUNNING) {
    request.start_policy = client::StartPolicy::kOnlyIfRunning;
  }
  request.world = {proto.world().cache_root(), proto.world().daemon_namespace(),
                   proto.world().mount_namespace()};
  client::NegotiationBudgets budgets;
  budgets.negotiation = DeadlineOf(args);
  const auto negotiator = client::GrpcBroker(budgets)(ipc::HostEnvironment());
  if (!negotiator.ok()) return RefusalOf(negotiator.status());
  const absl::StatusOr<client::BackendRoute> route =
      (*negotiator)->Negotiate(request);
  if (!route.ok()) return RefusalOf(route.status());
  Struct result = One("origin", Text(OriginName(route->origin)));
  (*result.mutable_fields())["route"] = Object(RouteOf(*route));
  return result;
}

Struct Connect(const Struct& args) {
  client::ConnectOptions options;
  options.service = TextOf(args, "service");
  options.wanted_version = TextOf(args, "version");
  options.connect_timeout = DeadlineOf(args);
  client::NegotiationBudgets budgets;
  budgets.negotiation = DeadlineOf(args);
  options.negotiator = client::GrpcBroker(budgets);
  const absl::StatusOr<client::ConnectedDaemon> daemon =
      client::ConnectDaemonWithRoute(TextOf(args, "direct_endpoint"), options);
  Struct result;
  auto& fields = *result.mutable_fields();
  if (!daemon.ok()) {
    const client::FallbackReason reason =
        client::FallbackReasonOf(daemon.status());
    const bool fell_back = client::FallbackCount(reason) > 0;
    const bool strict =
        ipc::HostEnvironment()("ZCBROKER_STRICT").value_or("") == "1";
    fields["kind"] = Text(fell_back && strict ? "strict" : "no_daemon");
    fields["fallback"] =
        fell_back ? Text(client::FallbackReasonName(reason)) : Null();
    return One("error", Object(std::move(result)));
  }
  const client::ConnectRoute& route = daemon->route;
  fields["lane"] = Text(client::ConnectLaneName(route.lane));
  fields["endpoint"] = Text(route.endpoint);
  fields["by"] = Null();
  if (route.backend != nullptr) {
    fields["by"] = Text(route.backend->origin == client::RouteOrigin::kNamed
                            ? "route_info"
                            : "negotiation");
  }
  fields["fallback"] = route.fallback.has_value()
                           ? Text(client::FallbackReasonName(*route.fallback))
                           : Null();
  return result;
}

Struct Answer(const std::string& op, const Struct& args) {
  if (op == "runtime_dir") return RuntimeDirectory(args);
  if (op == "named_route") return NamedRoute(args);
  if (op == "decode_route_info") return DecodeRouteInfo(args);
  if (op == "encode_request") return EncodeRequest(args);
  if (op == "decode_response") return DecodeResponse(args);
  if (op == "negotiate") return Negotiate(args);
  if (op == "connect") return Connect(args);
  std::cerr << "there is no operation \"" << op << "\"\n";
  std::exit(1);
}

}  // namespace
}  // namespace zcbroker

int main() {
  const std::string question((std::istreambuf_iterator<char>(std::cin)),
                             std::istreambuf_iterator<char>());
  google::protobuf::Struct asked;
  std::string answer;
  if (!google::protobuf::util::JsonStringToMessage(question, &asked).ok()) {
    std::cerr << "the question is no JSON object\n";
    return 1;
  }
  const google::protobuf::Struct result =
      zcbroker::Answer(asked.fields().at("op").string_value(),
                       asked.fields().at("args").struct_value());
  if (!google::protobuf::util::MessageToJsonString(result, &answer).ok()) {
    return 1;
  }
  std::cout << answer << "\n";
  return 0;
}
