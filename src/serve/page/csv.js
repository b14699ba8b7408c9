// CSV: read as the server reads it, and written so that a spreadsheet opens it right.

// What a file's text is saved as, by the name that the server tells.
function decoded(bytes, readAs) {
  try {
    return new TextDecoder(readAs === "Mac Roman" ? "macintosh" : readAs ?? "utf-8").decode(bytes);
  } catch {
    return null;
  }
}

// The records of a CSV: each with the line that it begins on, from 1, and its cells. Nothing if it cannot be decoded.
export function records(bytes, readAs, delimiter) {
  const text = decoded(bytes, readAs)?.replace(/^\ufeff/, "");
  if (text === undefined || text === null) return null;
  const found = [];
  let [line, at] = [1, 0];
  while (at < text.length) {
    const record = { line, cells: [] };
    for (let more = true; more;) {
      let cell = "";
      if (text[at] === '"') {
        for (at += 1; at < text.length; at += 1) {
          if (text[at] === '"') {
            if (text[at + 1] !== '"') break;
            at += 1;
          } else if (text[at] === "\n" || (text[at] === "\r" && text[at + 1] !== "\n")) {
            line += 1;
          }
          cell += text[at];
        }
        at += 1;
      }
      while (at < text.length && text[at] !== delimiter && text[at] !== "\r" && text[at] !== "\n") cell += text[at++];
      record.cells.push(cell);
      more = text[at] === delimiter;
      if (more) at += 1;
    }
    if (text[at] === "\r" && text[at + 1] === "\n") at += 1;
    at += 1;
    line += 1;
    if (record.cells.length > 1 || record.cells[0] !== "") found.push(record);
  }
  return found;
}

// With a byte order mark, so that Excel reads letters beyond ASCII right. Cells stay as they are: this is a file to be read again.
export function written(rows) {
  const quoted = (cell) => (/[",;\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return new Blob(["\ufeff", ...rows.map((row) => `${row.map(quoted).join(",")}\r\n`)], { type: "text/csv" });
}

// The same for a list that is only looked at: no spreadsheet takes a cell for a formula.
export function listed(rows) {
  const safe = (cell) => {
    const text = String(cell ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return new Blob(["\ufeff", ...rows.map((row) => `${row.map(safe).join(",")}\r\n`)], { type: "text/csv" });
}

// As the server compares headings.
export function compared(text) {
  return text.trim().split(/\s+/).join(" ").toLowerCase();
}
