import * as fs from "node:fs/promises";
import * as net from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const MAX_PATH_BYTES = 107;

/** Throws a RangeError where no socket can be at `path`. */
export function checkEndpoint(path: string): string {
  if (!path.startsWith("/") || path.includes("\0") || Buffer.byteLength(path) > MAX_PATH_BYTES) {
    throw new RangeError(`endpoint "${path.slice(0, 160)}" is no absolute path of at most ${MAX_PATH_BYTES} bytes`);
  }
  return path;
}

/** What went wrong, as the system names it: "ENOENT". */
export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** A connected socket, paused. Waits at most `timeout` ms for room in the other end's queue. */
export async function dial(path: string, timeout: number): Promise<net.Socket> {
  checkEndpoint(path);
  const end = performance.now() + timeout;
  for (;;) {
    try {
      return await dialOnce(path);
    } catch (error) {
      // The queue is full, and connect(2) does not wait on a socket that does not block.
      if (codeOf(error) !== "EAGAIN" || performance.now() >= end) throw error;
      await delay(1);
    }
  }
}

function dialOnce(path: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

/**
 * Does the socket at `path` belong to this user? Node cannot ask a connection
 * who its other end is (SO_PEERCRED); only its owner or root can have put a file
 * there that says so.
 */
export async function isOurs(path: string): Promise<boolean> {
  return (await fs.stat(path)).uid === process.geteuid!();
}
