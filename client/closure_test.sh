#!/bin/bash
# What a library links: no gRPC and no full protobuf message of ours, so that who
# has no use for them does not pay for them. $1: the result of a query, a target a
# line; $2: one that is in it.
if grep -E 'grpc|:(broker|errors|admin|definition)_cc_proto$' "$1"; then
  echo "it depends on the above" >&2
  exit 1
fi
# Too few mean that nothing was looked at.
grep -qx "$2" "$1"
