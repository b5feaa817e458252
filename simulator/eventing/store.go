package eventing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// streamName and subjectPrefix are those of Kyma's Eventing.
	streamName    = "sap"
	subjectPrefix = "kyma"

	// The store keeps the newest events within these bounds.
	maxEvents = 100_000
	maxStore  = 256 << 20
	// dedupe is how long an event with the same source and id is taken for the same event.
	dedupe = 2 * time.Minute
	// storeTimeout bounds each call to JetStream, as the publisher bounds its own.
	storeTimeout = 5 * time.Second
	// startTimeout bounds the recovery of a store at start.
	startTimeout = time.Minute
)

// store is a JetStream server in this process, without a network port, and the one stream in it.
type store struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	remove string // temporary folder
}

func openStore(ctx context.Context, dir string, log *slog.Logger) (_ *store, err error) {
	s := &store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if dir == "" {
		if dir, err = os.MkdirTemp("", "eventing-"); err != nil {
			return nil, fmt.Errorf("creating a folder for events: %w", err)
		}
		s.remove = dir
	}
	s.server, err = server.NewServer(&server.Options{
		ServerName: "eventing", DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: filepath.Clean(dir), JetStreamMaxStore: 2 * maxStore, JetStreamMaxMemory: 64 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("starting JetStream: %w", err)
	}
	if err := s.start(ctx, dir, log); err != nil {
		return nil, err
	}
	if s.conn, err = nats.Connect("", nats.InProcessServer(s.server), nats.NoReconnect()); err != nil {
		return nil, fmt.Errorf("connecting to JetStream: %w", err)
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return nil, fmt.Errorf("connecting to JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.stream, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subjectPrefix + ".>"}, Storage: jetstream.FileStorage,
		// Kyma keeps an event until every subscriber has it; here it is kept to be looked at.
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxMsgs: maxEvents, MaxBytes: maxStore, Duplicates: dedupe,
	})
	if err != nil {
		return nil, fmt.Errorf("creating the stream: %w", err)
	}
	return s, nil
}

// start starts the server and waits until it has recovered what StateDir holds. The server reports a failure only to its
// log.
func (s *store) start(ctx context.Context, dir string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	failed := make(chan string, 1)
	s.server.SetLoggerV2(natsLog{log, failed}, false, false, false)
	s.server.Start()
	for {
		select {
		case reason := <-failed:
			return fmt.Errorf("JetStream did not start on StateDir %s: %s", dir, reason)
		case <-ctx.Done():
			return fmt.Errorf("JetStream did not start on StateDir %s: %w", dir, ctx.Err())
		default:
		}
		if s.server.ReadyForConnections(100*time.Millisecond) && s.server.JetStreamEnabled() {
			return nil
		}
	}
}

// put stores an event under its type, which is the subject, and says its sequence number and whether it was there already.
func (s *store) put(ctx context.Context, e cloudevents.Event, data []byte) (uint64, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: e.Type(), Data: data, Header: nats.Header{
		"Content-Type":   {e.DataContentType()},
		"ce-specversion": {e.SpecVersion()}, "ce-type": {e.Type()}, "ce-source": {e.Source()}, "ce-id": {e.ID()},
		jetstream.MsgIDHeader: {messageID(e)},
	}})
	if err != nil {
		return 0, false, err
	}
	return ack.Sequence, ack.Duplicate, nil
}

// messageID is what JetStream compares to find duplicates. An event is identified by source and id together (CloudEvents
// 1.0, "id"); the hash of both with their lengths cannot be made to collide by odd characters, nor break a header.
func messageID(e cloudevents.Event) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%d:%s", len(e.Source()), e.Source(), len(e.ID()), e.ID()))
	return hex.EncodeToString(sum[:])
}

func (s *store) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := s.js.Stream(ctx, streamName)
	return err
}

func (s *store) close() error {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	if s.remove != "" {
		return os.RemoveAll(s.remove)
	}
	return nil
}

// natsLog passes what the server says on; its notices are of no interest to a user of Eventing.
type natsLog struct {
	log   *slog.Logger
	fatal chan<- string
}

func (l natsLog) Noticef(format string, v ...any) { l.log.Debug("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Debugf(format string, v ...any)  { l.log.Debug("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Tracef(format string, v ...any)  { l.log.Debug("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Warnf(format string, v ...any)   { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Errorf(format string, v ...any)  { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }

// Fatalf keeps the first fatal message for start.
func (l natsLog) Fatalf(format string, v ...any) {
	l.Errorf(format, v...)
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
