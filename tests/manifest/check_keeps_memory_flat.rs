//! Promise: half a million rows are checked in less than 64 MiB, whatever is in them.
#![cfg(target_os = "linux")]

use crate::support;

use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use support::verdict::peak_of;

const ROWS: u64 = 500_000;
/// Fewer for the way that is slower by far without optimisation.
const ROWS_ONE_BY_ONE: u64 = 50_000;
const PEAK_BYTES_MAX: u64 = 64 << 20;

/// About 750 bytes a row, a PIN in each, quotes in every tenth.
fn write(path: &Path, rows: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    writeln!(
        out,
        "row_id,cardholder,type,currency,pin[encrypted_number],shipping[name],shipping[address][line1],\
         shipping[address][city],shipping[address][postal_code],shipping[address][country],\
         spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval],\
         metadata[department],metadata[manager],metadata[note]"
    )
    .unwrap();
    let jwe = support::verdict::jwe();
    for row in 0..rows {
        let name = if row % 10 == 0 { "\"O'Brien, \"\"S\"\"\"" } else { "Ada Lovelace" };
        writeln!(
            out,
            "employee-{row:08},ich_{row:016},physical,eur,{jwe},{name},12 Upper Mount Street,Dublin,\
             D02 X285,IE,{},monthly,Research and development,Grace Brewster Murray Hopper,\
             agreed with the works council on the first of November 2026",
            500_000 + row
        )
        .unwrap();
    }
    out.flush().unwrap();
    let row_bytes = std::fs::metadata(path).unwrap().len() / rows;
    assert!((700..=800).contains(&row_bytes), "{row_bytes} bytes a row");
}

#[test]
fn half_a_million_rows_take_less_than_64_mib() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("rollout.csv");
    write(&path, ROWS);
    let (bytes, said) = peak_of(&path);
    println!("peak {} KiB", bytes >> 10);
    assert!(
        said.starts_with("500000 rows: 500000 cards (0 virtual, 500000 physical), 500000 with a PIN"),
        "{said}"
    );
    assert!(bytes > 0 && bytes < PEAK_BYTES_MAX, "{bytes} bytes");

    // A quote stands in the first row where none should: from here on each row is read by itself.
    write(&path, ROWS_ONE_BY_ONE);
    let text = std::fs::read(&path).unwrap();
    let at = text.windows(4).position(|window| window == b"ich_").unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(at as u64 + 3)).unwrap();
    file.write_all(b"\"").unwrap();
    drop((file, text));
    let (bytes, said) = peak_of(&path);
    println!("peak {} KiB, row by row", bytes >> 10);
    assert!(said.starts_with("50000 rows: 50000 cards"), "{said}");
    assert!(bytes > 0 && bytes < PEAK_BYTES_MAX, "{bytes} bytes");
}
