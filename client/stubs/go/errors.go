package zcbroker

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"zcbroker.dev/client/go/zcbrokerpb"
)

// FallbackReason says why the daemon was reached directly although something
// else was asked for. `zcbroker explain` spells them the same way.
type FallbackReason string

const (
	FakeBackendDead   FallbackReason = "fake_backend_dead"  // RUNNING_PROCESS_FAKE_BACKEND does not answer
	BrokerMissing     FallbackReason = "broker_missing"     // no socket, or no runtime directory
	BrokerRefused     FallbackReason = "broker_refused"     // a socket on which nobody listens
	BrokerUnreachable FallbackReason = "broker_unreachable" // it could not be used: permissions
	BrokerForeign     FallbackReason = "broker_foreign"     // the other end is another user
	BrokerMute        FallbackReason = "broker_mute"        // no sign of life
	BrokerSlow        FallbackReason = "broker_slow"        // alive, but no answer in time
	BrokerClosed      FallbackReason = "broker_closed"      // the connection broke before an answer
	BrokerGarbage     FallbackReason = "broker_garbage"     // the answer is not of the protocol
	BrokerWrongReply  FallbackReason = "broker_wrong_reply" // no usable route, or of another version
	BrokerRefusal     FallbackReason = "broker_refusal"     // the broker said no: RefusedError
	LaneUnsupported   FallbackReason = "lane_unsupported"   // the backend speaks none of the caller's wire lanes
	RouteDead         FallbackReason = "route_dead"         // the backend of the route does not accept
	RouteForeign      FallbackReason = "route_foreign"      // it belongs to another user
)

// BrokerError says that the way that was asked for leads to no daemon.
type BrokerError struct {
	Fallback FallbackReason
	Err      error
}

func (e *BrokerError) Error() string { return e.Err.Error() }
func (e *BrokerError) Unwrap() error { return e.Err }

func brokerError(reason FallbackReason, format string, args ...any) *BrokerError {
	return &BrokerError{reason, fmt.Errorf(format, args...)}
}

// RefusedError says that the broker said no. It is in the chain of a BrokerError
// whose Fallback is BrokerRefusal.
type RefusedError struct {
	Code codes.Code
	// Reason is the refusal's name, "SERVICE_UNKNOWN"; docs/protocol.md has
	// them all. Decide by it, never by the message.
	Reason string
	// Domain is "zcbroker".
	Domain  string
	Message string
	// Metadata has service and version as the broker read them, and more where
	// it helps.
	Metadata map[string]string
	// Detail has the facts: installed versions, evidence.
	Detail *zcbrokerpb.RefusalDetail
	// RetryAfter is when trying again can help; 0: it does not.
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string { return "the broker refused: " + e.Message }

// NoDaemonError says that nobody answers at the direct endpoint.
type NoDaemonError struct {
	Endpoint string
	Err      error
	// Fallback says why it had come to that, where something else was asked
	// for; else nil.
	Fallback *BrokerError
}

func (e *NoDaemonError) Error() string {
	if e.Fallback == nil {
		return fmt.Sprintf("connect %s: %v", e.Endpoint, e.Err)
	}
	return fmt.Sprintf("connect %s: %v (after %s: %v)", e.Endpoint, e.Err, e.Fallback.Fallback, e.Fallback)
}

func (e *NoDaemonError) Unwrap() error { return e.Err }
