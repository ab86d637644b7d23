/* A program that knows nothing of sesscache. Built with libcrypto only, or with -DSERVER and libssl.
 * plain_program [no-config | FILE]: reads no configuration, or this one, or what OPENSSL_CONF says. Says what became of it, and
 * ends when its standard input does. */
#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#ifdef SERVER
#include <openssl/ssl.h>
#endif

static int maps_have(const char *name)
{
    char line[8192];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");

    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        found |= strstr(line, name) != NULL;
    if (maps != NULL)
        fclose(maps);
    return found;
}

int main(int argc, char **argv)
{
    const char *attached = "";
    uint64_t how = argc > 1 ? OPENSSL_INIT_NO_LOAD_CONFIG : OPENSSL_INIT_LOAD_CONFIG;

    if (OPENSSL_init_crypto(how, NULL) != 1)
        return puts("OpenSSL refuses"), 3;
    if (argc > 1 && argv[1][0] == '/' && CONF_modules_load_file(argv[1], NULL, 0) != 1)
        return puts("OpenSSL refuses the file"), 3;
#ifdef SERVER
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;

    if (ssl == NULL)
        return puts("OpenSSL refuses"), 3;
    attached = SSL_CTX_sess_get_get_cb(ctx) != NULL ? " attached" : "";
    SSL_free(ssl);
    SSL_CTX_free(ctx);
#endif
    printf("%s%s%s%s\n", maps_have("/openssl_conf.so") ? "module" : "nothing", maps_have("/libsesscache.so") ? " library" : "",
           maps_have("/libssl.so") ? " libssl" : "", attached);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    return 0;
}
