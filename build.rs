//! Link flags of the shared library, and the OpenSSL it is built for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A host may dlclose while SSL_CTXs and threads still point into the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsesscache.so.0.1");
    // openssl-sys says which libssl it found, as the hexadecimal OPENSSL_VERSION_NUMBER; the top digit is the major.
    let version = std::env::var("DEP_OPENSSL_VERSION_NUMBER").expect("openssl-sys names the version of OpenSSL");
    let number = u64::from_str_radix(&version, 16).expect("a hexadecimal version number");
    println!("cargo:rustc-env=SESSCACHE_OPENSSL_MAJOR={}", number >> 28);
}
