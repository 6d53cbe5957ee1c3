/**
 * Connects to background daemons, through zcbroker or without. `connect` is all
 * that most programs need; `negotiate` asks the broker alone. The messages and
 * services are in "zcbroker/v1".
 */
export { connect, type ConnectOptions, type Connection, knownLanes, negotiate } from "./connect.js";
export { BrokerError, type FallbackReason, NoDaemonError, RefusedError, RouteInfoError } from "./errors.js";
export { decodeRouteInfo, type Environment, type NamedRoute, namedRoute, runtimeDir, type World } from "./places.js";
