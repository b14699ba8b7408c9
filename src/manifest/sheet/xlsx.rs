//! Which rows and columns an XLSX hides, as calamine does not tell.

use std::io::{BufReader, Cursor, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::hidden::Hidden;

/// What a sheet of that name does not show; nothing where the file is not understood: its cells are read by others.
pub(super) fn hidden(bytes: &[u8], sheet: &str) -> Hidden {
    let mut hidden = Hidden::default();
    let Ok(mut archive) = zip::ZipArchive::new(Cursor::new(bytes)) else { return hidden };
    let Some(part) = part_of(&mut archive, sheet) else { return hidden };
    let Ok(content) = archive.by_name(&part) else { return hidden };
    let mut row = 0;
    let _ = each_tag(content, |tag| {
        match tag.local_name().as_ref() {
            "row" => {
                let own = number(tag, "r").and_then(|number| number.checked_sub(1));
                let this = own.unwrap_or(row);
                if is_hidden(tag) {
                    hidden.add_rows(this, this);
                }
                row = this.saturating_add(1);
            }
            "col" if is_hidden(tag) => {
                if let (Some(first), Some(last)) = (number(tag, "min"), number(tag, "max")) {
                    hidden.add_columns(first.saturating_sub(1), last.saturating_sub(1));
                }
            }
            _ => {}
        }
        Some(())
    });
    hidden
}

/// The part of the archive in which a sheet stands.
fn part_of(archive: &mut zip::ZipArchive<Cursor<&[u8]>>, sheet: &str) -> Option<String> {
    let mut id = None;
    each_tag(archive.by_name("xl/workbook.xml").ok()?, |tag| {
        if tag.local_name().as_ref() == "sheet" && attribute(tag, "name").as_deref() == Some(sheet) {
            id = attribute(tag, "id");
        }
        Some(())
    })?;
    let (id, mut target) = (id?, None);
    each_tag(archive.by_name("xl/_rels/workbook.xml.rels").ok()?, |tag| {
        if attribute(tag, "Id").as_ref() == Some(&id) {
            target = attribute(tag, "Target");
        }
        Some(())
    })?;
    let target = target?;
    Some(target.strip_prefix('/').map_or_else(|| format!("xl/{target}"), str::to_owned))
}

/// Hands over each tag that begins something, until there is no more to read or `each` has enough.
fn each_tag(source: impl Read, mut each: impl FnMut(&BytesStart<'_>) -> Option<()>) -> Option<()> {
    let mut reader = Reader::from_reader(BufReader::new(source));
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(tag) | Event::Empty(tag) => each(&tag)?,
            Event::Eof => return Some(()),
            _ => {}
        }
        buffer.clear();
    }
}

/// An attribute's value, whatever its prefix is.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = tag.attributes().flatten().find(|found| found.key.local_name().as_ref() == name)?;
    quick_xml::escape::unescape(&found.value).ok().map(std::borrow::Cow::into_owned)
}

fn number(tag: &BytesStart<'_>, name: &str) -> Option<u32> {
    attribute(tag, name)?.parse().ok()
}

fn is_hidden(tag: &BytesStart<'_>) -> bool {
    matches!(attribute(tag, "hidden").as_deref(), Some("1" | "true"))
}
