#!/usr/bin/env bash
# Makes zcbrokerpb/ from the .proto files of the repository. Called by ./dev.
#
# usage: generate.sh PLUGINS [OUT]
#   PLUGINS  a folder for the two plugins of protoc
#   OUT      where zcbrokerpb/ is made; here, if left out
set -euo pipefail
cd "$(dirname "$0")"
export GOBIN=$1
out=${2:-.}
GOFLAGS=-mod=mod go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.31.0
GOFLAGS=-mod=mod go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.3.0
module=zcbroker.dev/client/go
options=("--go_out=$out" "--go_opt=module=$module" "--go-grpc_out=$out" "--go-grpc_opt=module=$module")
files=()
for name in errors broker admin launcher; do
  file=proto/zcbroker/v1/$name.proto
  files+=("$file")
  options+=("--go_opt=M$file=$module/zcbrokerpb" "--go-grpc_opt=M$file=$module/zcbrokerpb")
done
PATH="$GOBIN:$PATH" protoc -I../../.. "${options[@]}" "${files[@]}"
