// Asking the broker, over gRPC.
import { once } from "node:events";
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { BrokerError, type FallbackReason, RefusedError } from "./errors.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "./gen/google/rpc/details_pb.js";
import {
  type NegotiateRequest,
  NegotiateRequestSchema,
  type NegotiateResponse,
  NegotiateResponseSchema,
} from "./gen/proto/zcbroker/v1/broker_pb.js";
import { RefusalDetailSchema } from "./gen/proto/zcbroker/v1/errors_pb.js";
import { checkEndpoint, codeOf, dial, isOurs } from "./sockets.js";

const CONTACT_TIMEOUT = 500;
const DOMAIN = "zcbroker";
// The framed lane's HEALTHZ: 0x01, length, Frame{1, REQUEST, 0xAD01, verb 4, id 2}.
const HEALTHZ = Buffer.from("010c000000" + "08011881da02220208042802", "hex");

const FAILURES: Partial<Record<grpc.status, FallbackReason>> = {
  [grpc.status.DEADLINE_EXCEEDED]: "broker_slow",
  [grpc.status.UNAVAILABLE]: "broker_closed",
  [grpc.status.CANCELLED]: "broker_closed",
  [grpc.status.UNIMPLEMENTED]: "broker_wrong_reply",
};

/** Asks the broker at `broker`, within `timeout` ms. */
export async function ask(broker: string, request: NegotiateRequest, timeout: number): Promise<NegotiateResponse> {
  const end = Date.now() + timeout;
  (await dialBroker(broker, end)).destroy();
  const client = new grpc.Client(`unix:${broker}`, grpc.credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.enable_http_proxy": 0,
    "grpc.enable_retries": 0,
    "grpc.use_local_subchannel_pool": 1,
  });
  try {
    const response = await call(client, broker, request, end);
    if (response.route?.version !== request.wantedVersion) {
      throw new BrokerError("broker_wrong_reply", `the broker answered version "${response.route?.version}"`);
    }
    try {
      checkEndpoint(response.route.endpoint);
    } catch (error) {
      throw new BrokerError("broker_wrong_reply", `the broker answered: ${(error as Error).message}`);
    }
    return response;
  } finally {
    client.close();
  }
}

/** gRPC connects by itself and tells nobody who is there, so this looks. */
async function dialBroker(broker: string, end: number): Promise<Socket> {
  try {
    if (await isOurs(broker)) return await dial(broker, Math.min(CONTACT_TIMEOUT, end - Date.now()));
  } catch (error) {
    const reasons: Record<string, FallbackReason> = {
      ENOENT: "broker_missing",
      ECONNREFUSED: "broker_refused",
      EAGAIN: "broker_mute",
    };
    const reason = reasons[codeOf(error) ?? ""] ?? "broker_unreachable";
    throw new BrokerError(reason, `broker: ${(error as Error).message}`, { cause: error });
  }
  throw new BrokerError("broker_foreign", `${broker} belongs to another user`);
}

/**
 * A broker that waits for a backend sends initial metadata at once. One whose
 * gRPC server is just being built may be late, so its health is asked for on the
 * framed lane before it counts as mute.
 */
async function call(client: grpc.Client, broker: string, request: NegotiateRequest, end: number) {
  let heard = false;
  let pending!: grpc.ClientUnaryCall;
  const answer = new Promise<NegotiateResponse>((resolve, reject) => {
    pending = client.makeUnaryRequest(
      "/zcbroker.v1.Broker/Negotiate",
      (message: NegotiateRequest) => Buffer.from(toBinary(NegotiateRequestSchema, message)),
      (bytes: Buffer) => fromBinary(NegotiateResponseSchema, bytes),
      request,
      new grpc.Metadata(),
      { deadline: end },
      (error, response) => (error ? reject(failure(error)) : resolve(response!)),
    );
  });
  const contact = Promise.race([once(pending, "metadata"), answer.catch(() => undefined)]).then(() => (heard = true));
  const waiting = new AbortController();
  await Promise.race([contact, delay(CONTACT_TIMEOUT, undefined, { signal: waiting.signal }).catch(() => undefined)]);
  waiting.abort();
  if (!heard && !(await isAlive(broker, end)) && !heard) {
    pending.cancel();
    throw new BrokerError("broker_mute", `the broker at ${broker} gives no sign of life`);
  }
  return answer;
}

async function isAlive(broker: string, end: number): Promise<boolean> {
  const left = Math.min(CONTACT_TIMEOUT, end - Date.now());
  let socket: Socket | undefined;
  try {
    socket = await dialBroker(broker, end);
    socket.write(HEALTHZ);
    const [first] = (await once(socket, "data", { signal: AbortSignal.timeout(Math.max(left, 1)) })) as [Buffer];
    return first[0] === 1;
  } catch {
    return false;
  } finally {
    socket?.destroy();
  }
}

/** What a failed call means, given that the broker was heard from. */
function failure(error: grpc.ServiceError): BrokerError {
  const [details] = error.metadata.get("grpc-status-details-bin");
  return (
    (Buffer.isBuffer(details) && refusal(error, details)) ||
    new BrokerError(FAILURES[error.code] ?? "broker_garbage", `broker: ${error.details}`, { cause: error })
  );
}

function refusal(error: grpc.ServiceError, details: Buffer): RefusedError | undefined {
  let info = create(ErrorInfoSchema);
  let detail = create(RefusalDetailSchema);
  let retryAfter: number | undefined;
  for (const any of fromBinary(StatusSchema, details).details) {
    info = anyUnpack(any, ErrorInfoSchema) ?? info;
    detail = anyUnpack(any, RefusalDetailSchema) ?? detail;
    const delay = anyUnpack(any, RetryInfoSchema)?.retryDelay;
    if (delay) retryAfter = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
  }
  if (info.domain !== DOMAIN) return undefined;
  return new RefusedError(
    grpc.status[error.code], info.reason, info.domain, info.metadata, detail, retryAfter, error.details,
    { cause: error },
  );
}
