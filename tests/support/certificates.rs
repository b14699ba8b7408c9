//! An authority of a test's own, and a certificate by it for this machine and for a name that only a proxy can know.

use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

fn name(common: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", common).unwrap();
    name.build()
}

fn begin(subject: &X509Name, issuer: &X509Name, key: &PKey<Private>) -> X509Builder {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_issuer_name(issuer).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder
}

/// Writes `ca.pem`, `server.pem` and `server.key`.
pub fn write(directory: &Path) {
    let new_key = || PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let (ca_key, key) = (new_key(), new_key());
    let (ca_name, server_name) = (name("authority of the tests"), name("localhost"));
    let mut ca = begin(&ca_name, &ca_name, &ca_key);
    ca.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    ca.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap()).unwrap();
    ca.sign(&ca_key, MessageDigest::sha256()).unwrap();
    let ca = ca.build();
    let mut server = begin(&server_name, &ca_name, &key);
    let names = SubjectAlternativeName::new()
        .dns("localhost")
        .dns("stripe.test")
        .dns(super::tls::STRIPES_OWN)
        .ip("127.0.0.1")
        .build(&server.x509v3_context(Some(&ca), None))
        .unwrap();
    server.append_extension(names).unwrap();
    server.append_extension(BasicConstraints::new().build().unwrap()).unwrap();
    server.sign(&ca_key, MessageDigest::sha256()).unwrap();
    std::fs::write(directory.join("ca.pem"), ca.to_pem().unwrap()).unwrap();
    std::fs::write(directory.join("server.pem"), server.build().to_pem().unwrap()).unwrap();
    std::fs::write(directory.join("server.key"), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
}
