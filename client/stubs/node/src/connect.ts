// The one call by which a program reaches its daemon.
import type { Socket } from "node:net";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { BrokerError, NoDaemonError } from "./errors.js";
import {
  type BackendRoute,
  BackendRouteSchema,
  type NegotiateRequest,
  NegotiateRequestSchema,
  type NegotiateResponse,
  StartPolicy,
  WireLane,
} from "./gen/proto/zcbroker/v1/broker_pb.js";
import type { RouteInfo } from "./gen/proto/zcbroker/v1/launcher_pb.js";
import { type Environment, isAlive, readRouteInfo, runtimeDir, type World, worldDir, worldOf } from "./places.js";
import { checkEndpoint, dial, isOurs } from "./sockets.js";

const NEGOTIATION_TIMEOUT = 12_000;

export interface ConnectOptions {
  /** The version the daemon must have; the caller's own. */
  version: string;
  /** Default "zccache". */
  service?: string;
  /** The wire lanes that the caller speaks, the best first; none: whatever the backend speaks. */
  lanes?: WireLane[];
  /** For each connection to a daemon, ms; default 30 s. */
  connectTimeout?: number;
  /** ms; default 12 s. */
  negotiationTimeout?: number;
  startPolicy?: StartPolicy;
  /** Default: from the environment, as zccache and its kind read it. */
  world?: World;
  /** For people. */
  clientName?: string;
  clientVersion?: string;
  /** Default process.env. */
  environment?: Environment;
}

/** A connection to a daemon, and how it came about. */
export interface Connection {
  /** Connected; yours. Listen for its errors. */
  readonly socket: Socket;
  readonly lane: "direct" | "fake_backend" | "broker";
  /** Where it leads. */
  readonly endpoint: string;
  /** Both only on the broker's lane. */
  readonly by?: "route_info" | "negotiation";
  readonly route?: BackendRoute;
  /** What to speak on it: the first of the caller's wire lanes that the backend understands, or the backend's best. */
  readonly wireLane?: WireLane;
  /** Set where something else was asked for: why it was not to be had. */
  readonly fallback?: BrokerError;
}

/**
 * Connects to the daemon of a service at exactly one version, by the first row
 * whose condition holds:
 *
 * 1. RUNNING_PROCESS_DISABLE is "1": `directEndpoint`
 * 2. RUNNING_PROCESS_FAKE_BACKEND is not empty: there, else direct
 * 3. ZCCACHE_BROKER_CONNECT is "1": where the broker says, else direct
 * 4. otherwise: `directEndpoint`
 *
 * With ZCBROKER_STRICT=1 rows 2 and 3 do not fall back but reject with their
 * BrokerError (RefusedError where the broker said no). Else rejects with a
 * NoDaemonError where the direct endpoint does not answer, and with a RangeError
 * where it is no path for a socket.
 */
export async function connect(directEndpoint: string, options: ConnectOptions): Promise<Connection> {
  const environment = options.environment ?? process.env;
  const connectTimeout = options.connectTimeout ?? 30_000;
  checkEndpoint(directEndpoint);
  let fallback: BrokerError | undefined;
  try {
    const connection = await connectAround(options, environment, connectTimeout);
    if (connection) return connection;
  } catch (error) {
    if (!(error instanceof BrokerError) || environment.ZCBROKER_STRICT === "1") throw error;
    fallback = error;
  }
  try {
    return { socket: await dial(directEndpoint, connectTimeout), lane: "direct", endpoint: directEndpoint, fallback };
  } catch (error) {
    throw new NoDaemonError(directEndpoint, fallback, { cause: error as Error });
  }
}

/**
 * Asks the broker of this user where a backend listens; it is started where need
 * be. Rejects with a RefusedError where the broker says no, with a BrokerError
 * for every other failure, within `timeout` ms (default 12 s).
 */
export async function negotiate(
  request: MessageInitShape<typeof NegotiateRequestSchema>,
  { timeout = NEGOTIATION_TIMEOUT, environment = process.env as Environment } = {},
): Promise<NegotiateResponse> {
  const broker = `${await runtimeDir(environment)}/broker.sock`;
  // gRPC takes a tenth of a second to load; on a hit nobody needs it.
  const { ask } = await import("./negotiate.js");
  return ask(broker, create(NegotiateRequestSchema, request), timeout);
}

