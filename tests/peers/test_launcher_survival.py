"""Builds through the launcher while daemon and broker are killed or stopped:
nothing fails, nothing takes long, and every object is the compiler's."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import unittest

from harness import Home, program, wait_until
from launcher_home import LauncherHome, fallbacks_of, number_field, start_time_of, varint
from test_public_names import Build, hit_daemons

VERSION = "1.11.22"
LIMIT_SECONDS = 4.0
COMMAND_PATH = "client/launcher/zcb"


class LauncherBuild(Build):
    def __init__(self, home, **words):
        super().__init__(home, VERSION, {}, command=[program(COMMAND_PATH)], **words)


class Survival(unittest.TestCase):
    def survives(self, home, events, what):
        build = LauncherBuild(home).run(events)
        self.assertEqual(build.failures, {}, home.broker_log()[-3000:])
        self.assertEqual(build.wrong_objects(), [])
        self.assertLess(max(build.seconds), LIMIT_SECONDS)
        print(f"  {what} in 160 compiles: 0 failed, worst call {max(build.seconds):.2f} s, "
              f"median {sorted(build.seconds)[80] * 1000:.0f} ms")
        return build

    def with_broker(self, events, what):
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.start_kept_broker()
            happenings = events(home)
            self.survives(home, happenings, what)
            # Nearly all went through daemons, or this proves nothing.
            self.assertLessEqual(len(fallbacks_of(home)), 8 * len(happenings))
            self.assertEqual(len(home.daemons()), 1)

    def test_daemon_killed_five_times(self):
        self.with_broker(lambda home: [(n, lambda: hit_daemons(home, signal.SIGKILL)) for n in (20, 45, 70, 95, 120)],
                         "daemon killed 5 times")

    def test_daemon_stopped(self):
        self.with_broker(lambda home: [(60, lambda: hit_daemons(home, signal.SIGSTOP))], "daemon stopped")

    def kill_broker_of(self, home):
        pid = home.kept_broker()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def test_broker_killed(self):
        self.with_broker(lambda home: [(n, lambda: self.kill_broker_of(home)) for n in (20, 60, 100)],
                         "broker killed 3 times")

    def test_daemon_and_broker_killed(self):
        def both(home):
            hit_daemons(home, signal.SIGKILL)
            self.kill_broker_of(home)
        self.with_broker(lambda home: [(n, lambda: both(home)) for n in (20, 60, 100)],
                         "daemon and broker killed 3 times")

    def test_broker_stopped(self):
        """A mute broker costs the first that asks a second, and the others nothing."""
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.start_kept_broker()
            broker = home.kept_broker()
            os.kill(broker, signal.SIGSTOP)
            build = self.survives(home, [], "broker stopped from the start")
            # Where the build took long, the keeper has ended it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(broker, signal.SIGCONT)
            self.assertLessEqual(sum(seconds > 0.9 for seconds in build.seconds), 16)

    def test_everything_killed(self):
        """Keeper, broker and daemon: nobody is left, and compilers are run."""
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.start_kept_broker()

            def all_of_them():
                keeper, broker = home.broker, home.kept_broker()
                keeper.kill()
                if broker is not None:
                    os.kill(broker, signal.SIGKILL)
                hit_daemons(home, signal.SIGKILL)
                keeper.wait(10)
                home.broker = None
            self.survives(home, [(40, all_of_them)], "keeper, broker and daemon killed")

    def test_without_a_broker(self):
        for number in (signal.SIGKILL, signal.SIGSTOP):
            with self.subTest(number=number), LauncherHome(VERSION) as home:
                home.start_daemon()
                self.survives(home, [(40, lambda: home.daemon.send_signal(number))],
                              f"no broker, daemon hit by {number.name}")
                # The stopped one was ended by the launcher: it may, here.
                home.daemon.wait(10)


class Scripted(unittest.TestCase):
    """A daemon that answers what it is told to, over prost v16."""

    def setUp(self):
        self.home = LauncherHome(VERSION, lanes=("prost-v16",))
        self.addCleanup(self.home.__exit__)
        self.home.write("a.c", "int a;\n")
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(self.home.endpoint)
        self.listener.listen()
        # The peer is this very process.
        self.home.write_info(pid=os.getpid(), start_time=start_time_of(os.getpid()), group=os.getpgid(0))
        self.umask = os.umask(0o022)
        self.addCleanup(os.umask, self.umask)

    def answers(self, replies, write_output=False):
        """Compiles while each request gets the next of `replies`: (process, requests)."""
        requests = []

        def serve():
            client, _ = self.listener.accept()
            with client:
                for reply in replies:
                    requests.append(client.recv(1 << 16))
                    if write_output:
                        self.home.write("a.o", "by the daemon")
                    body = varint(16).ljust(4, b"\0") + reply
                    client.sendall(len(body).to_bytes(4, "little") + body)
        thread = threading.Thread(target=serve)
        thread.start()
        done = subprocess.run([self.home.zcb, "gcc", "-c", "a.c", "-o", "a.o"], env=self.home.env, umask=0o022,
                              cwd=self.home.src, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        thread.join()
        return done, requests

    def field(self, number, data=b""):
        return varint(number << 3 | 2) + varint(len(data)) + data

    def output(self):
        with open(os.path.join(self.home.src, "a.o"), "rb") as data:
            return data.read()

    def test_back_pressure_is_honoured(self):
        later = self.field(17, number_field(2, 20))
        done, requests = self.answers([later, later, self.field(7)], write_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(requests), 3)
        self.assertEqual(self.output(), b"by the daemon")

    def test_too_much_of_it_is_for_the_compiler(self):
        done, _ = self.answers([self.field(17, number_field(2, 3_600_000))])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.output()[:4], b"\x7fELF")
        self.assertEqual(self.home.fallbacks(), [17])  # kDaemonBusy

    def test_streams_are_copied(self):
        result = self.field(2, b"out \xff\n") + self.field(3, b"err\n")
        done, _ = self.answers([self.field(7, result)], write_output=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"out \xff\n", b"err\n"))

    def test_whatever_else_is_for_the_compiler(self):
        for reply, reason in ((self.field(10, self.field(1, b"no")), [18]),  # Error: kDaemonRefused
                              (self.field(7), [19]),      # success without an object: kDaemonWrongReply
                              (self.field(1), [19]),      # Pong
                              (self.field(7, number_field(1, (1 << 64) - 1)), []),  # died by a signal
                              (self.field(7, number_field(1, 1)), [])):             # failed
            with self.subTest(reply=reply):
                before = self.home.fallbacks()
                done, _ = self.answers([reply])
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(self.output()[:4], b"\x7fELF")
                self.assertEqual(self.home.fallbacks()[len(before):], reason)
                os.remove(os.path.join(self.home.src, "a.o"))


class Rules(unittest.TestCase):
    """One call at a time, on a daemon that was started by hand."""

    def setUp(self):
        self.home = LauncherHome(VERSION)
        self.addCleanup(self.home.__exit__)
        self.home.start_daemon()
        self.home.write("a.c", "int a;\n")
        self.slow = os.path.join(self.home.src, "slow-gcc")
        self.running = os.path.join(self.home.dir, "running")
        self.go_on = os.path.join(self.home.dir, "go-on")
        os.mkfifo(self.go_on)
        # It tells that it runs, and waits until it may go on.
        self.home.write("slow-gcc", f'#!/bin/sh\ncase "$*" in *a.c*) echo $PPID >>{self.running}; read x <{self.go_on};;\n'
                                    f'esac\nexec /usr/bin/gcc "$@"\n')
        os.chmod(self.slow, 0o755)

    def call(self):
        return subprocess.Popen([self.home.zcb, self.slow, "-c", "a.c", "-o", "a.o"], env=self.home.env,
                                cwd=self.home.src, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def release(self):
        with open(self.go_on, "w", encoding="utf-8") as fifo:
            fifo.write("go\n")

    def callers(self):
        with open(self.running, encoding="utf-8") as log:
            return [int(line) for line in log]

    def test_a_long_compile_is_not_a_wedge(self):
        call = self.call()
        wait_until("the compiler to run", lambda: os.path.exists(self.running))
        # Some rounds of silence and pings.
        with self.assertRaises(subprocess.TimeoutExpired):
            call.wait(4.5)
        self.release()
        self.assertEqual(call.wait(10), 0, call.stderr.read())
        self.assertEqual(self.callers(), [self.home.daemon.pid])
        self.assertEqual(self.home.fallbacks(), [])

    def test_never_two_compilers_for_one_output(self):
        """The daemon dies and its compiler lives: nobody else writes a.o until that one has ended."""
        call = self.call()
        wait_until("the compiler to run", lambda: os.path.exists(self.running))
        self.home.daemon.kill()
        self.home.daemon.wait(10)
        # Longer than the launcher's patience: it says what it waits for.
        with self.assertRaises(subprocess.TimeoutExpired):
            call.wait(6.5)
        self.assertEqual(len(self.callers()), 1)
        self.release()
        wait_until("the second compiler", lambda: len(self.callers()) == 2)
        self.release()
        self.assertEqual(call.wait(10), 0)
        self.assertIn(b"waiting for what it started", call.stderr.read())
        self.assertEqual(self.callers()[1], os.getpid())
        self.assertEqual(self.home.fallbacks()[-1:], [15])  # FallbackReason::kDaemonLost

    def test_a_daemon_of_another_program_is_not_ended(self):
        """Stopped, but not what the route says: the launcher waits for it."""
        self.home.write_info(binary="/bin/true")
        os.kill(self.home.daemon.pid, signal.SIGSTOP)
        call = self.call()
        with self.assertRaises(subprocess.TimeoutExpired):
            call.wait(4.5)
        self.assertIsNone(self.home.daemon.poll())
        os.kill(self.home.daemon.pid, signal.SIGCONT)
        wait_until("the compiler to run", lambda: os.path.exists(self.running))
        self.release()
        self.assertEqual(call.wait(10), 0)
        self.assertEqual(self.callers(), [self.home.daemon.pid])

    def test_a_copy_of_the_program_is_ended(self):
        """zccache runs copies of its daemon."""
        copy = os.path.join(self.home.dir, "copied")
        subprocess.run(["cp", self.home.binary, copy], check=True)
        self.home.write_info(binary=copy)
        os.kill(self.home.daemon.pid, signal.SIGSTOP)
        call = self.call()
        self.assertEqual(self.home.daemon.wait(10), -signal.SIGKILL)
        wait_until("the compiler to run", lambda: os.path.exists(self.running))
        self.release()
        self.assertEqual(call.wait(10), 0)
        self.assertEqual(self.callers(), [os.getpid()])

    def test_what_was_written_a_moment_ago_counts(self):
        """A daemon of 1.11.22 needs some 50 ms to notice that a file was written, and answers with the old object
        until then; a configure script writes its next test sooner than that."""
        command = [self.home.zcb, "gcc", "-MD", "-c", "b.c", "-o", "b.o"]
        for turn in range(20):
            self.home.write("b.h", f"#define HEADER h{turn + 10}\n")
            if turn % 2 == 0:
                self.home.write("b.c", f'#include "b.h"\nint HEADER, s{turn + 10};\n')
            subprocess.run(command, env=self.home.env, cwd=self.home.src, stdin=subprocess.DEVNULL, check=True)
            with open(os.path.join(self.home.src, "b.o"), "rb") as made:
                names = made.read()
            self.assertIn(f"h{turn + 10}".encode(), names)
            self.assertIn(f"s{turn - turn % 2 + 10}".encode(), names)
        self.assertEqual(self.home.fallbacks(), [])

    def test_a_signal_ends_a_waiting_launcher(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if os.path.exists(self.running):
                os.remove(self.running)
            # No hit: the last one's compiler finished after all.
            self.home.write("a.c", f"int a{int(number)};\n")
            call = self.call()
            wait_until("the compiler to run", lambda: os.path.exists(self.running))
            call.send_signal(number)
            self.assertEqual(call.wait(10), -number)
            self.release()
            # The daemon does not know that nobody waits any more.
            made = os.path.join(self.home.src, "a.o")
            wait_until("the daemon's compiler to end", lambda made=made: os.path.exists(made))
            os.remove(made)

    def test_hostile_directories_are_refused_with_their_reason(self):
        os.chmod(self.home.routes, 0o777)
        done = subprocess.run([self.home.zcb, "gcc", "-c", "a.c"], env=self.home.env, cwd=self.home.src,
                              stdin=subprocess.DEVNULL, capture_output=True, check=True)
        self.assertIn(b"must be 0700", done.stderr)
        again = subprocess.run([self.home.zcb, "gcc", "-c", "a.c"], env=self.home.env, cwd=self.home.src,
                               stdin=subprocess.DEVNULL, capture_output=True, check=True)
        self.assertEqual(again.stderr, b"")

    def test_a_link_named_like_a_compiler(self):
        shims = os.path.join(self.home.dir, "shims")
        os.mkdir(shims)
        os.symlink(self.home.zcb, os.path.join(shims, "gcc"))
        # A copy further down must not send it round in circles.
        copies = os.path.join(self.home.dir, "copies")
        os.mkdir(copies)
        subprocess.run(["cp", self.home.zcb, os.path.join(copies, "gcc")], check=True)
        env = {**self.home.env, "PATH": f"{shims}:{copies}:{self.home.env['PATH']}"}
        for command in (["gcc"], [self.home.zcb, "gcc"], [os.path.join(shims, "gcc")],
                        [self.home.zcb, os.path.join(shims, "gcc")]):
            with self.subTest(command=command):
                done = subprocess.run([*command, "-c", "a.c", "-o", "a.o"], env=env, cwd=self.home.src,
                                      capture_output=True, timeout=20, check=False)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
                os.remove(os.path.join(self.home.src, "a.o"))
                version = subprocess.run([*command, "-dumpmachine"], env=env, capture_output=True, timeout=20,
                                         check=True)
                self.assertEqual(version.stdout, subprocess.check_output(["/usr/bin/gcc", "-dumpmachine"]))


if __name__ == "__main__":
    unittest.main()
