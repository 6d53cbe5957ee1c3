#!/bin/bash
# What test_deb.py has done inside the booted system, as its root: "ok NAME" or
# "FAILED NAME" for each promise of the package, and why, into /test/results.
set -u
exec >/test/results 2>&1
export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

promise() {  # promise NAME COMMAND...
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "ok $name"
  else
    echo "FAILED $name"
    sed 's/^/  /' <<<"$said"
  fi
}

# As the user, with what a login gives.
user() {
  runuser -u dev -- env HOME=/home/dev XDG_RUNTIME_DIR=/run/user/1000 \
    DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus bash -euc "$1"
}

within() {  # within SECONDS COMMAND...: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    read -rt 0.1 <> <(:) || true
  done
}

main_pid() { user 'systemctl --user show -P MainPID zcbroker.service'; }
broker_pid() { user 'zcbroker status --json' | grep -o '"pid":[0-9]*' | head -n 1 | tr -dc 0-9; }
backend_pid() { pgrep -u dev -f '^/opt/zcb-reference-backend'; }

# A broker other than process $1 answers.
another_answers() {
  local now
  now=$(broker_pid)
  [ -n "$now" ] && [ "$now" != "$1" ]
}

booted() { within 60 test -S /run/user/1000/bus; }

installs() {
  dpkg -i "/test/$1"
  for program in zcb zcbroker zcbroker-keeper zcbrokerd; do test -x "/usr/bin/$program"; done
  zcbroker --version
}

starts_nothing_unasked() { ! pgrep -u dev zcbroker; }

takes_over_from_one_started_by_hand() {
  local by_hand
  user 'zcbroker up'
  by_hand=$(broker_pid)
  user 'systemctl --user enable --now zcbroker.service && systemctl --user is-active zcbroker.service zcbroker.socket'
  [ "$(cat "/proc/$(main_pid)/comm")" = zcbroker-keeper ] && another_answers "$by_hand"
}

# A compiler that notes who ran it: the backend, where the launcher went to it.
compiles() {
  user "mkdir -p $1 && cd $1 && printf 'int f(void) { return 42; }\n' >f.c && rm -f /tmp/dev-parents
    zcb /opt/compiler/gcc -c f.c -o f.o && gcc -c f.c -o expected.o && cmp f.o expected.o"
  cat /tmp/dev-parents
  grep -qx zcb-reference-b /tmp/dev-parents
}

backend_outlives_a_restart() {
  local before
  before=$(backend_pid)
  user 'systemctl --user stop zcbroker.service zcbroker.socket'
  [ "$(backend_pid)" = "$before" ] && ! pgrep -u dev zcbroker || return 1
  user 'systemctl --user start zcbroker.service'
  [ "$(backend_pid)" = "$before" ]
  user 'zcbroker route --only-if-running zccache 1.0.0' && [ "$(backend_pid)" = "$before" ]
}

broker_is_started_again() {
  local killed
  killed=$(broker_pid)
  kill -KILL "$killed" && within 10 another_answers "$killed"
}

socket_starts_it() {
  user 'systemctl --user stop zcbroker.service'
  ! pgrep -u dev zcbrokerd || return 1
  user 'zcbroker status' && user 'systemctl --user is-active zcbroker.service'
}

# Each event with its fields, by which it is found.
journal_has_fields() {
  user 'zcbroker route zccache 9.9.9' && return 1
  entries() { journalctl _UID=1000 SYSLOG_IDENTIFIER=zcbrokerd "$@" -o json --no-pager; }
  entries | tail -n 5
  within 10 eval 'entries ZCBROKER_EVENT=BACKEND_READY ZCBROKER_SERVICE=zccache ZCBROKER_VERSION=1.0.0 | grep -q .' &&
    within 10 eval 'entries ZCBROKER_EVENT=REFUSED ZCBROKER_REFUSAL=VERSION_NOT_INSTALLED PRIORITY=4 | grep -q .' &&
    entries | grep -q '"MESSAGE":"zcbrokerd .* serves '
}

upgrades_in_place() {
  local keeper broker backend
  keeper=$(main_pid) broker=$(broker_pid) backend=$(backend_pid)
  dpkg -i "/test/$1" && [ "$(broker_pid)" = "$broker" ] || return 1
  user 'systemctl --user kill --signal=SIGUSR2 --kill-whom=main zcbroker.service'
  within 20 another_answers "$broker" || return 1
  [ "$(main_pid)" = "$keeper" ] && [ "$(backend_pid)" = "$backend" ] && ! grep -q deleted <(readlink "/proc/$keeper/exe")
}

library_installs() { dpkg -i "/test/$1"; }

builds_by_cmake() {
  user 'cp -r /usr/share/doc/libzcbroker-dev/examples ~ && cd ~/examples/where && cmake -B build && cmake --build build'
}

