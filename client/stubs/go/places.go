package zcbroker

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"
	"lukechampine.com/blake3"

	"zcbroker.dev/client/go/zcbrokerpb"
)

const (
	directoryFlags = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	// O_NONBLOCK: a FIFO must not hold us up.
	fileFlags    = syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	atCwd        = -0x64
	maxStemBytes = 40
	maxInfoBytes = 64 * 1024
)

var (
	serviceName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	versionText = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$`)
	unsafe      = regexp.MustCompile(`[^A-Za-z0-9._-]`)
)

// ErrRouteInfoInvalid says that the bytes are no route info, or that it leads to
// no endpoint.
var ErrRouteInfoInvalid = errors.New("no route info")

type lookup = func(name string) (string, bool)

func get(environment lookup, name string) string {
	value, _ := environment(name)
	return value
}

// --- Runtime directory

// privateDir is held open: what was checked is what is used.
type privateDir struct {
	path string
	file *os.File
}

func openPrivate(parent int, name, path string) (*privateDir, error) {
	fd, err := syscall.Openat(parent, name, directoryFlags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir := &privateDir{path, os.NewFile(uintptr(fd), path)}
	info, err := dir.file.Stat()
	if err == nil && (!ownedByUs(info) || info.Mode().Perm() != 0o700) {
		err = fmt.Errorf("%s must belong to you and have mode 0700", path)
	}
	if err != nil {
		dir.close()
		return nil, err
	}
	return dir, nil
}

func ownedByUs(info fs.FileInfo) bool {
	return int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid()
}

func (d *privateDir) close() { d.file.Close() }

func (d *privateDir) open(name string) (*privateDir, error) {
	return openPrivate(int(d.file.Fd()), name, strings.TrimSuffix(d.path, "/")+"/"+name)
}

func findBase(environment lookup) (*privateDir, error) {
	candidates := []string{fmt.Sprintf("/run/user/%d", os.Geteuid())}
	if xdg := get(environment, "XDG_RUNTIME_DIR"); strings.HasPrefix(xdg, "/") {
		if xdg = strings.TrimRight(xdg, "/"); xdg == "" {
			xdg = "/"
		}
		candidates = append([]string{xdg}, candidates...)
	}
	for _, path := range candidates {
		if base, err := openPrivate(atCwd, path, path); err == nil {
			return base, nil
		}
	}
	path := fmt.Sprintf("/tmp/zcbroker-%d", os.Geteuid())
	return openPrivate(atCwd, path, path)
}

func findRuntimeDir(environment lookup) (*privateDir, error) {
	dir, err := func() (*privateDir, error) {
		base, err := findBase(environment)
		if err != nil {
			return nil, err
		}
		defer base.close()
		return base.open("zcbroker")
	}()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, brokerError(BrokerMissing, "no runtime directory: %w", err)
	}
	if err != nil {
		return nil, brokerError(BrokerUnreachable, "no runtime directory: %w", err)
	}
	return dir, nil
}

// RuntimeDir returns the broker's runtime directory, such as
// /run/user/1000/zcbroker. It makes nothing: a *BrokerError where no broker ever
// ran.
func RuntimeDir() (string, error) {
	dir, err := findRuntimeDir(os.LookupEnv)
	if err != nil {
		return "", err
	}
	defer dir.close()
	return dir.path, nil
}

// --- Named routes

// NamedRoute returns the names of one version of a service in a runtime
// directory: the socket that always leads there, for clients that know nothing
// of the broker, and the info that says where the backend itself listens.
func NamedRoute(runtimeDir, service, version string) (socket, info string, err error) {
	if !serviceName.MatchString(service) {
		return "", "", fmt.Errorf("%.80q is no service name: 1 to 64 characters of a-z, 0-9 and '-'", service)
	}
	if len(version) > 64 || !versionText.MatchString(version) {
		return "", "", fmt.Errorf("%.80q is no version: three numbers joined by dots, optionally '-' and a tail", version)
	}
	base := runtimeDir + "/routes/" + service + "/" + stem(version)
	return base + ".sock", base + ".info", nil
}

func stem(version string) string {
	if len(version) <= maxStemBytes {
		return version
	}
	sum := blake3.Sum256([]byte(version))
	return hex.EncodeToString(sum[:8])
}

// DecodeRouteInfo says what an info holds. Its error is ErrRouteInfoInvalid.
func DecodeRouteInfo(content []byte) (*zcbrokerpb.RouteInfo, error) {
	info := new(zcbrokerpb.RouteInfo)
	if err := proto.Unmarshal(content, info); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRouteInfoInvalid, err)
	}
	if err := checkEndpoint(info.Endpoint); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRouteInfoInvalid, err)
	}
	return info, nil
}

func (d *privateDir) readRouteInfo(service, version string) (*zcbrokerpb.RouteInfo, error) {
	_, path, err := NamedRoute(d.path, service, version)
	if err != nil {
		return nil, err
	}
	routes, err := d.open("routes")
	if err != nil {
		return nil, err
	}
	defer routes.close()
	ours, err := routes.open(service)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	content, err := ours.readFile(filepath.Base(path))
	if err != nil {
		return nil, err
	}
	info, err := DecodeRouteInfo(content)
	if err != nil {
		return nil, err
	}
	if info.Service != service || info.Version != version {
		return nil, fmt.Errorf("%w: %s is of %s %s", ErrRouteInfoInvalid, path, info.Service, info.Version)
	}
	return info, nil
}

// readFile reads a small file that is only ours to write.
func (d *privateDir) readFile(leaf string) ([]byte, error) {
	path := d.path + "/" + leaf
	fd, err := syscall.Openat(int(d.file.Fd()), leaf, fileFlags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || !ownedByUs(info) || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s must be a file that only you may write", path)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxInfoBytes+1))
	if err == nil && len(content) > maxInfoBytes {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxInfoBytes)
	}
	return content, err
}

// --- Worlds

func fnv64(text string) uint64 {
	hash := fnv.New64a()
	io.WriteString(hash, text)
	return hash.Sum64()
}

func daemonNamespace(raw string) string {
	trimmed := strings.Trim(raw, " \t\n\v\f\r")
	safe := unsafe.ReplaceAllString(trimmed, "_")
	switch {
	case safe == "":
		return "default"
	case len(safe) <= 32:
		return safe
	}
	hash := fnv64(trimmed)
	return fmt.Sprintf("%s-%08x", safe[:32], uint32(hash^hash>>32))
}

// worldOf says what two callers must have in common to share a daemon, as
// zccache and its kind read it from the environment.
func worldOf(environment lookup) *zcbrokerpb.World {
	root := get(environment, "ZCCACHE_CACHE_DIR")
	if root == "" {
		home := get(environment, "HOME")
		if home == "" {
			home = get(environment, "USERPROFILE")
		}
		root = filepath.Join(home, ".zccache")
	}
	// Without a working directory it stays relative and is nobody's world.
	if absolute, err := filepath.Abs(root); err == nil {
		root = absolute
	}
	mounts, _ := os.Readlink("/proc/self/ns/mnt")
	return &zcbrokerpb.World{
		CacheRoot:       root,
		DaemonNamespace: daemonNamespace(get(environment, "ZCCACHE_DAEMON_NAMESPACE")),
		MountNamespace:  mounts,
	}
}

func worldID(world *zcbrokerpb.World) string {
	return fmt.Sprintf("%016x", fnv64(world.GetCacheRoot()+"\x00"+world.GetDaemonNamespace()))
}
