// This package as tests/conformance asks it: one JSON object from standard
// input, one to standard output.
import { text } from "node:stream/consumers";
import { fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import * as zcbroker from "zcbroker";
import * as v1 from "zcbroker/v1";

const LANES = v1.WireLaneSchema.values;
const laneNames = (numbers) =>
  zcbroker.knownLanes(numbers).map((number) => LANES.find((value) => value.number === number).name);
const bytesOf = (args) => Buffer.from(args.hex, "hex");
const requestOf = (args) => fromJson(v1.NegotiateRequestSchema, args.request);
const fieldsOf = (schema, message) => ({
  ...Object.fromEntries(schema.fields.map((field) => [field.name, message[field.localName]])),
  lanes: laneNames(message.lanes),
});

const operations = {
  async runtime_dir() {
    try {
      return { path: await zcbroker.runtimeDir() };
    } catch (error) {
      if (error instanceof zcbroker.BrokerError) return { error: "no_runtime_dir" };
      throw error;
    }
  },

  named_route: ({ runtime_dir, service, version }) => zcbroker.namedRoute(runtime_dir, service, version),

  decode_route_info(args) {
    try {
      return { route: fieldsOf(v1.RouteInfoSchema, zcbroker.decodeRouteInfo(bytesOf(args))) };
    } catch (error) {
      if (error instanceof zcbroker.RouteInfoError) return { error: "route_info_invalid" };
      throw error;
    }
  },

  encode_request: (args) => ({
    hex: Buffer.from(toBinary(v1.NegotiateRequestSchema, requestOf(args))).toString("hex"),
  }),

  decode_response: (args) => ({
    response: toJson(v1.NegotiateResponseSchema, fromBinary(v1.NegotiateResponseSchema, bytesOf(args))),
  }),

  async negotiate(args) {
    try {
      const { origin, route } = await zcbroker.negotiate(requestOf(args), { timeout: args.deadline_ms });
      const name = v1.RouteOriginSchema.values.find((value) => value.number === origin).name;
      return { origin: name, route: fieldsOf(v1.BackendRouteSchema, route) };
    } catch (error) {
      if (!(error instanceof zcbroker.RefusedError)) throw error;
      const { code, reason, domain, retryAfter, detail } = error;
      return {
        error: { code, reason, domain, retry: retryAfter !== undefined, installed_versions: detail.installedVersions },
      };
    }
  },

  async connect({ direct_endpoint, service, version, deadline_ms }) {
    try {
      const daemon = await zcbroker.connect(direct_endpoint, {
        service, version, connectTimeout: deadline_ms, negotiationTimeout: deadline_ms,
      });
      daemon.socket.destroy();
      const { lane, by = null, fallback, endpoint } = daemon;
      return { lane, by, fallback: fallback?.fallback ?? null, endpoint };
    } catch (error) {
      if (error instanceof zcbroker.NoDaemonError) {
        return { error: { kind: "no_daemon", fallback: error.fallback?.fallback ?? null } };
      }
      if (error instanceof zcbroker.BrokerError) return { error: { kind: "strict", fallback: error.fallback } };
      throw error;
    }
  },
};

const { op, args } = JSON.parse(await text(process.stdin));
const answer = await operations[op](args);
console.log(JSON.stringify(answer, (_, value) => (typeof value === "bigint" ? String(value) : value)));
