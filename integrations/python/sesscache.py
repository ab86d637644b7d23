"""A TLS session cache that all processes of a server share, for the contexts of `ssl` and of pyOpenSSL.

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sesscache.enable(context, "/run/app-tls", "capacity=64MiB ttl=2h")

A session made in one process resumes in every process that enables the same directory, also after a restart. The package calls the
shared library libsesscache, which works on the libssl of the program: a Python or a cryptography package that brings an OpenSSL of
its own inside is refused with a message, and so is everything that is not CPython."""

import ctypes
import functools
import os
import ssl
import subprocess
import sys

__all__ = ["Error", "detach", "enable"]
__version__ = "0.1.0"

# While the major version is 0 every minor version is an ABI of its own.
_ABI = ".".join(__version__.split(".")[:2])


class Error(Exception):
    """Says what is wrong and what to do. `status` is the number in sesscache.h, None when the library could not be asked."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


def enable(context, directory, options=""):
    """Gives a server's context, an ssl.SSLContext or an OpenSSL.SSL.Context, to the cache in a directory, which is made if need be.

    `options` is a string as in sesscache_options(7): "capacity=64MiB ttl=2h". Call it before the first connection, in a parent or in its
    children, while no other thread uses the context. The context keeps the cache until it is freed. On a context that has the
    cache already it does nothing.

    Raises Error when the cache cannot be used; the context is then unchanged, and serves without it. A client's context is a
    ValueError."""
    host, library, ctx = _bound(context)
    if host.SSL_CTX_get_ssl_method(ctx) == host.TLS_client_method():
        raise ValueError("a client's context: the cache is for servers")
    _demand(library, library.sesscache_enable(ctx, _argument(directory), _argument(options)))


def detach(context):
    """Undoes enable(); connections that exist keep the cache. Raises Error for a context that has none."""
    _, library, ctx = _bound(context)
    _demand(library, library.sesscache_detach(ctx))


def _demand(library, status):
    if status != 0:
        raise Error(library.sesscache_errmsg().decode(errors="replace"), status)


def _argument(value):
    value = os.fsencode(value)
    # C would read the beginning of it.
    if b"\0" in value:
        raise ValueError("embedded null byte")
    return value


def _bound(context):
    """The libssl of a context, the library for it, and the address of the context's SSL_CTX."""
    pyopenssl = sys.modules.get("OpenSSL.SSL")
    if isinstance(context, ssl.SSLContext):
        if sys.implementation.name != "cpython":
            raise Error(f"the contexts of ssl are no SSL_CTXs in {sys.implementation.name}: sesscache needs CPython")
        extension = sys.modules["_ssl"]
        host, library = _libraries("ssl", getattr(extension, "__file__", None))
        return host, library, _ctx_of_ssl(context, host)
    if pyopenssl is not None and isinstance(context, pyopenssl.Context):
        from OpenSSL._util import ffi
        # Until version 39 of cryptography, and since.
        extension = sys.modules.get("cryptography.hazmat.bindings._openssl") or sys.modules["cryptography.hazmat.bindings._rust"]
        return *_libraries("pyOpenSSL", extension.__file__), int(ffi.cast("uintptr_t", context._context))
    raise TypeError(f"an ssl.SSLContext or an OpenSSL.SSL.Context is needed, not {type(context).__name__}")


def _ctx_of_ssl(context, host):
    """CPython's struct PySSLContext begins with the object's head, then SSL_CTX *ctx (Modules/_ssl.c of 3.2 to 3.14)."""
    ctx = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    # What options it has tells an SSL_CTX from whatever another CPython might have there.
    if not ctx or (host.SSL_CTX_get_options(ctx) ^ int(context.options)) & 0xFFFFFFFF:
        raise Error(f"where this Python, {sys.version.split()[0]}, keeps the SSL_CTX of a context is not known")
    return ctx


@functools.lru_cache(maxsize=None)
def _libraries(name, extension):
    """The libssl that an extension module calls, and the libsesscache for it."""
    inside = Error(f"{name} has an OpenSSL of its own inside, which no library can reach: use one that is linked with the system's libssl, "
                   "such as the distribution's package")
    if extension is None:
        raise inside
    # Looks in the extension and in what it is linked with, in this order, and loads nothing.
    host = ctypes.CDLL(extension, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    ours = _address(host, "SSL_CTX_new")
    if ours is None:
        raise inside
    host.OpenSSL_version_num.restype = ctypes.c_ulong
    host.SSL_CTX_get_ssl_method.argtypes, host.SSL_CTX_get_ssl_method.restype = [ctypes.c_void_p], ctypes.c_void_p
    host.TLS_client_method.argtypes, host.TLS_client_method.restype = [], ctypes.c_void_p
    host.SSL_CTX_get_options.argtypes, host.SSL_CTX_get_options.restype = [ctypes.c_void_p], ctypes.c_uint64
    major = host.OpenSSL_version_num() >> 28
    if major < 3:
        raise Error(f"{name} is linked with an older libssl than that of OpenSSL 3")
    library = _load(f"libsesscache{f'-ossl{major}' if major > 3 else ''}.so.{_ABI}")
    if _address(library, "SSL_CTX_new") != ours:
        raise Error(f"{name} calls another OpenSSL than the libssl that libsesscache is linked with")
    library.sesscache_enable.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    library.sesscache_detach.argtypes = [ctypes.c_void_p]
    library.sesscache_errmsg.argtypes, library.sesscache_errmsg.restype = [], ctypes.c_char_p
    return host, library


def _address(library, name):
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    except AttributeError:
        return None


def _load(soname):
    """By its soname where the dynamic linker knows it, otherwise from where pkg-config says that it is."""
    try:
        return ctypes.CDLL(soname)
    except OSError as error:
        why = error
    try:
        asked = subprocess.run(["pkg-config", "--variable=libdir", "sesscache"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, check=True)
        return ctypes.CDLL(os.path.join(os.fsdecode(asked.stdout.strip()), soname))
    except (OSError, subprocess.CalledProcessError):
        raise Error(f"the dynamic linker does not find the library, and pkg-config knows no sesscache: {why}") from None
