package zcbroker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"zcbroker.dev/client/go/zcbrokerpb"
)

const (
	negotiationTimeout = 12 * time.Second
	contactTimeout     = 500 * time.Millisecond
	errorDomain        = "zcbroker"
	// The framed lane's HEALTHZ: 0x01, length, Frame{1, REQUEST, 0xAD01, verb 4, id 2}.
	healthz = "\x01\x0c\x00\x00\x00" + "\x08\x01\x18\x81\xda\x02\x22\x02\x08\x04\x28\x02"
)

// Negotiate asks the broker of this user where a backend listens; it is started
// where need be. It takes 12 s at most, or until the deadline of ctx.
//
// Its error is a *BrokerError, with a *RefusedError in its chain where the
// broker said no.
func Negotiate(ctx context.Context, request *zcbrokerpb.NegotiateRequest) (*zcbrokerpb.NegotiateResponse, error) {
	return negotiate(ctx, request, os.LookupEnv)
}

func negotiate(ctx context.Context, request *zcbrokerpb.NegotiateRequest, environment lookup) (*zcbrokerpb.NegotiateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, negotiationTimeout)
	defer cancel()
	dir, err := findRuntimeDir(environment)
	if err != nil {
		return nil, err
	}
	broker := dir.path + "/broker.sock"
	dir.close()
	conn, err := dialBroker(ctx, broker)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	channel, err := channelOver(conn)
	if err != nil {
		return nil, brokerError(BrokerUnreachable, "broker: %w", err)
	}
	defer channel.Close()
	response, err := ask(ctx, channel, request, broker)
	if err != nil {
		return nil, err
	}
	if got := response.GetRoute().GetVersion(); got != request.WantedVersion {
		return nil, brokerError(BrokerWrongReply, "the broker answered version %.80q", got)
	}
	if err := checkEndpoint(response.GetRoute().GetEndpoint()); err != nil {
		return nil, brokerError(BrokerWrongReply, "the broker answered: %w", err)
	}
	return response, nil
}

// dialBroker connects and checks who owns the other end.
func dialBroker(ctx context.Context, broker string) (*net.UnixConn, error) {
	conn, err := dial(ctx, broker, contactTimeout)
	if err != nil {
		reason := BrokerUnreachable
		switch {
		case errors.Is(err, fs.ErrNotExist):
			reason = BrokerMissing
		case errors.Is(err, syscall.ECONNREFUSED):
			reason = BrokerRefused
		case errors.Is(err, context.DeadlineExceeded):
			reason = BrokerMute
		}
		return nil, brokerError(reason, "broker: %w", err)
	}
	if err := checkPeer(conn, 0); err != nil {
		conn.Close()
		return nil, brokerError(BrokerForeign, "%s: %w", broker, err)
	}
	return conn, nil
}

// channelOver makes a channel of this one connection.
func channelOver(conn *net.UnixConn) (*grpc.ClientConn, error) {
	var once sync.Once
	dialer := func(context.Context, string) (net.Conn, error) {
		err := io.ErrClosedPipe
		once.Do(func() { err = nil })
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	return grpc.Dial("passthrough:///localhost", grpc.WithContextDialer(dialer), grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableRetry())
}

// ask tells a broker that waits for a backend, which sends initial metadata at
// once, from a mute one. A gRPC server that is just being built may be late, so
// its health is asked for on the framed lane before it counts as mute.
func ask(ctx context.Context, channel *grpc.ClientConn, request *zcbrokerpb.NegotiateRequest, broker string) (*zcbrokerpb.NegotiateResponse, error) {
	contact := make(chan struct{}, 1)
	type outcome struct {
		response *zcbrokerpb.NegotiateResponse
		err      error
	}
	done := make(chan outcome, 1)
	go func() {
		response, err := call(ctx, channel, request, contact)
		done <- outcome{response, err}
	}()
	timer := time.NewTimer(contactTimeout)
	defer timer.Stop()
	select {
	case <-contact:
	case <-timer.C:
		if isAlive(ctx, broker) {
			break
		}
		select {
		case <-contact:
		default:
			return nil, brokerError(BrokerMute, "the broker at %s gives no sign of life", broker)
		}
	}
	end := <-done
	if end.err != nil {
		return nil, failure(end.err)
	}
	return end.response, nil
}

// call sends to contact, or closes it, at the first sign of life. It is made as a stream of one:
// a unary call tells of initial metadata only together with the answer.
func call(ctx context.Context, channel *grpc.ClientConn, request *zcbrokerpb.NegotiateRequest, contact chan<- struct{}) (*zcbrokerpb.NegotiateResponse, error) {
	defer close(contact)
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{}, zcbrokerpb.Broker_Negotiate_FullMethodName)
	if err != nil {
		return nil, err
	}
	// What goes wrong from here on is what receiving says.
	_ = stream.SendMsg(request)
	_ = stream.CloseSend()
	if _, err := stream.Header(); err == nil {
		contact <- struct{}{}
	}
	response := new(zcbrokerpb.NegotiateResponse)
	if err := stream.RecvMsg(response); err != nil && err != io.EOF {
		return nil, err
	}
	return response, nil
}

func isAlive(ctx context.Context, broker string) bool {
	conn, err := dialBroker(ctx, broker)
	if err != nil {
		return false
	}
	defer conn.Close()
	end := time.Now().Add(contactTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	conn.SetDeadline(end)
	first := make([]byte, 1)
	_, err = io.WriteString(conn, healthz)
	if err == nil {
		_, err = io.ReadFull(conn, first)
	}
	return err == nil && first[0] == 1
}

// failure says what a failed call means, given that the broker was heard from.
func failure(err error) *BrokerError {
	rich := status.Convert(err)
	if refused := refusal(rich); refused != nil {
		return &BrokerError{BrokerRefusal, refused}
	}
	reason := BrokerGarbage
	switch rich.Code() {
	case codes.DeadlineExceeded:
		reason = BrokerSlow
	case codes.Unavailable, codes.Canceled:
		reason = BrokerClosed
	case codes.Unimplemented:
		reason = BrokerWrongReply
	}
	return brokerError(reason, "broker: %w", err)
}

func refusal(rich *status.Status) *RefusedError {
	refused := &RefusedError{Code: rich.Code(), Message: rich.Message(), Detail: new(zcbrokerpb.RefusalDetail)}
	for _, detail := range rich.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refused.Reason, refused.Domain, refused.Metadata = detail.Reason, detail.Domain, detail.Metadata
		case *errdetails.RetryInfo:
			refused.RetryAfter = detail.RetryDelay.AsDuration()
		case *zcbrokerpb.RefusalDetail:
			refused.Detail = detail
		}
	}
	if refused.Domain != errorDomain {
		return nil
	}
	return refused
}
