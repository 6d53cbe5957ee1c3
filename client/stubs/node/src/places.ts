// Where things are: the runtime directory, named routes and their infos, and
// which world the caller lives in. docs/protocol.md has the rules.
import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { blake3 } from "@noble/hashes/blake3";
import { BrokerError, RouteInfoError } from "./errors.js";
import { type RouteInfo, RouteInfoSchema } from "./gen/proto/zcbroker/v1/launcher_pb.js";
import { checkEndpoint, codeOf } from "./sockets.js";

export type Environment = Readonly<Record<string, string | undefined>>;

const MAX_STEM_BYTES = 40;
const MAX_INFO_BYTES = 64 * 1024;
const SERVICE = /^[a-z0-9-]{1,64}$/;
const VERSION = /^[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$/;

// --- Runtime directory

async function checkPrivate(directory: string): Promise<string> {
  const info = await fs.lstat(directory);
  if (!info.isDirectory() || info.uid !== process.geteuid!() || (info.mode & 0o777) !== 0o700) {
    throw new Error(`${directory} must be a directory of yours and of mode 0700`);
  }
  return directory;
}

async function findBase(environment: Environment): Promise<string> {
  const uid = process.geteuid!();
  const xdg = environment.XDG_RUNTIME_DIR ?? "";
  const candidates = [`/run/user/${uid}`];
  if (xdg.startsWith("/")) candidates.unshift(xdg.replace(/\/+$/, "") || "/");
  for (const candidate of candidates) {
    try {
      return await checkPrivate(candidate);
    } catch {
      continue;
    }
  }
  return checkPrivate(`/tmp/zcbroker-${uid}`);
}

/**
 * The broker's runtime directory, such as /run/user/1000/zcbroker. Makes nothing:
 * a BrokerError where no broker ever ran.
 */
export async function runtimeDir(environment: Environment = process.env): Promise<string> {
  try {
    return await checkPrivate(path.join(await findBase(environment), "zcbroker"));
  } catch (error) {
    const reason = codeOf(error) === "ENOENT" ? "broker_missing" : "broker_unreachable";
    throw new BrokerError(reason, `no runtime directory: ${(error as Error).message}`, { cause: error });
  }
}

// --- Named routes

/** The files of one version of a service. */
export interface NamedRoute {
  /** A name that always leads there, for clients that know nothing of the broker. */
  readonly socket: string;
  /** Says where the backend itself listens. */
  readonly info: string;
}

/** Throws a RangeError for what is no service name or no version. */
export function namedRoute(directory: string, service: string, version: string): NamedRoute {
  if (!SERVICE.test(service)) {
    throw new RangeError(`"${service.slice(0, 80)}" is no service name: 1 to 64 characters of a-z, 0-9 and '-'`);
  }
  if (version.length > 64 || !VERSION.test(version)) {
    throw new RangeError(`"${version.slice(0, 80)}" is no version: three numbers joined by dots, optionally '-' and a tail`);
  }
  const base = `${directory}/routes/${service}/${stem(version)}`;
  return { socket: `${base}.sock`, info: `${base}.info` };
}

function stem(version: string): string {
  if (version.length <= MAX_STEM_BYTES) return version;
  return Buffer.from(blake3(version, { dkLen: 8 })).toString("hex");
}

/** What an info holds; throws a RouteInfoError. */
export function decodeRouteInfo(content: Uint8Array): RouteInfo {
  try {
    const info = fromBinary(RouteInfoSchema, content);
    checkEndpoint(info.endpoint);
    return info;
  } catch (error) {
    throw new RouteInfoError(`no route info: ${(error as Error).message}`, { cause: error });
  }
}

export async function readRouteInfo(directory: string, service: string, version: string): Promise<RouteInfo> {
  const file = namedRoute(directory, service, version).info;
  await checkPrivate(`${directory}/routes`);
  await checkPrivate(path.dirname(file));
  const info = decodeRouteInfo(await readOurs(file));
  if (info.service !== service || info.version !== version) {
    throw new RouteInfoError(`${file} is of ${info.service} ${info.version}`);
  }
  return info;
}

/** A small file that is only ours to write. */
async function readOurs(file: string): Promise<Uint8Array> {
  // O_NONBLOCK: a FIFO must not hold us up.
  const handle = await fs.open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const info = await handle.stat();
    if (!info.isFile() || info.uid !== process.geteuid!() || info.mode & 0o022 || info.size > MAX_INFO_BYTES) {
      throw new Error(`${file} must be a file of at most ${MAX_INFO_BYTES} bytes that only you may write`);
    }
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

// --- Worlds

/** What two callers must have in common to share a daemon. */
export interface World {
  readonly cacheRoot: string;
  readonly daemonNamespace: string;
  readonly mountNamespace: string;
}

function fnv64(content: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(content)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

function hex(value: bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function daemonNamespace(raw: string): string {
  const trimmed = raw.replace(/^[ \t\n\v\f\r]+|[ \t\n\v\f\r]+$/g, "");
  const safe = trimmed.replace(/[^A-Za-z0-9._-]/gu, "_");
  if (safe.length <= 32) return safe || "default";
  const hash = fnv64(trimmed);
  return `${safe.slice(0, 32)}-${hex(BigInt.asUintN(32, hash ^ (hash >> 32n)), 8)}`;
}

/** As zccache and its kind read it from the environment. */
export async function worldOf(environment: Environment): Promise<World> {
  const home = environment.HOME || environment.USERPROFILE || ".";
  return {
    cacheRoot: path.resolve(environment.ZCCACHE_CACHE_DIR || path.join(home, ".zccache")),
    daemonNamespace: daemonNamespace(environment.ZCCACHE_DAEMON_NAMESPACE ?? ""),
    mountNamespace: await fs.readlink("/proc/self/ns/mnt"),
  };
}

export function worldId(world: World): string {
  return hex(fnv64(`${world.cacheRoot}\0${world.daemonNamespace}`), 16);
}

/** The directory with the routes for clients of another world than the broker's. */
export async function worldDir(directory: string, world: World): Promise<string> {
  return checkPrivate(`${await checkPrivate(`${directory}/worlds`)}/${worldId(world)}`);
}

/** Does process `pid` still live, as the one that began at `startTime` (clock ticks since boot)? */
export async function isAlive(pid: number, startTime: bigint): Promise<boolean> {
  const stat = await fs.readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
  // Its second field may hold anything, so count from its end: the start is the 22nd.
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] === String(startTime);
}
