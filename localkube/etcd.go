package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// walSegment is the size in bytes of a file of etcd's log. Etcd allocates each beforehand: its own 64 MB would be
// written at every start of a test.
const walSegment = 4 << 20

// longestSocketDir is the length in bytes up to which a folder can hold the sockets: the path of a Unix socket ends at
// 104 bytes (macOS; 108 on Linux).
const longestSocketDir = 80

// etcd is a running etcd with one member, reached by a Unix socket.
type etcd struct {
	endpoint string
	sockets  string
	member   *embed.Etcd
}

// startEtcd starts etcd and waits until it has elected itself.
func startEtcd(ctx context.Context, s *state) (_ *etcd, err error) {
	// The sockets need a short path, so they are not in the state directory. Mode 0700 is their access control.
	parent := os.TempDir()
	if len(parent) > longestSocketDir {
		parent = "/tmp"
	}
	sockets, err := os.MkdirTemp(parent, "localkube-")
	if err != nil {
		return nil, err
	}
	client, peer := unixURL(sockets, "client"), unixURL(sockets, "peer")
	wal.SegmentSizeBytes = walSegment
	c := embed.NewConfig()
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.Dir = s.path("etcd")
	c.UnsafeNoFsync = true           // a laptop's power cut may cost the last second: nothing here is worth the waiting
	c.TickMs, c.ElectionMs = 10, 100 // milliseconds; nobody else can be elected
	c.LogLevel, c.LogOutputs = "warn", []string{s.path("etcd.log")}
	member, err := embed.StartEtcd(c)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(sockets))
	}
	e := &etcd{endpoint: client.String(), sockets: sockets, member: member}
	select {
	case <-member.Server.ReadyNotify():
		return e, nil
	case err = <-member.Err():
	case <-member.Server.StopNotify():
		err = errors.New("it stopped by itself")
	case <-ctx.Done():
		err = errors.New("interrupted before it was ready")
	}
	e.stop()
	return nil, err
}

func (e *etcd) stop() {
	e.member.Close()
	_ = os.RemoveAll(e.sockets) // two sockets in a temporary folder
}

func unixURL(dir, name string) url.URL {
	return url.URL{Scheme: "unix", Path: filepath.Join(dir, name)}
}
