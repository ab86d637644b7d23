/*
 * Sessions as a client keeps them, and what a client may do to them: see tls.h.
 */
#include "tls.h"

#define ID_LEN 32

void tls_save(struct saved *saved, const SSL_SESSION *session)
{
    unsigned char *end = saved->der;
    int len = i2d_SSL_SESSION(session, NULL);

    CHECK(len > 0 && (size_t)len <= sizeof saved->der, "the client cannot keep a session of %d bytes", len);
    CHECK(i2d_SSL_SESSION(session, &end) == len, "i2d_SSL_SESSION");
    saved->len = (size_t)len;
}

SSL_SESSION *tls_load(const struct saved *saved)
{
    const unsigned char *der = saved->der;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &der, (long)saved->len);

    CHECK(session != NULL, "the client cannot read the session it kept (%zu bytes)", saved->len);
    return session;
}

void tls_pretend_fresh(struct saved *saved)
{
    SSL_SESSION *session = tls_load(saved);

    CHECK(SSL_SESSION_set_time_ex(session, time(NULL)) != 0, "SSL_SESSION_set_time_ex");
    tls_save(saved, session);
    SSL_SESSION_free(session);
}

void tls_pretend_early(struct saved *saved)
{
    SSL_SESSION *session = tls_load(saved);

    CHECK(SSL_SESSION_set_max_early_data(session, 16384) == 1, "SSL_SESSION_set_max_early_data");
    tls_save(saved, session);
    SSL_SESSION_free(session);
}

/* Where the id of a session lies in its DER form: in TLS 1.3 it travels as the ticket, which no function changes. */
static unsigned char *id_in(struct saved *saved)
{
    SSL_SESSION *session = tls_load(saved);
    const unsigned char *id;
    unsigned char *place;
    size_t len;
    unsigned int id_len;

    if (SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION) {
        SSL_SESSION_get0_ticket(session, &id, &len);
    } else {
        id = SSL_SESSION_get_id(session, &id_len);
        len = id_len;
    }
    CHECK(len == ID_LEN, "the server issued an id of %zu bytes instead of %d", len, ID_LEN);
    place = memmem(saved->der, saved->len, id, len);
    CHECK(place != NULL, "no id in the session of the client");
    SSL_SESSION_free(session);
    return place;
}

void tls_change_id(struct saved *saved)
{
    unsigned char *id = id_in(saved);

    for (int i = 0; i < ID_LEN; i++)
        id[i] = (unsigned char)(id[i] ^ (0x5a + i));
}

void tls_copy_id(struct saved *to, const struct saved *from)
{
    struct saved copy = *from;

    memcpy(id_in(to), id_in(&copy), ID_LEN);
}
