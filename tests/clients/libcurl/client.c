/*
 * Visits localhost:PORT with libcurl. Every visit is a connection of a new easy handle; what they have in common is a
 * share object, which is where libcurl keeps the sessions.
 *
 * Usage: client PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. Prints what the server answers, and the client's own word.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int resumed;

/* What `curl -v` prints. */
static int on_debug(CURL *easy, curl_infotype type, char *text, size_t len, void *userdata)
{
    static const char phrase[] = "SSL reusing session", older[] = "SSL re-using session ID";
    (void)easy;
    (void)userdata;
    if (type == CURLINFO_TEXT && ((len >= sizeof phrase - 1 && memcmp(text, phrase, sizeof phrase - 1) == 0)
                                  || (len >= sizeof older - 1 && memcmp(text, older, sizeof older - 1) == 0)))
        resumed = 1;
    return 0;
}

static int visit(CURLSH *share, char **argv, int argc)
{
    char url[64], why[CURL_ERROR_SIZE] = "";
    struct curl_slist *header = curl_slist_append(NULL, "Connection: close");
    CURL *easy = curl_easy_init();
    if (easy == NULL || header == NULL)
        return 1;
    snprintf(url, sizeof url, "https://localhost:%s/", argv[1]);
    long version = strcmp(argv[2], "TLSv1.2") == 0 ? CURL_SSLVERSION_TLSv1_2 | CURL_SSLVERSION_MAX_TLSv1_2
                                                   : CURL_SSLVERSION_TLSv1_3 | CURL_SSLVERSION_MAX_TLSv1_3;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_IPRESOLVE, CURL_IPRESOLVE_V4);
    curl_easy_setopt(easy, CURLOPT_SHARE, share);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, version);
    curl_easy_setopt(easy, CURLOPT_CAINFO, argv[4]);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, header);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, 20L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
    curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
    if (argc > 6) {
        curl_easy_setopt(easy, CURLOPT_SSLCERT, argv[5]);
        curl_easy_setopt(easy, CURLOPT_SSLKEY, argv[6]);
    }
    resumed = 0;
    CURLcode code = curl_easy_perform(easy);            /* the answer goes to stdout */
    if (code == CURLE_OK)
        printf("client %s offered %d\n", argv[2], resumed);
    else
        fprintf(stderr, "%s: %s\n", url, why);
    curl_easy_cleanup(easy);
    curl_slist_free_all(header);
    return code != CURLE_OK;
}

int main(int argc, char **argv)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    CURLSH *share = curl_share_init();
    curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    int failed = 0;
    for (int i = 0; i < atoi(argv[3]) && !failed; i++)
        failed = visit(share, argv, argc);
    curl_share_cleanup(share);
    curl_global_cleanup();
    return failed;
}
