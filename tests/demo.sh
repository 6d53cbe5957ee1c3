#!/usr/bin/env bash
# The main job, to watch: a broker, a backend, a route, ten pings, all cleaned
# up afterwards. Called by ./dev demo with the folder of built programs.
set -euo pipefail

BIN=$1
ZCBROKER="$BIN/client/cli/zcbroker"
BACKEND="$BIN/client/backend_sdk/reference/zcb-reference-backend"
ROOT_FLAG=()
[ "$(id -u)" = 0 ] && ROOT_FLAG=(--allow-root)

# A home of its own: nothing of yours is read or left behind.
HOME=$(mktemp -d /tmp/zcb-demo.XXXXXX)
export HOME XDG_RUNTIME_DIR="$HOME/run"
unset XDG_CONFIG_HOME XDG_STATE_HOME ZCCACHE_CACHE_DIR ZCCACHE_ENDPOINT ZCCACHE_BROKER_CONNECT
mkdir -m 700 "$XDG_RUNTIME_DIR"

clean_up() {
  "$ZCBROKER" down --stop-backends >/dev/null 2>&1 || true
  rm -rf "$HOME"
}
trap clean_up EXIT

step() { printf '\n\033[1m%s\033[0m\n' "$1"; }
run() {
  printf '$ zcbroker %s\n' "$*"
  "$ZCBROKER" "$@"
}

step "1. Say which program the service 'demo' is (a small real backend that comes with zcbroker)"
run service add demo --binary "$BACKEND" --version 1.0.0 \
  --arg --endpoint --arg '{endpoint}' --probe zccache-ping \
  --lane frame-v1 --lane prost-v16 --lane bincode-v15

step "2. Start a broker"
run up ${ROOT_FLAG[@]+"${ROOT_FLAG[@]}"}

step "3. Ask it for demo 1.0.0: nothing runs yet, so it starts one"
run route demo 1.0.0

step "4. Ask again: the same one"
run route demo 1.0.0

step "5. Ten pings through the route, each over a connection of its own"
run ping demo 1.0.0 --count 10

step "6. A version nobody has is refused, with a reason and an exit status"
status=0
run route demo 2.0.0 || status=$?
printf '(exit status %s)\n' "$status"

step "7. Stop everything"
run down --stop-backends
