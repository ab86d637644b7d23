// Visits 127.0.0.1:PORT with Go's crypto/tls and a ClientSessionCache.
//
// Usage: client PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. Prints what the server answers, and the client's own word.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

var versions = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

func visit(port, version string, config *tls.Config) error {
	dialer := &net.Dialer{Timeout: 20 * time.Second}
	connection, err := tls.DialWithDialer(dialer, "tcp", "127.0.0.1:"+port, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	// The tickets of TLS 1.3 are taken in while the answer is read.
	answer, err := io.ReadAll(connection)
	if err != nil {
		return err
	}
	state, resumed := connection.ConnectionState(), 0
	if state.DidResume {
		resumed = 1
	}
	if state.Version != versions[version] {
		return fmt.Errorf("not %s but %#x", version, state.Version)
	}
	fmt.Println(strings.TrimSpace(string(answer)))
	fmt.Println("client", version, "resumed", resumed)
	return nil
}

func main() {
	log.SetFlags(0)
	port, version, ca := os.Args[1], os.Args[2], os.Args[4]
	visits, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{
		ServerName:         "localhost",
		RootCAs:            roots,
		MinVersion:         versions[version],
		MaxVersion:         versions[version],
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if len(os.Args) > 5 {
		pair, err := tls.LoadX509KeyPair(os.Args[5], os.Args[6])
		if err != nil {
			log.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	for i := 0; i < visits; i++ {
		if err := visit(port, version, config); err != nil {
			log.Fatal(err)
		}
	}
}
