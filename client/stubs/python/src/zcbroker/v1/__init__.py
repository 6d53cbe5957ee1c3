"""The messages and services of zcbroker.v1, made from the .proto files."""