builds_with_pkg_config() {
  user 'cd ~/examples && c++ -std=c++17 where/main.cc $(pkg-config --cflags --libs zcbroker-client) -o where/where'
}

# Started by a path that is none of zccache's: only the broker knows the way.
asks_the_broker() {
  local program
  for program in build/where where; do
    user "cd ~/examples/where && ZCCACHE_BROKER_CONNECT=1 ./$program zccache 1.0.0 /nowhere.sock" |
      grep "^broker /run/user/1000/zcbroker/backends/" || return 1
  done
  user '! ~/examples/where/where zccache 1.0.0 /nowhere.sock'
}

# A daemon of under 30 lines; it links no gRPC.
kit_makes_a_backend() {
  user 'cd ~/examples && c++ -std=c++17 echo_backend.cc $(pkg-config --cflags --libs zcbroker-backend) -o echo
    ! readelf -d echo | grep grpc
    zcbroker service add echo --binary ~/examples/echo --version 1.0.0 --arg "{endpoint}" --probe identity
    zcbroker route echo 1.0.0 && zcbroker drain echo 1.0.0 | grep gone'
}

bash_completes() {
  # shellcheck disable=SC2016
  bash -euc '
    . /usr/share/bash-completion/completions/zcbroker
    COMP_WORDS=(zcbroker service a) COMP_CWORD=2; _zcbroker; [ "${COMPREPLY[*]}" = add ]
    COMP_WORDS=(zcbroker service add --bin) COMP_CWORD=3; _zcbroker; [ "${COMPREPLY[*]}" = --binary ]
    COMPREPLY=() COMP_WORDS=(zcbroker service add --binary /op) COMP_CWORD=4; _zcbroker; [ -z "${COMPREPLY[*]}" ]
    verbs=$(zcbroker --help | sed -n "/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p")
    [ -n "$verbs" ]
    for verb in $verbs; do
      COMP_WORDS=(zcbroker "$verb") COMP_CWORD=1; _zcbroker; [[ " ${COMPREPLY[*]} " == *" $verb "* ]]
    done'
}

zsh_completes() {
  # The functions of its completion work only in a terminal.
  zsh -fec '
    _describe() { print -l -- ${(P)2}; }
    _files() { print files; }
    complete_words() { words=("$@") CURRENT=$#; . /usr/share/zsh/vendor-completions/_zcbroker; }
    complete_words zcbroker service a | grep "^add:"
    complete_words zcbroker service add --bin | grep "^--binary:"
    [[ $(complete_words zcbroker service add --binary /op) == files ]]'
}

fish_completes() {
  fish -c 'complete -C "zcbroker service a"' | grep -P '^add\t' && fish -c 'complete -C "zcbroker ping --co"' | grep -P '^--count\t'
}

removes() {
  user 'systemctl --user disable --now zcbroker.service zcbroker.socket'
  dpkg -r zcbroker
  for program in zcb zcbroker zcbroker-keeper zcbrokerd; do test ! -e "/usr/bin/$program" || return 1; done
  user '! systemctl --user start zcbroker.service'
}

leaves_nothing() {
  dpkg -P zcbroker libzcbroker-dev
  ! find /etc /usr /var -path /var/log -prune -o -name '*zcb*' -print | grep .
}

promise "the system booted, with a manager for the user" booted
test -S /run/user/1000/bus || { journalctl --boot --no-pager | tail -n 40; exit 1; }
promise "installs" installs "$1"
promise "starts nothing unasked" starts_nothing_unasked
user 'zcbroker service add zccache --binary /opt/zcb-reference-backend --version 1.0.0 --arg --endpoint \
  --arg "{endpoint}" --arg --foreground --probe zccache-ping --lane frame-v1'
promise "the user's unit takes over from a broker started by hand" takes_over_from_one_started_by_hand
user 'zcbroker route zccache 1.0.0'
promise "zcb compiles in HOME" compiles /home/dev/project
promise "zcb compiles in /tmp" compiles /tmp/project
promise "a backend outlives the unit" backend_outlives_a_restart
promise "the keeper starts the broker again" broker_is_started_again
promise "whoever connects starts it" socket_starts_it
promise "events are in the journal, with fields" journal_has_fields
promise "upgrades in place" upgrades_in_place "$2"
promise "zcb compiles after the upgrade" compiles /home/dev/after
promise "the library installs" library_installs "$3"
promise "its example builds by CMake" builds_by_cmake
promise "its example builds with pkg-config" builds_with_pkg_config
promise "the example asks the broker" asks_the_broker
promise "the backend kit makes a backend" kit_makes_a_backend
promise "bash completes" bash_completes
promise "zsh completes" zsh_completes
promise "fish completes" fish_completes
promise "removes" removes
promise "purging leaves nothing" leaves_nothing
echo done
