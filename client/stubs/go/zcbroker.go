// Package zcbroker connects to background daemons, through zcbroker or without.
//
// [Connect] is all that most programs need; [Negotiate] asks the broker alone.
// The messages and services are in package zcbrokerpb.
package zcbroker

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"time"

	"zcbroker.dev/client/go/zcbrokerpb"
)

// Lane says which way a connection took.
type Lane string

const (
	Direct      Lane = "direct"
	FakeBackend Lane = "fake_backend"
	Broker      Lane = "broker"
)

// By says how the broker's way was found.
type By string

const (
	ByRouteInfo   By = "route_info" // the file said where; no broker was asked
	ByNegotiation By = "negotiation"
)

// Options of Connect. Version is required.
type Options struct {
	// Service is "zccache" where it is empty.
	Service string
	// Version is the one the daemon must have; the caller's own.
	Version string
	// Lanes are the wire lanes that the caller speaks, the best first; none:
	// whatever the backend speaks.
	Lanes []zcbrokerpb.WireLane
	// ConnectTimeout is for each connection to a daemon; 30 s where it is 0.
	ConnectTimeout time.Duration
	// NegotiationTimeout is 12 s where it is 0, and at most.
	NegotiationTimeout time.Duration
	StartPolicy        zcbrokerpb.StartPolicy
	// World is read from the environment where it is nil, as zccache and its
	// kind do.
	World *zcbrokerpb.World
	// ClientName and ClientVersion are for people.
	ClientName, ClientVersion string
	// LookupEnv is os.LookupEnv where it is nil.
	LookupEnv func(name string) (string, bool)
}

// Conn is a connection to a daemon, and how it came about.
type Conn struct {
	net.Conn
	Lane     Lane
	Endpoint string
	// By and Route are set on the broker's lane only.
	By    By
	Route *zcbrokerpb.BackendRoute
	// WireLane is what to speak on the broker's lane: the first of the caller's
	// that the backend understands, or the backend's best.
	WireLane zcbrokerpb.WireLane
	// Fallback is set where something else was asked for: why it was not to be
	// had.
	Fallback *BrokerError
}

// Connect connects to the daemon of a service at exactly one version, by the
// first row whose condition holds:
//
//  1. RUNNING_PROCESS_DISABLE is "1": directEndpoint
//  2. RUNNING_PROCESS_FAKE_BACKEND is not empty: there, else direct
//  3. ZCCACHE_BROKER_CONNECT is "1": where the broker says, else direct
//  4. otherwise: directEndpoint
//
// With ZCBROKER_STRICT=1 rows 2 and 3 do not fall back: the error is their
// *BrokerError then, with a *RefusedError in its chain where the broker said no.
// It is a *NoDaemonError where the direct endpoint does not answer, and another
// where it is no path for a socket.
func Connect(ctx context.Context, directEndpoint string, options Options) (*Conn, error) {
	options.fill()
	if err := checkEndpoint(directEndpoint); err != nil {
		return nil, err
	}
	conn, err := options.connectAround(ctx)
	if conn != nil {
		return conn, nil
	}
	var fallback *BrokerError
	if errors.As(err, &fallback) && get(options.LookupEnv, "ZCBROKER_STRICT") == "1" {
		return nil, fallback
	}
	direct, err := dial(ctx, directEndpoint, options.ConnectTimeout)
	if err != nil {
		return nil, &NoDaemonError{directEndpoint, err, fallback}
	}
	return &Conn{Conn: direct, Lane: Direct, Endpoint: directEndpoint, Fallback: fallback}, nil
}

func (o *Options) fill() {
	if o.Service == "" {
		o.Service = "zccache"
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 30 * time.Second
	}
	if o.NegotiationTimeout == 0 {
		o.NegotiationTimeout = negotiationTimeout
	}
	if o.ClientName == "" {
		o.ClientName = "zcbroker-go"
	}
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
}

// connectAround takes rows 1 to 3: neither connection nor error means direct.
func (o *Options) connectAround(ctx context.Context) (*Conn, error) {
	if get(o.LookupEnv, "RUNNING_PROCESS_DISABLE") == "1" {
		return nil, nil
	}
	if fake := get(o.LookupEnv, "RUNNING_PROCESS_FAKE_BACKEND"); fake != "" {
		conn, err := dial(ctx, fake, o.ConnectTimeout)
		if err != nil {
			log.Printf("zcbroker: RUNNING_PROCESS_FAKE_BACKEND: %v; connecting directly", err)
			return nil, brokerError(FakeBackendDead, "RUNNING_PROCESS_FAKE_BACKEND: %w", err)
		}
		return &Conn{Conn: conn, Lane: FakeBackend, Endpoint: fake}, nil
	}
	if get(o.LookupEnv, "ZCCACHE_BROKER_CONNECT") != "1" {
		return nil, nil
	}
	world := o.World
	if world == nil {
		world = worldOf(o.LookupEnv)
	}
	request := &zcbrokerpb.NegotiateRequest{
		Service: o.Service, WantedVersion: o.Version, AcceptedLanes: o.Lanes, ClientName: o.ClientName,
		ClientVersion: o.ClientVersion, StartPolicy: o.StartPolicy, World: world,
	}
	if conn := o.dialNamedRoute(ctx, request); conn != nil {
		return conn, nil
	}
	return o.dialByNegotiation(ctx, request)
}