/** Rows 1 to 3: undefined means direct. */
async function connectAround(
  options: ConnectOptions,
  environment: Environment,
  connectTimeout: number,
): Promise<Connection | undefined> {
  if (environment.RUNNING_PROCESS_DISABLE === "1") return undefined;
  const fake = environment.RUNNING_PROCESS_FAKE_BACKEND;
  if (fake) return dialFakeBackend(fake, connectTimeout);
  if (environment.ZCCACHE_BROKER_CONNECT !== "1") return undefined;
  const world = options.world ?? (await worldOf(environment));
  const request = create(NegotiateRequestSchema, {
    service: options.service ?? "zccache",
    wantedVersion: options.version,
    acceptedLanes: options.lanes ?? [],
    clientName: options.clientName ?? "zcbroker-node",
    clientVersion: options.clientVersion ?? "",
    startPolicy: options.startPolicy ?? StartPolicy.IF_NEEDED,
    world,
  });
  return (
    (await dialNamedRoute(request, world, environment, connectTimeout)) ??
    (await dialByNegotiation(request, options.negotiationTimeout, environment, connectTimeout))
  );
}

async function dialFakeBackend(path: string, timeout: number): Promise<Connection> {
  try {
    return { socket: await dial(path, timeout), lane: "fake_backend", endpoint: path };
  } catch (error) {
    const message = `RUNNING_PROCESS_FAKE_BACKEND: ${(error as Error).message}`;
    process.emitWarning(`${message}; connecting directly`, "ZcbrokerWarning");
    throw new BrokerError("fake_backend_dead", message, { cause: error });
  }
}

async function dialByNegotiation(
  request: NegotiateRequest,
  timeout: number | undefined,
  environment: Environment,
  connectTimeout: number,
): Promise<Connection> {
  const route = (await negotiate(request, { timeout, environment })).route!;
  const { endpoint } = route;
  const wireLane = commonLane(request.acceptedLanes, route.lanes);
  if (wireLane === undefined) {
    throw new BrokerError("lane_unsupported", `${endpoint} speaks no wire lane of ours`);
  }
  let socket: Socket;
  try {
    if (!(await isOurs(endpoint))) throw new BrokerError("route_foreign", `${endpoint} belongs to another user`);
    socket = await dial(endpoint, connectTimeout);
  } catch (error) {
    if (error instanceof BrokerError) throw error;
    throw new BrokerError("route_dead", `the broker's route: ${(error as Error).message}`, { cause: error });
  }
  return { socket, lane: "broker", endpoint, by: "negotiation", route, wireLane };
}

/**
 * By the route info of the broker's own world, or of the caller's. Whatever is
 * wrong with it, the broker is asked next.
 */
async function dialNamedRoute(
  request: NegotiateRequest,
  world: World,
  environment: Environment,
  timeout: number,
): Promise<Connection | undefined> {
  try {
    const own = await runtimeDir(environment);
    return (
      (await dialInfo(own, request, world, timeout).catch(() => undefined)) ??
      (await dialInfo(await worldDir(own, world), request, world, timeout))
    );
  } catch {
    return undefined;
  }
}

async function dialInfo(
  directory: string,
  request: NegotiateRequest,
  world: World,
  timeout: number,
): Promise<Connection | undefined> {
  const info = await readRouteInfo(directory, request.service, request.wantedVersion);
  const route = create(BackendRouteSchema, { ...info, $typeName: undefined, lanes: knownLanes(info.lanes) });
  const wireLane = commonLane(request.acceptedLanes, route.lanes);
  // An info outlives a killed broker, and the backend may be gone by then. Who
  // listens now, Node cannot ask; that the process of the info lives, it can.
  const usable =
    wireLane !== undefined &&
    isOfWorld(info, world) &&
    (info.pid === 0 || (await isAlive(info.pid, info.startTime))) &&
    (await isOurs(info.endpoint));
  if (!usable) return undefined;
  const socket = await dial(info.endpoint, timeout);
  return { socket, lane: "broker", endpoint: info.endpoint, by: "route_info", route, wireLane };
}

/** Lanes of a later version are passed over. */
export function knownLanes(numbers: readonly number[]): WireLane[] {
  return numbers.filter((number) => WireLane[number] !== undefined);
}

/** What either side leaves empty is not compared. */
function isOfWorld(info: RouteInfo, world: World): boolean {
  const same = (theirs: string, ours: string) => !theirs || !ours || theirs === ours;
  return (
    same(info.cacheRoot, world.cacheRoot) &&
    same(info.daemonNamespace, world.daemonNamespace) &&
    same(info.mountNamespace, world.mountNamespace)
  );
}

/** A broker that does not tell is taken to lead to any. */
function commonLane(ours: WireLane[], theirs: WireLane[]): WireLane | undefined {
  if (ours.length === 0 || theirs.length === 0) return [...ours, ...theirs, WireLane.UNSPECIFIED][0];
  return ours.find((lane) => theirs.includes(lane));
}
