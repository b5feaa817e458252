package compass

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

const (
	headerTimeout   = 10 * time.Second
	bodyTimeout     = 60 * time.Second
	shutdownTimeout = 2 * time.Second
)

// Server is a running Compass. All methods are safe for concurrent use.
type Server struct {
	log   *slog.Logger
	clock clock.PassiveClock
	host  string
	state stateDir

	skew, tokenLife, certificateLife atomic.Int64

	changing        sync.Mutex
	inventory       atomic.Pointer[inventory]
	inventorySaver  saver
	identities      *identities
	identitiesSaver saver
	clientCA        *lazyAuthority
	serverCA        atomic.Pointer[authority]
	serverCert      atomic.Pointer[tls.Certificate]
	faults          faultSet
	traffic         *traffic

	tokenURL, mtlsConnectorURL, directorURL, adminURL string

	servers  []*http.Server
	running  sync.WaitGroup
	inFlight sync.RWMutex // read-locked by handlers
	closed   bool
	idleMu   sync.Mutex
	idle     map[net.Conn]struct{}
	cancel   context.CancelFunc
	stop     func() bool
	closing  sync.Once
	closeErr error
}

// Start opens the listeners and returns when they accept connections. Close
// ends the server, and so does the end of ctx.
func Start(ctx context.Context, o Options) (*Server, error) {
	o = o.complete()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("compass: %w", err)
	}
	s := &Server{log: o.Log, clock: o.Clock, host: o.Host, state: stateDir(o.StateDir), identities: newIdentities(o.OnSecret), traffic: newTraffic(),
		idle: map[net.Conn]struct{}{}}
	s.tokenLife.Store(int64(o.TokenValidity))
	s.certificateLife.Store(int64(o.CertificateValidity))
	if err := s.load(o.Seed); err != nil {
		return nil, fmt.Errorf("compass: %w", err)
	}
	if err := s.loadAuthorities(); err != nil {
		return nil, fmt.Errorf("compass: %w", err)
	}
	listeners, err := listenAll(ctx, o)
	if err != nil {
		<-s.clientCA.ready
		return nil, fmt.Errorf("compass: %w", err)
	}
	s.setURLs(listeners)
	s.serve(listeners)
	s.stop = context.AfterFunc(ctx, func() { _ = s.Close() })
	s.log.Info("Compass is played", "tokenURL", s.tokenURL, "directorURL", s.directorURL, "adminURL", s.adminURL)
	return s, nil
}

// load reads the state, or begins with the seed.
func (s *Server) load(seed Seed) error {
	if s.state != "" {
		if err := os.MkdirAll(string(s.state), 0o700); err != nil {
			return err
		}
	}
	var identitiesStored identitiesFile
	if _, err := s.state.readJSON(identitiesFileName, &identitiesStored); err != nil {
		return err
	}
	s.identities.load(identitiesStored)
	var stored inventoryFile
	found, err := s.state.readJSON(inventoryFileName, &stored)
	if err != nil {
		return err
	}
	if found {
		s.inventory.Store(stored.inventory())
	} else {
		seed = seed.withIDs()
		if err := seed.validate(); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
		s.inventory.Store(s.inventoryOf(seed))
		if err := s.saveInventory(); err != nil {
			return err
		}
	}
	return nil
}

// loadAuthorities reads the CAs, or makes them: the Connector's in the
// background.
func (s *Server) loadAuthorities() error {
	clientCA, err := s.state.authority(clientCAFileName)
	if err != nil {
		return err
	}
	serverCA, err := s.state.authority(serverCAFileName)
	if err != nil {
		return err
	}
	if serverCA == nil {
		if serverCA, err = newServerCA(); err != nil {
			return err
		}
		if err := s.state.writeAuthority(serverCAFileName, serverCA); err != nil {
			return err
		}
	}
	if err := s.setServerCA(serverCA); err != nil {
		return err
	}
	now := s.now()
	s.clientCA = startAuthority(func() (*authority, error) {
		if clientCA != nil {
			return clientCA, nil
		}
		made, err := newClientCA(now)
		if err != nil {
			return nil, err
		}
		return made, s.state.writeAuthority(clientCAFileName, made)
	})
	return nil
}

func (s *Server) setServerCA(ca *authority) error {
	cert, err := ca.serverCertificate(s.host)
	if err != nil {
		return err
	}
	s.serverCA.Store(ca)
	s.serverCert.Store(cert)
	return nil
}

// listeners in the order token, mTLS, administrator.
type listeners [3]net.Listener

func listenAll(ctx context.Context, o Options) (listeners, error) {
	var out listeners
	var config net.ListenConfig
	for i, l := range []struct{ name, address string }{
		{"token endpoint", o.TokenAddress}, {"mTLS endpoint", o.MTLSAddress}, {"administrator's listener", o.AdminAddress},
	} {
		listener, err := config.Listen(ctx, "tcp", l.address)
		if err != nil {
			for _, opened := range out[:i] {
				_ = opened.Close()
			}
			return listeners{}, fmt.Errorf("%s: %w", l.name, err)
		}
		out[i] = listener
	}
	return out, nil
}

