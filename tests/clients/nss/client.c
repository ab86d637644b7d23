/*
 * Visits localhost:PORT with NSS, the TLS library of Firefox and Thunderbird, which keeps the sessions of its clients.
 *
 * Usage: client PORT TLSv1.2|TLSv1.3 VISITS CA. Prints what the server answers, and the client's own word. With
 * EARLY_DATA=1 in the environment the request goes out as early data.
 */
#include <cert.h>
#include <certdb.h>
#include <nss.h>
#include <prerror.h>
#include <prio.h>
#include <prnetdb.h>
#include <ssl.h>
#include <sslproto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char request[] = "GET / HTTP/1.0\r\n\r\n";
static SSLVersionRange version;
static CERTCertDBHandle *roots;

static void fail(const char *step)
{
    fprintf(stderr, "%s: %s\n", step, PR_ErrorToName(PR_GetError()));
    exit(1);
}

/* Reads the certificate of the CA, in PEM, and trusts it for this process. */
static void trust(const char *path)
{
    char pem[8192];
    FILE *file = fopen(path, "r");
    size_t len = file != NULL ? fread(pem, 1, sizeof pem - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    CERTCertificate *ca = CERT_DecodeCertFromPackage(pem, (int)len);
    CERTCertTrust all = { .sslFlags = CERTDB_TRUSTED_CA | CERTDB_VALID_CA };
    if (ca == NULL || CERT_ImportCerts(roots, certUsageSSLCA, 1, (SECItem *[]){ &ca->derCert }, NULL, PR_FALSE,
                                       PR_FALSE, NULL) != SECSuccess
        || CERT_ChangeCertTrust(roots, ca, &all) != SECSuccess)
        fail(path);
}

/* While it is set, nothing that the server sends is there yet. */
static int deaf;

static PRInt32 hear(PRFileDesc *fd, void *buffer, PRInt32 size, PRIntn flags, PRIntervalTime timeout)
{
    if (!deaf)
        return fd->lower->methods->recv(fd->lower, buffer, size, flags, timeout);
    PR_SetError(PR_WOULD_BLOCK_ERROR, 0);
    return -1;
}

/* A socket below TLS that can be deaf. */
static PRFileDesc *open_tcp(void)
{
    static PRIOMethods methods;
    methods = *PR_GetDefaultIOMethods();
    methods.recv = hear;
    PRFileDesc *tcp = PR_OpenTCPSocket(PR_AF_INET);
    PRFileDesc *layer = PR_CreateIOLayerStub(PR_GetUniqueIdentity("deaf"), &methods);
    if (tcp == NULL || layer == NULL || PR_PushIOLayer(tcp, PR_TOP_IO_LAYER, layer) != PR_SUCCESS)
        fail("socket");
    return tcp;
}

/*
 * Begins the handshake and sends the request as early data. False: there is no ticket, or the server rejects it.
 *
 * PR_Send by itself first reads what the server answers, and when that is the whole handshake nothing goes out early.
 */
static int send_early(PRFileDesc *tls)
{
    static const SSLNamedGroup groups[] = { ssl_grp_ec_curve25519, ssl_grp_ec_secp256r1 };
    SSLPreliminaryChannelInfo hello;
    SSLChannelInfo info;
    PRInt32 sent = 0;
    /*
     * By default NSS 3.110 sends a key share of X25519 and lists X25519MLKEM768, which OpenSSL 3.5 prefers; 3.132
     * sends one of X25519MLKEM768 only, which OpenSSL 3.0 does not know. Either way a HelloRetryRequest comes back,
     * and that rules early data out.
     */
    if (SSL_NamedGroupConfig(tls, groups, 2) != SECSuccess)
        fail("groups");
    deaf = 1;
    if (SSL_ForceHandshake(tls) == SECSuccess || PR_GetError() != PR_WOULD_BLOCK_ERROR
        || SSL_GetPreliminaryChannelInfo(tls, &hello, sizeof hello) != SECSuccess)
        fail("ClientHello");
    if (hello.valuesSet & ssl_preinfo_0rtt_cipher_suite)
        sent = PR_Send(tls, request, sizeof request - 1, 0, PR_SecondsToInterval(20));
    deaf = 0;
    if (SSL_ForceHandshakeWithTimeout(tls, PR_SecondsToInterval(20)) != SECSuccess
        || SSL_GetChannelInfo(tls, &info, sizeof info) != SECSuccess)
        fail("handshake");
    return sent == (PRInt32)sizeof request - 1 && info.earlyDataAccepted;
}

static void visit(PRUint16 port, const char *name)
{
    PRNetAddr address;
    PRFileDesc *tcp = open_tcp(), *tls = SSL_ImportFD(NULL, tcp);
    PR_InitializeNetAddr(PR_IpAddrLoopback, port, &address);
    if (tls == NULL || SSL_OptionSet(tls, SSL_SECURITY, PR_TRUE) != SECSuccess
        || SSL_OptionSet(tls, SSL_HANDSHAKE_AS_CLIENT, PR_TRUE) != SECSuccess
        || SSL_OptionSet(tls, SSL_ENABLE_SESSION_TICKETS, PR_TRUE) != SECSuccess
        || SSL_OptionSet(tls, SSL_ENABLE_0RTT_DATA, getenv("EARLY_DATA") != NULL) != SECSuccess
        || SSL_VersionRangeSet(tls, &version) != SECSuccess || SSL_SetURL(tls, "localhost") != SECSuccess
        || SSL_AuthCertificateHook(tls, SSL_AuthCertificate, roots) != SECSuccess
        || PR_Connect(tls, &address, PR_SecondsToInterval(20)) != PR_SUCCESS)
        fail("connect");
    if (SSL_ResetHandshake(tls, PR_FALSE) != SECSuccess)
        fail("handshake");
    if (!(getenv("EARLY_DATA") != NULL && send_early(tls))
        && PR_Send(tls, request, sizeof request - 1, 0, PR_SecondsToInterval(20)) != (PRInt32)sizeof request - 1)
        fail("send");
    char part[4096];
    PRInt32 n;
    while ((n = PR_Recv(tls, part, sizeof part, 0, PR_SecondsToInterval(20))) > 0)
        printf("%.*s\n", (int)n, part);
    SSLChannelInfo info;
    SSLPreliminaryChannelInfo early;
    if (n < 0 || SSL_GetChannelInfo(tls, &info, sizeof info) != SECSuccess
        || SSL_GetPreliminaryChannelInfo(tls, &early, sizeof early) != SECSuccess)
        fail("receive");
    printf("client %s resumed %d\n", info.protocolVersion == SSL_LIBRARY_VERSION_TLS_1_3 ? "TLSv1.3" : name,
           info.resumed);
    if (getenv("EARLY_DATA") != NULL)
        printf("client early data %s\n", info.earlyDataAccepted ? "accepted" : "none");
    PR_Close(tls);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    version.min = version.max =
        strcmp(argv[2], "TLSv1.2") == 0 ? SSL_LIBRARY_VERSION_TLS_1_2 : SSL_LIBRARY_VERSION_TLS_1_3;
    if (NSS_NoDB_Init(NULL) != SECSuccess || NSS_SetDomesticPolicy() != SECSuccess)
        fail("NSS_NoDB_Init");
    roots = CERT_GetDefaultCertDB();
    trust(argv[4]);
    for (int i = 0; i < atoi(argv[3]); i++)
        visit((PRUint16)atoi(argv[1]), argv[2]);
    SSL_ClearSessionCache();
    return 0;
}
