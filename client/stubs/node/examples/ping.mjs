// usage: ping.mjs DIRECT_ENDPOINT SERVICE VERSION
import { once } from "node:events";
import { connect } from "zcbroker";

const PING = Buffer.from("080000000f00000000000000", "hex"); // a daemon answers with the same

const [endpoint, service, version] = process.argv.slice(2);
const daemon = await connect(endpoint, { service, version });
daemon.socket.write(PING);
const [pong] = await once(daemon.socket, "data", { signal: AbortSignal.timeout(5000) });
if (!pong.equals(PING)) throw new Error("no pong");
console.log(`pong by ${daemon.lane} at ${daemon.endpoint}`);
daemon.socket.destroy();
