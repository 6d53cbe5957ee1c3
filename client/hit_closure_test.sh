#!/bin/bash
# What //client:connect_daemon links: no gRPC and no full protobuf message of
# ours, so that a program which reaches its daemon by route info pays for
# neither. $1: the result of a query, a target a line.
if grep -E 'grpc|:(broker|errors|admin|definition)_cc_proto$' "$1"; then
  echo "//client:connect_daemon depends on the above" >&2
  exit 1
fi
# Too few mean that nothing was looked at.
grep -qx '//ipc:route_info' "$1"
