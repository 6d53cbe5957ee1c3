// The messages and services of zcbroker.v1, made from the .proto files.
export * from "./gen/proto/zcbroker/v1/admin_pb.js";
export * from "./gen/proto/zcbroker/v1/broker_pb.js";
export * from "./gen/proto/zcbroker/v1/errors_pb.js";
export * from "./gen/proto/zcbroker/v1/launcher_pb.js";
