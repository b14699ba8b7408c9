//! A file without row ids that is read in another encoding than before: each name with a letter beyond ASCII is another one.

use super::Office;

/// What an earlier run read as Windows-1252 is read otherwise: by a newer version, by what whoever has the file says, and saved
/// again as UTF-8.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_read_in_another_encoding_than_before_makes_no_second_cards() {
    const MAC: &[u8] = b"J\x8ager";
    let office = Office::new().await;
    let readings: [(&[u8], &[&str], &str); 4] = [
        (MAC, &["--encoding", "windows-1252"], "2 issued"),
        (MAC, &[], "2 issued (2 of them before)"),
        (MAC, &["--encoding", "macintosh"], "2 issued (2 of them before)"),
        ("Jäger".as_bytes(), &[], "2 issued (2 of them before)"),
    ];
    for (name, options, ends) in readings {
        let header = b"cardholder,type,currency,metadata[name]\n";
        let text = [&header[..], b"ich_001,virtual,eur,", name, b"\nich_002,virtual,eur,Ada\n"].concat();
        std::fs::write(office.issuing.path("staff.csv"), text).unwrap();
        let said = office.issue(&[&["staff.csv"], options].concat(), 0).await;
        assert!(said.contains(ends), "{said}");
        office.cards_of([1, 2], 1);
    }
    let told = office.told("staff.results.csv");
    assert!(told[0].note.contains("no second card was made"), "{told:?}");
    // Unless they are wanted: of the row that is another one now.
    office.issue(&["staff.csv", "--second-cards"], 0).await;
    assert_eq!(office.cards(), 3);
}
