// Visits localhost:PORT with Java's JSSE, whose SSLContext keeps the sessions of its clients.
//
// Usage: java Client.java socket|https PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. `socket` is SSLSocket, `https` is
// HttpsURLConnection. Prints what the server answers, and the client's own word.
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    static final int TIMEOUT = 20_000;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        String version = args[2];
        SSLContext context = context(args[4], args.length > 5 ? args[5] : null, args.length > 5 ? args[6] : null);
        for (int i = 0; i < Integer.parseInt(args[3]); i++) {
            // A session made before this moment was resumed. The clock ticks on between two visits.
            Thread.sleep(5);
            long begin = System.currentTimeMillis();
            if (args[0].equals("socket"))
                overSocket(context, port, version, begin);
            else
                overHttps(context, port);
        }
    }

    static void overSocket(SSLContext context, int port, String version, long begin) throws IOException {
        Socket tcp = new Socket();
        tcp.connect(new InetSocketAddress("127.0.0.1", port), TIMEOUT);
        tcp.setSoTimeout(TIMEOUT);
        // Host and port are the key under which a session is found again.
        try (SSLSocket tls = (SSLSocket) context.getSocketFactory().createSocket(tcp, "localhost", port, true)) {
            SSLParameters parameters = tls.getSSLParameters();
            parameters.setProtocols(new String[] {version});
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            tls.setSSLParameters(parameters);
            tls.startHandshake();
            SSLSession session = tls.getSession();
            tls.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
            System.out.println(text(tls.getInputStream()));
            int resumed = session.getCreationTime() < begin ? 1 : 0;
            System.out.println("client " + session.getProtocol() + " resumed " + resumed);
        }
    }

    static void overHttps(SSLContext context, int port) throws IOException {
        URL url = new URL("https://localhost:" + port + "/");
        HttpsURLConnection connection = (HttpsURLConnection) url.openConnection();
        connection.setSSLSocketFactory(context.getSocketFactory());
        connection.setRequestProperty("Connection", "close");
        connection.setConnectTimeout(TIMEOUT);
        connection.setReadTimeout(TIMEOUT);
        System.out.println(text(connection.getInputStream()));
        // With TLS 1.3 the socket otherwise stays open for writing, and a server of one process waits for its end.
        connection.disconnect();
    }

    static String text(InputStream in) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        in.transferTo(bytes);
        return bytes.toString(StandardCharsets.US_ASCII).trim();
    }

    static SSLContext context(String ca, String cert, String key) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        roots.setCertificateEntry("ca", certificate(ca));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);

        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        KeyStore own = KeyStore.getInstance(KeyStore.getDefaultType());
        own.load(null, null);
        if (cert != null)
            own.setKeyEntry("own", privateKey(key), new char[0], new Certificate[] {certificate(cert)});
        keys.init(own, new char[0]);

        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static Certificate certificate(String path) throws Exception {
        try (InputStream in = new FileInputStream(path)) {
            return CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    static PrivateKey privateKey(String path) throws Exception {
        String pem = Files.readString(Path.of(path)).replaceAll("-----[A-Z ]+-----", "");
        byte[] der = Base64.getMimeDecoder().decode(pem);
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
