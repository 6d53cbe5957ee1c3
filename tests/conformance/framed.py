"""The framed lane, by which clients of running-process find a broker: what ours
answers, and what upstream's does to the same bytes. Where the two differ,
framed.json says how and why."""

import json
import os
import socket
import subprocess

from google.protobuf import json_format

import homes

HELLO = {"client_min_protocol": 1, "client_max_protocol": 1, "service_name": "legacy", "wanted_version": "3.2.1",
         "client_version": "1.0.0", "request_id": "case"}
FRAME = {"envelope_version": 1, "request_id": 7}
UPSTREAM = "running-process-4.1.0/running-process-broker-v1"
PATIENCE_SECONDS = 20


def request_bytes(case, pb):
    if "raw" in case:
        return bytes.fromhex(case["raw"])
    hello = json_format.ParseDict({**HELLO, **case.get("hello", {})}, pb.upstream.Hello())
    payload = bytes.fromhex(case["payload"]) if "payload" in case else hello.SerializeToString()
    frame = json_format.ParseDict({**FRAME, **case.get("frame", {})}, pb.upstream.Frame(payload=payload))
    body = frame.SerializeToString()
    return b"\1" + len(body).to_bytes(4, "little") + body


def connected(path):
    """A name is there before somebody listens at it."""
    sock = socket.socket(socket.AF_UNIX)

    def connects():
        try:
            sock.connect(path)
            return True
        except ConnectionRefusedError:
            return False

    homes.wait_until(f"somebody to listen at {path}", connects)
    return sock


def answer_to(path, case, pb):
    """What a broker answers, as one flat object."""
    with connected(path) as sock:
        sock.settimeout(case.get("patience_seconds", PATIENCE_SECONDS))
        sock.sendall(request_bytes(case, pb))
        if case.get("half_close"):
            sock.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while chunk := sock.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass  # it had not read everything
        except TimeoutError:
            return {"silent": True}
    if not received:
        return {"closed": True}
    assert received[0] == 1 and int.from_bytes(received[1:5], "little") == len(received) - 5, received
    frame = pb.upstream.Frame.FromString(received[5:])
    reply = pb.upstream.HelloReply.FromString(frame.payload)
    seen = json_format.MessageToDict(frame, preserving_proto_field_name=True)
    seen.update(json_format.MessageToDict(reply, preserving_proto_field_name=True))
    if "refused" in seen:
        seen["refused"]["retry"] = reply.refused.retry_after_ms > 0
    return seen


def upstream_answer(peers, definitions, case, pb):
    """By a broker of its own: some of the bytes are its last."""
    with homes.Home(pb) as home:
        path = home.path("broker.sock")
        process = subprocess.Popen(
            [*homes.DYING_WITH_US, os.path.join(peers, UPSTREAM), "--serve-launch", path, "--service-def-dir",
             definitions],
            env={**home.environment(), "RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED": "1"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            homes.wait_until("upstream's broker", lambda: os.path.exists(path))
            return answer_to(path, case, pb)
        finally:
            process.kill()
            process.wait()
            home.end_processes()


def run(options, pb, differences, say):
    """Whether each case passed, for ours and for upstream's, and a text about it."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "framed.json"), encoding="utf-8") as file:
        cases = [case for case in json.load(file)["cases"]
                 if not options.only or any(text in f"framed/{case['name']}" for text in options.only)]
    results = {"ours": [], "upstream": []}
    if not cases:
        return results, ""
    known = []
    with homes.BrokerHome(pb, options.bin) as home:
        home.start()
        for case in cases:
            filled = home.fill(case)
            differs = case.get("differs")
            # Each with what it may answer.
            expected = {"ours": [filled["expect"]], "upstream": [filled["expect"]]}
            if differs:
                expected["upstream"].insert(0, {**filled["expect"], **differs["upstream"]})
                if not differs.get("or_as_expected"):
                    expected["upstream"].pop()
            seen = {"ours": answer_to(home.socket, filled, pb),
                    "upstream": upstream_answer(options.peers, home.upstream_definitions, filled, pb)}
            for which, cell in results.items():
                found = [differences(answer, seen[which]) for answer in expected[which]]
                cell.append(not all(found))
                if all(found):
                    say(f"FAILED {which} framed/{case['name']}\n  " + "\n  ".join(found[0]))
            if differs:
                known.append(f"  {case['name']}: {differs['why']}")
    lines = [f"framed lane: ours {sum(results['ours'])}/{len(cases)}, upstream {sum(results['upstream'])}/{len(cases)}"]
    if known:
        lines += ["where upstream's broker differs, as expected:", *known]
    return results, "\n".join(lines)
