/* Opens a store as a server would and says what came of it: the status, a space, the message.
 * Usage:  open_report PATH [OPTIONS]
 * Opening is lazy, so a record is stored, too: a store that cannot be used is found out then at the latest. */
#include <sesscache.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv)
{
    static const unsigned char id[] = "a record of open_report";
    sesscache *cache = NULL;
    sesscache_status status;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: open_report path [options]\n");
        return 2;
    }
    status = sesscache_open(argv[1], argc > 2 ? argv[2] : NULL, &cache);
    if (status == SESSCACHE_OK)
        status = sesscache_put(cache, id, sizeof id - 1, "value", strlen("value"), (int64_t)time(NULL) + 60);
    printf("%d %s\n", (int)status, status == SESSCACHE_OK ? "" : sesscache_errmsg());
    sesscache_close(cache);
    return 0;
}
