//! What is linked, and what is run while it is built.

use std::process::Command;

use super::{all_below, read, root};

/// deny.toml, by the program that it is written for. tests/run installs it; in CI it must be there.
#[test]
fn only_known_licences_sources_and_versions_are_linked() {
    let deny = root().join("target/lint/bin/cargo-deny");
    if !deny.exists() {
        assert!(std::env::var_os("CI").is_none(), "tests/run installs cargo-deny");
        eprintln!("cargo-deny is not installed (tests/run does it): nothing was checked");
        return;
    }
    // Warnings are of exceptions that nothing needs any more.
    let checks = ["--locked", "check", "-D", "warnings", "licenses", "bans", "sources"];
    let output = Command::new(deny).args(checks).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every package has a checksum, and is of crates.io, where nothing is replaced once it is published; embosser itself has none.
#[test]
fn every_package_is_known_by_its_checksum() {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() > 300, "{} packages", packages.len());
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if name == "embosser" {
            continue;
        }
        let source = package.get("source").and_then(|source| source.as_str());
        assert_eq!(source, Some("registry+https://github.com/rust-lang/crates.io-index"), "{name}");
        assert!(package.get("checksum").is_some_and(|sum| sum.as_str().unwrap().len() == 64), "{name}");
    }
}

#[test]
fn nothing_of_ours_runs_while_it_is_built() {
    assert!(!root().join("build.rs").exists(), "a build script");
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let package = manifest["package"].as_table().unwrap();
    assert!(package.get("build").is_none() && package.get("links").is_none());
    assert!(manifest.get("build-dependencies").is_none());
    assert!(
        manifest.get("patch").is_none() && manifest.get("replace").is_none(),
        "what is locked is what is built"
    );
    let proc_macro = manifest.get("lib").and_then(|lib| lib.get("proc-macro"));
    assert!(proc_macro.is_none(), "a macro of ours would run in the compiler");
}

/// `forbid` cannot be lifted further down, where `deny` can.
#[test]
fn no_code_of_ours_is_unsafe() {
    for of_crate in ["src/lib.rs", "src/main.rs"] {
        assert!(read(of_crate).contains("\n#![forbid(unsafe_code)]\n"), "{of_crate}");
    }
    let mut files = Vec::new();
    all_below(&root().join("src"), &mut files);
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains("allow(unsafe_code"), "{}", file.display());
        // It would take what is written there into the program, from wherever it lies.
        assert!(!text.contains("include!("), "{}", file.display());
    }
    // A second program of the package would be a crate of its own, with rules of its own.
    let of_programs = std::fs::read_dir(root().join("src/bin")).map(Iterator::count).unwrap_or_default();
    assert_eq!(of_programs, 0);
    assert!(!read("Cargo.toml").contains("[[bin]]"));
}