func (s *Server) setURLs(l listeners) {
	port := func(l net.Listener) string {
		_, port, _ := net.SplitHostPort(l.Addr().String()) // a TCP address always has a port
		return port
	}
	s.tokenURL = "https://" + net.JoinHostPort(s.host, port(l[0])) + "/connector/graphql"
	s.mtlsConnectorURL = "https://" + net.JoinHostPort(s.host, port(l[1])) + "/connector/graphql"
	s.directorURL = "https://" + net.JoinHostPort(s.host, port(l[1])) + "/director/graphql"
	s.adminURL = "http://" + l[2].Addr().String()
}

func (s *Server) serve(l listeners) {
	connector, director := s.newExecutors()
	token, mtls, admin := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
	token.Handle("/connector/graphql", s.handle(endpoint{endpointToken, apiConnector, connector}))
	mtls.Handle("/connector/graphql", s.handle(endpoint{endpointMTLS, apiConnector, connector}))
	mtls.Handle("/director/graphql", s.handle(endpoint{endpointMTLS, apiDirector, director}))
	admin.Handle("/director/graphql", s.handle(endpoint{endpointAdmin, apiDirector, director}))
	s.Admin().routes(admin)

	var base context.Context
	base, s.cancel = context.WithCancel(context.Background())
	handlers := []http.Handler{token, mtls, http.NewCrossOriginProtection().Handler(admin)}
	configs := []*tls.Config{s.tlsConfig(false), s.tlsConfig(true), nil}
	for i, handler := range handlers {
		server := &http.Server{
			Handler: s.counted(handler), TLSConfig: configs[i],
			BaseContext:       func(net.Listener) context.Context { return base },
			ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, IdleTimeout: 2 * time.Minute,
			ConnState: s.noteConnection,
			ErrorLog:  log.New(io.Discard, "", 0), // failed handshakes are what tests are made of
		}
		s.servers = append(s.servers, server)
		s.running.Go(func() {
			var err error
			if server.TLSConfig != nil {
				err = server.ServeTLS(l[i], "", "")
			} else {
				err = server.Serve(l[i])
			}
			if !errors.Is(err, http.ErrServerClosed) {
				s.log.Error("listener ended", "address", l[i].Addr().String(), "error", err)
			}
		})
	}
}

// counted lets Close wait for handlers.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.inFlight.RLock()
		defer s.inFlight.RUnlock()
		if s.closed {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

// tlsConfig is made anew for each handshake, so that a change of CAs is live
// with the next connection. There is no session resumption: it would keep
// certificates from being looked at.
func (s *Server) tlsConfig(mutual bool) *tls.Config {
	build := func() (*tls.Config, error) {
		config := &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			Certificates: []tls.Certificate{*s.serverCert.Load()}, SessionTicketsDisabled: true, Time: s.now,
		}
		if !mutual {
			return config, nil
		}
		ca, err := s.clientCA.get()
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
		return config, nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return build() },
		// http.Server wants to see a certificate; it is never used.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.serverCert.Load(), nil },
	}
}

// noteConnection remembers which connections are idle.
func (s *Server) noteConnection(c net.Conn, state http.ConnState) {
	s.idleMu.Lock()
	defer s.idleMu.Unlock()
	if state == http.StateIdle {
		s.idle[c] = struct{}{}
	} else {
		delete(s.idle, c)
	}
}

// dropIdleConnections makes clients shake hands again.
func (s *Server) dropIdleConnections() {
	s.idleMu.Lock()
	defer s.idleMu.Unlock()
	for c := range s.idle {
		_ = c.Close() // it may be closed already
	}
}

// Close ends all listeners, connections and handlers, and returns when they
// are gone.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.cancel()
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		var errs []error
		for _, server := range s.servers {
			if server.Shutdown(ctx) != nil {
				errs = append(errs, server.Close())
			}
		}
		s.running.Wait()
		s.inFlight.Lock()
		s.closed = true
		s.inFlight.Unlock()
		<-s.clientCA.ready
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// TokenURL is the Connector behind one-time tokens: what an administrator
// hands out together with a token.
func (s *Server) TokenURL() string { return s.tokenURL }

// MTLSConnectorURL is the Connector behind client certificates.
func (s *Server) MTLSConnectorURL() string { return s.mtlsConnectorURL }

// DirectorURL is the Director behind client certificates.
func (s *Server) DirectorURL() string { return s.directorURL }

// AdminURL is the base of the administrator's listener, without a path.
func (s *Server) AdminURL() string { return s.adminURL }

// ServerCA is the CA of the servers' certificates, in PEM. It is not the CA
// that signs client certificates.
func (s *Server) ServerCA() []byte { return s.serverCA.Load().certPEM() }

// Admin is the administrator's side.
func (s *Server) Admin() *Admin { return &Admin{s} }
