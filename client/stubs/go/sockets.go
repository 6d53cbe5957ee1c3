package zcbroker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const maxSocketPathBytes = 107

func checkEndpoint(path string) error {
	if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || len(path) > maxSocketPathBytes {
		return fmt.Errorf("endpoint %.160q is no absolute path of at most %d bytes", path, maxSocketPathBytes)
	}
	return nil
}

// dial waits at most timeout for room in the other end's queue.
func dial(ctx context.Context, path string, timeout time.Duration) (*net.UnixConn, error) {
	if err := checkEndpoint(path); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		// The queue is full, and connect(2) does not wait on a socket that
		// does not block.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// peerOf tells who listened when conn was made. The pid is 0 where it is of
// another pid namespace.
func peerOf(conn *net.UnixConn) (*syscall.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *syscall.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return peer, peerErr
}

// checkPeer also checks that the other end is process pid, where both are known.
func checkPeer(conn *net.UnixConn, pid uint32) error {
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("the other end belongs to uid %d, not to %d", peer.Uid, os.Geteuid())
	}
	if pid != 0 && peer.Pid != 0 && uint32(peer.Pid) != pid {
		return fmt.Errorf("the other end is process %d, not process %d", peer.Pid, pid)
	}
	return nil
}