func (o *Options) dialByNegotiation(ctx context.Context, request *zcbrokerpb.NegotiateRequest) (*Conn, error) {
	limited, cancel := context.WithTimeout(ctx, o.NegotiationTimeout)
	defer cancel()
	response, err := negotiate(limited, request, o.LookupEnv)
	if err != nil {
		return nil, err
	}
	route := response.Route
	lane, ok := commonLane(request.AcceptedLanes, route.Lanes)
	if !ok {
		return nil, brokerError(LaneUnsupported, "%s speaks no wire lane of ours", route.Endpoint)
	}
	conn, err := dial(ctx, route.Endpoint, o.ConnectTimeout)
	if err != nil {
		return nil, brokerError(RouteDead, "the broker's route: %w", err)
	}
	if err := checkPeer(conn, 0); err != nil {
		conn.Close()
		return nil, brokerError(RouteForeign, "%s: %w", route.Endpoint, err)
	}
	return &Conn{Conn: conn, Lane: Broker, Endpoint: route.Endpoint, By: ByNegotiation, Route: route, WireLane: lane}, nil
}

// dialNamedRoute goes by the route info of the broker's own world, or of the
// caller's. Whatever is wrong with it, the broker is asked next.
func (o *Options) dialNamedRoute(ctx context.Context, request *zcbrokerpb.NegotiateRequest) *Conn {
	dir, err := findRuntimeDir(o.LookupEnv)
	if err != nil {
		return nil
	}
	defer dir.close()
	if conn := o.dialInfo(ctx, dir, request); conn != nil {
		return conn
	}
	worlds, err := dir.open("worlds")
	if err != nil {
		return nil
	}
	defer worlds.close()
	world, err := worlds.open(worldID(request.World))
	if err != nil {
		return nil
	}
	defer world.close()
	return o.dialInfo(ctx, world, request)
}

func (o *Options) dialInfo(ctx context.Context, dir *privateDir, request *zcbrokerpb.NegotiateRequest) *Conn {
	info, err := dir.readRouteInfo(request.Service, request.WantedVersion)
	if err != nil || !isOfWorld(info, request.World) {
		return nil
	}
	route := &zcbrokerpb.BackendRoute{
		Endpoint: info.Endpoint, Version: info.Version, Pid: info.Pid, StartTime: info.StartTime, BootId: info.BootId,
		Generation: info.Generation,
	}
	for _, number := range info.Lanes {
		if _, known := zcbrokerpb.WireLane_name[int32(number)]; known {
			route.Lanes = append(route.Lanes, zcbrokerpb.WireLane(number))
		}
	}
	lane, ok := commonLane(request.AcceptedLanes, route.Lanes)
	if !ok {
		return nil
	}
	conn, err := dial(ctx, info.Endpoint, o.ConnectTimeout)
	if err != nil {
		return nil
	}
	// Another process may listen there by now: an info outlives a killed broker.
	if checkPeer(conn, info.Pid) != nil {
		conn.Close()
		return nil
	}
	return &Conn{Conn: conn, Lane: Broker, Endpoint: info.Endpoint, By: ByRouteInfo, Route: route, WireLane: lane}
}

// isOfWorld does not compare what either side leaves empty.
func isOfWorld(info *zcbrokerpb.RouteInfo, world *zcbrokerpb.World) bool {
	same := func(theirs, ours string) bool { return theirs == "" || ours == "" || theirs == ours }
	return same(info.CacheRoot, world.GetCacheRoot()) && same(info.DaemonNamespace, world.GetDaemonNamespace()) &&
		same(info.MountNamespace, world.GetMountNamespace())
}

// commonLane takes a broker that does not tell to lead to any.
func commonLane(ours, theirs []zcbrokerpb.WireLane) (zcbrokerpb.WireLane, bool) {
	switch {
	case len(ours) > 0 && len(theirs) == 0:
		return ours[0], true
	case len(ours) == 0 && len(theirs) > 0:
		return theirs[0], true
	case len(ours) == 0:
		return zcbrokerpb.WireLane_WIRE_LANE_UNSPECIFIED, true
	}
	for _, lane := range ours {
		for _, other := range theirs {
			if lane == other {
				return lane, true
			}
		}
	}
	return zcbrokerpb.WireLane_WIRE_LANE_UNSPECIFIED, false
}
