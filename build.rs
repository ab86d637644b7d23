//! Link flags of the shared library, and the OpenSSL it is built for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A host may dlclose while SSL_CTXs and threads still point into the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsesscache.so.0.1");
    // openssl-sys says which libssl it found, as the hexadecimal OPENSSL_VERSION_NUMBER; the top digit is the major. Of
    // LibreSSL and the like it says something else.
    let version = std::env::var("DEP_OPENSSL_VERSION_NUMBER").unwrap_or_default();
    let number = u64::from_str_radix(&version, 16).unwrap_or_default();
    let (major, minor, patch) = (number >> 28, number >> 20 & 0xff, number >> 12 & 0xff);
    if major < 3 {
        let found = if major == 0 { "another libssl".into() } else { format!("OpenSSL {major}.{minor}.{patch}") };
        println!("cargo::error=sesscache needs OpenSSL 3.0 or later with its headers, and the build finds {found}.");
    }
    println!("cargo:rustc-env=SESSCACHE_OPENSSL_MAJOR={major}");
}
