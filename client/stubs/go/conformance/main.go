// Command conformance is this module as tests/conformance asks it: one JSON
// object from standard input, one to standard output.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	zcbroker "zcbroker.dev/client/go"
	"zcbroker.dev/client/go/zcbrokerpb"
)

type object = map[string]any

type arguments struct {
	RuntimeDir     string          `json:"runtime_dir"`
	Service        string          `json:"service"`
	Version        string          `json:"version"`
	Hex            string          `json:"hex"`
	Request        json.RawMessage `json:"request"`
	DirectEndpoint string          `json:"direct_endpoint"`
	DeadlineMillis int64           `json:"deadline_ms"`
}

func (a arguments) timeout() time.Duration { return time.Duration(a.DeadlineMillis) * time.Millisecond }

func (a arguments) request() *zcbrokerpb.NegotiateRequest {
	request := new(zcbrokerpb.NegotiateRequest)
	must(protojson.Unmarshal(a.Request, request))
	return request
}

func (a arguments) bytes() []byte {
	bytes, err := hex.DecodeString(a.Hex)
	must(err)
	return bytes
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// asObject is a message under the names of its fields.
func asObject(message proto.Message) object {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message)
	must(err)
	var fields object
	must(json.Unmarshal(text, &fields))
	return fields
}

func runtimeDir(arguments) object {
	path, err := zcbroker.RuntimeDir()
	if err != nil {
		return object{"error": "no_runtime_dir"}
	}
	return object{"path": path}
}

func namedRoute(a arguments) object {
	socket, info, err := zcbroker.NamedRoute(a.RuntimeDir, a.Service, a.Version)
	must(err)
	return object{"socket": socket, "info": info}
}

func decodeRouteInfo(a arguments) object {
	info, err := zcbroker.DecodeRouteInfo(a.bytes())
	if errors.Is(err, zcbroker.ErrRouteInfoInvalid) {
		return object{"error": "route_info_invalid"}
	}
	must(err)
	route := asObject(info)
	lanes := []string{}
	for _, number := range info.Lanes {
		if name, known := zcbrokerpb.WireLane_name[int32(number)]; known {
			lanes = append(lanes, name)
		}
	}
	route["lanes"] = lanes
	return object{"route": route}
}

func encodeRequest(a arguments) object {
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(a.request())
	must(err)
	return object{"hex": hex.EncodeToString(bytes)}
}

func decodeResponse(a arguments) object {
	response := new(zcbrokerpb.NegotiateResponse)
	must(proto.Unmarshal(a.bytes(), response))
	text, err := protojson.Marshal(response)
	must(err)
	return object{"response": json.RawMessage(text)}
}

func negotiate(a arguments) object {
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout())
	defer cancel()
	response, err := zcbroker.Negotiate(ctx, a.request())
	var refused *zcbroker.RefusedError
	if errors.As(err, &refused) {
		return object{"error": object{
			"code": code.Code_name[int32(refused.Code)], "reason": refused.Reason, "domain": refused.Domain,
			"retry": refused.RetryAfter > 0, "installed_versions": append([]string{}, refused.Detail.InstalledVersions...),
		}}
	}
	must(err)
	return object{"origin": response.Origin.String(), "route": asObject(response.Route)}
}

func connect(a arguments) object {
	daemon, err := zcbroker.Connect(context.Background(), a.DirectEndpoint, zcbroker.Options{
		Service: a.Service, Version: a.Version, ConnectTimeout: a.timeout(), NegotiationTimeout: a.timeout(),
	})
	var strict *zcbroker.BrokerError
	var noDaemon *zcbroker.NoDaemonError
	switch {
	case errors.As(err, &noDaemon):
		return object{"error": object{"kind": "no_daemon", "fallback": reasonOf(noDaemon.Fallback)}}
	case errors.As(err, &strict):
		return object{"error": object{"kind": "strict", "fallback": reasonOf(strict)}}
	}
	must(err)
	defer daemon.Close()
	result := object{"lane": daemon.Lane, "by": nil, "fallback": reasonOf(daemon.Fallback), "endpoint": daemon.Endpoint}
	if daemon.By != "" {
		result["by"] = daemon.By
	}
	return result
}

func reasonOf(fallback *zcbroker.BrokerError) any {
	if fallback == nil {
		return nil
	}
	return fallback.Fallback
}

func main() {
	var question struct {
		Op   string    `json:"op"`
		Args arguments `json:"args"`
	}
	must(json.NewDecoder(os.Stdin).Decode(&question))
	operations := map[string]func(arguments) object{
		"runtime_dir": runtimeDir, "named_route": namedRoute, "decode_route_info": decodeRouteInfo,
		"encode_request": encodeRequest, "decode_response": decodeResponse, "negotiate": negotiate, "connect": connect,
	}
	operation, known := operations[question.Op]
	if !known {
		log.Fatalf("there is no operation %q", question.Op)
	}
	must(json.NewEncoder(os.Stdout).Encode(operation(question.Args)))
}
