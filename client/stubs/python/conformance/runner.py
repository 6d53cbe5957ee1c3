"""This package as tests/conformance asks it: one JSON object from standard
input, one to standard output."""

import json
import sys

from google.protobuf import json_format

import zcbroker
from zcbroker.v1 import broker_pb2


def runtime_dir(_):
    try:
        return {"path": zcbroker.runtime_dir()}
    except zcbroker.BrokerError:
        return {"error": "no_runtime_dir"}


def named_route(args):
    route = zcbroker.named_route(args["runtime_dir"], args["service"], args["version"])
    return {"socket": route.socket, "info": route.info}


def decode_route_info(args):
    try:
        info = zcbroker.decode_route_info(bytes.fromhex(args["hex"]))
    except zcbroker.RouteInfoInvalid:
        return {"error": "route_info_invalid"}
    route = {field.name: getattr(info, field.name) for field in info.DESCRIPTOR.fields}
    route["lanes"] = lane_names(info.lanes)
    return {"route": route}


def lane_names(numbers):
    return [broker_pb2.WireLane.Name(number) for number in numbers if number in broker_pb2.WireLane.values()]


def encode_request(args):
    return {"hex": request_of(args).SerializeToString(deterministic=True).hex()}


def request_of(args):
    return json_format.ParseDict(args["request"], broker_pb2.NegotiateRequest())


def decode_response(args):
    response = broker_pb2.NegotiateResponse.FromString(bytes.fromhex(args["hex"]))
    return {"response": json_format.MessageToDict(response)}


def negotiate(args):
    try:
        response = zcbroker.negotiate(request_of(args), timeout=args["deadline_ms"] / 1000)
    except zcbroker.Refused as refused:
        return {"error": {"code": refused.code.name, "reason": refused.reason, "domain": refused.domain,
                          "retry": refused.retry_after is not None,
                          "installed_versions": list(refused.detail.installed_versions)}}
    route = {field.name: getattr(response.route, field.name) for field in response.route.DESCRIPTOR.fields}
    route["lanes"] = lane_names(response.route.lanes)
    return {"origin": broker_pb2.RouteOrigin.Name(response.origin), "route": route}


def connect(args):
    seconds = args["deadline_ms"] / 1000
    try:
        daemon = zcbroker.connect(args["direct_endpoint"], service=args["service"], version=args["version"],
                                  connect_timeout=seconds, negotiation_timeout=seconds)
    except zcbroker.BrokerError as error:
        return {"error": {"kind": "strict", "fallback": error.fallback}}
    except zcbroker.NoDaemon as error:
        return {"error": {"kind": "no_daemon", "fallback": error.fallback and error.fallback.fallback}}
    with daemon:
        return {"lane": daemon.lane, "by": daemon.by, "fallback": daemon.fallback, "endpoint": daemon.endpoint}


OPERATIONS = {function.__name__: function for function in (
    runtime_dir, named_route, decode_route_info, encode_request, decode_response, negotiate, connect)}

question = json.load(sys.stdin)
json.dump(OPERATIONS[question["op"]](question["args"]), sys.stdout)
