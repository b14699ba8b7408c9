// What was found in a file, where it is not shown in the file's own table.

import { DEFAULTS, inWords } from "/page/columns.js";
import { byId, cell, count, make, show } from "/page/elements.js";
import { exactly, reasonInWords } from "/page/reasons.js";

// How many are shown, where that is not all.
export function firstOf(shown, total) {
  return total > shown ? ` The first ${count(shown)} of ${count(total)} are shown.` : "";
}

// Of a file that is too large for a table: what was found in it, line by line.
export function showLines(found) {
  show("edits-tools", false);
  show("mend-more", false);
  byId("filters").replaceChildren();
  const table = byId("mend-table");
  table.tHead.replaceChildren(make("tr", {}, ...["Line", "Row", "Column", "What is wrong"].map((words) => make("th", { scope: "col" }, words))));
  table.tBodies[0].replaceChildren(...found.slice(0, 200).map((one) => make("tr", {}, make("th", { scope: "row", data: { label: "Line" } }, String(one.line ?? "")),
    cell(one.row_id ?? "", "Row"), cell(inWords(one.column), "Column"),
    cell(make("span", { title: exactly(one.code, one.reason) }, words(one)), "What is wrong"))));
}

export function words({ severity, code, found, reason, suggestion }) {
  return `${severity === "warning" ? "May be wrong: " : ""}${found ? `“${found}” ` : ""}${reasonInWords(code, reason)}${suggestion ? ` (did you mean ${suggestion}?)` : ""}`;
}

// What is wrong with a column, in words of who made the file.
export function ofColumn({ code, column, reason }) {
  if (code === "missing_column" && column) return `No column is “${inWords(column)}” yet, and every row needs it: choose which one it is${DEFAULTS.includes(column) ? ", or say it for every row below" : ""}.`;
  if (code === "no_heading_known") {
    // A spreadsheet may have other sheets.
    const sheets = reason.split("missing?")[1].replace(/^; t/, " T").replace(/: name the one to read with --sheet.*$/, ": if that is the one, move it to the front.");
    return `None of these headings is known here: choose below what each column is. If what stands there is a person’s row, the row of headings is missing: add one in your spreadsheet, and choose the file again.${sheets}`;
  }
  if (code === "pin_in_clear") return `“${column}” speaks of PINs. Encrypted ones are taken: choose “${inWords("pin[encrypted_number]")}”, and check the rows. PINs that anybody can read are not: take the column out of the file, choose it again, and treat these PINs as known to others. If it holds something else, give it another heading.`;
  const words = inWords(column);
  return `${words}${column && words !== column ? ` (${column})` : ""}${column ? ": " : ""}${reasonInWords(code, reason)}`;
}
