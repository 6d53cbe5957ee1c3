#!/usr/bin/python3
"""A service whose bytes nobody knows: gives back what it gets, with half-closes.
Argument: its endpoint. `--version` tells one."""

import socket
import sys
import threading


def serve(client):
    with client:
        while True:
            piece = client.recv(1 << 20)
            if not piece:
                return
            client.sendall(piece)


def main():
    if sys.argv[1] == "--version":
        print("echo 1.0.0")
        return
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
