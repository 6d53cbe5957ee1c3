import type { RefusalDetail } from "./gen/proto/zcbroker/v1/errors_pb.js";

/**
 * Why the daemon was reached directly although something else was asked for.
 * `zcbroker explain` spells them the same way.
 */
export type FallbackReason =
  | "fake_backend_dead" // RUNNING_PROCESS_FAKE_BACKEND does not answer
  | "broker_missing" // no socket, or no runtime directory
  | "broker_refused" // a socket on which nobody listens
  | "broker_unreachable" // it could not be used: permissions
  | "broker_foreign" // its socket belongs to another user
  | "broker_mute" // no sign of life
  | "broker_slow" // alive, but no answer in time
  | "broker_closed" // the connection broke before an answer
  | "broker_garbage" // the answer is not of the protocol
  | "broker_wrong_reply" // no usable route, or of another version
  | "broker_refusal" // the broker said no: RefusedError
  | "lane_unsupported" // the backend speaks none of the caller's wire lanes
  | "route_dead" // the backend of the route does not accept
  | "route_foreign"; // its socket belongs to another user

/** The way that was asked for leads to no daemon. */
export class BrokerError extends Error {
  constructor(
    readonly fallback: FallbackReason,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The broker said no. */
export class RefusedError extends BrokerError {
  constructor(
    /** The name of the gRPC status code: "NOT_FOUND". */
    readonly code: string,
    /** The refusal's name: "SERVICE_UNKNOWN". docs/protocol.md has them all. */
    readonly reason: string,
    /** "zcbroker". */
    readonly domain: string,
    /** Service and version as the broker read them, and more where it helps. */
    readonly metadata: Readonly<Record<string, string>>,
    /** The facts: installed versions, evidence. */
    readonly detail: RefusalDetail,
    /** Milliseconds after which trying again can help; undefined: it does not. */
    readonly retryAfter: number | undefined,
    message: string,
    options?: ErrorOptions,
  ) {
    super("broker_refusal", `the broker refused: ${message}`, options);
  }
}

/** Nobody answers at the direct endpoint. */
export class NoDaemonError extends Error {
  constructor(
    readonly endpoint: string,
    /** Why it had come to that, where something else was asked for. */
    readonly fallback: BrokerError | undefined,
    options: { cause: Error },
  ) {
    const after = fallback ? ` (after ${fallback.fallback}: ${fallback.message})` : "";
    super(`connect ${endpoint}: ${options.cause.message}${after}`, options);
    this.name = "NoDaemonError";
  }
}

/** The bytes are no route info, or it leads to no endpoint. */
export class RouteInfoError extends Error {
  override readonly name = "RouteInfoError";
}
